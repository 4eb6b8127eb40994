package air

import (
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
)

// fate is what becomes of one frame.
type fate struct {
	known    bool // the sender has a place
	from     string
	airtime  physics.Outcome
	acked    bool
	did      hwsim.Attempts
	signal   int // of the acknowledgement, dBm
	rate     int // for the receivers' drivers
	hearings []hearing
}

// hearing is one radio that receives the frame.
type hearing struct {
	radio  Radio
	signal int // dBm

	directed bool          // a Disorder had it
	after    time.Duration // its airtime was over
	again    bool          // it is a copy
	retry    bool          // with the Retry bit
}

// fallbackTries is how often a radio tries the slowest rate of OFDM when a plan of
// faster ones has failed, as much hardware does by itself. Simulated radios need
// it: their driver says of no frame that it was sent as part of an aggregate, so
// that mac80211 learns nothing from frames of a block acknowledgement session, and
// its rates, whatever their kind, stay what they were when the session began.
const fallbackTries = 4

// carry decides a frame's fate.
func (a *Air) carry(f hwsim.Frame) fate {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := fate{did: hwsim.Attempts{{Rate: -1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}}
	var from *Radio
	for i := range a.radios {
		if a.radios[i].has(f.Transmitter) {
			from = &a.radios[i]
		}
	}
	if from == nil {
		return v
	}
	v.known, v.from = true, from.Name
	receiver := f.Data[4:10]
	unicast := receiver[0]&1 == 0 && f.Flags&hwsim.NoAck == 0
	var plan []physics.Attempt
	for i, t := range f.Plan {
		if t.Rate < 0 || t.Count == 0 {
			break
		}
		plan = append(plan, physics.Attempt{Rate: a.profile.rate(f.FreqMHz, f.Kinds[i], int(t.Rate)), Count: int(t.Count)})
	}
	slowest := physics.Attempt{Rate: a.profile.rate(f.FreqMHz, hwsim.Legacy, int(slowestOFDM(f.FreqMHz))), Count: fallbackTries}
	if n := len(plan); unicast && n > 0 && plan[n-1].Rate.Kbps > slowest.Rate.Kbps {
		n = min(n, len(f.Plan)-1)
		f.Plan[n], f.Kinds[n] = hwsim.Attempt{Rate: slowestOFDM(f.FreqMHz), Count: fallbackTries}, hwsim.Legacy
		plan = append(plan[:n], slowest)
	}
	if len(plan) == 0 { // the driver leaves it to the hardware
		plan = []physics.Attempt{{Rate: a.profile.Basic, Count: 1}}
	}

	// To the one that it is for: its acknowledgement decides how often the frame is
	// sent. Nobody may be there.
	last, times := 0, 1
	to := a.find(receiver)
	link := physics.Link{SNR: -100, Back: -100, Timing: a.profile.Timing, Basic: a.profile.Basic}
	if to != nil && to.Name != from.Name {
		link = a.link(*from, *to, f.FreqMHz)
	}
	v.airtime = link.Send(plan, len(f.Data), unicast, a.dice.Float64)
	v.acked = v.airtime.Acked
	a.sent(from.Name, f.FreqMHz, v.airtime.Airtime)
	if a.observer != nil {
		a.observer(from.Name, f.Data, v.airtime.Airtime)
	}
	for i, n := range v.airtime.Tried {
		if n > 0 {
			last, times = i, n
			if i < len(f.Plan) && f.Plan[i].Rate >= 0 {
				v.did[i] = hwsim.Attempt{Rate: f.Plan[i].Rate, Count: uint8(n)}
			}
		}
	}
	if f.Plan[last].Rate >= 0 {
		v.rate = delivered(f.FreqMHz, f.Kinds[last], int(f.Plan[last].Rate))
	}
	for _, r := range a.radios {
		if r.Name == from.Name {
			continue
		}
		signal, snr := a.signal(*from, r, f.FreqMHz)
		heard := false
		meant := to != nil && r.Name == to.Name
		if meant && unicast {
			heard = v.airtime.Received
			if back, _ := a.signal(r, *from, f.FreqMHz); v.acked {
				v.signal = int(back)
			}
		} else {
			l := a.link(*from, r, f.FreqMHz)
			for range times {
				heard = heard || l.Send(plan[last:last+1], len(f.Data), false, a.dice.Float64).Received
			}
		}
		p := pair{from.Name, r.Name}
		c := a.counters[p]
		c.Frames++
		c.SignalDB, c.SNR = signal, snr
		if meant {
			c.Airtime += v.airtime.Airtime
			c.rate = plan[last].Rate
		}
		if heard {
			c.Heard++
			h := hearing{radio: r, signal: int(signal)}
			if d, ok := a.disorder[p]; ok && meant && directed(f.Data) {
				v.hearings = append(v.hearings, d.apply(h, a.dice)...)
			} else {
				v.hearings = append(v.hearings, h)
			}
		}
		a.counters[p] = c
	}
	return v
}

func (a *Air) find(mac []byte) *Radio {
	for i := range a.radios {
		if a.radios[i].has(mac) {
			return &a.radios[i]
		}
	}
	return nil
}

// signal returns how strongly one radio hears another, in dBm, and how far that
// is above the noise, in dB.
func (a *Air) signal(from, to Radio, freqMHz int) (dBm, snr float64) {
	freq := a.profile.FreqMHz
	if freq == 0 {
		freq = float64(freqMHz)
	}
	dBm = from.PowerDBm - a.terrain.PathLoss(from.Position.Distance(to.Position), freq) - a.extra[pair{from.Name, to.Name}]
	noise := physics.Noise(a.profile.WidthMHz, to.FigureDB)
	for _, channel := range []int{0, freqMHz} {
		j, ok := a.jam[channel]
		switch {
		case ok && j.At != nil:
			noise = physics.AddDBm(noise, j.PowerDBm-a.terrain.PathLoss(j.At.Distance(to.Position), freq))
		case ok:
			noise += j.RaiseDB
		}
	}
	return dBm, dBm - noise
}

// link puts both directions together.
func (a *Air) link(from, to Radio, freqMHz int) physics.Link {
	_, there := a.signal(from, to, freqMHz)
	_, back := a.signal(to, from, freqMHz)
	l := physics.Link{SNR: there, Back: back, Loss: a.loss[pair{from.Name, to.Name}], Timing: a.profile.Timing, Basic: a.profile.Basic}
	if a.isCut(from.Name, to.Name) {
		l.Loss = 1
	}
	if a.isCut(to.Name, from.Name) {
		l.Back = -100 // no acknowledgement
	}
	return l
}
