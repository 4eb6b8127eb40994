package air

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"halo.internal/lab/air/hwsim"
)

// Medium is where frames come from and go to: *hwsim.Medium, or a test's.
type Medium interface {
	Next() (hwsim.Frame, error)
	Deliver(receiver net.HardwareAddr, data []byte, rate, signalDBm, freqMHz int) error
	Report(f hwsim.Frame, ack bool, signalDBm int, did hwsim.Attempts) error
	Close() error
}

var _ Medium = (*hwsim.Medium)(nil)

// Run is Carry and Attach for the radios of one machine, until ctx ends or m
// does. It closes m.
func (a *Air) Run(ctx context.Context, m Medium) error {
	ctx, cancel := context.WithCancel(ctx)
	var carrying sync.WaitGroup
	carrying.Go(func() { a.Carry(ctx) })
	err := a.Attach(ctx, "", m)
	cancel()
	carrying.Wait()
	return err
}

// Attach lets the radios of a machine take part until ctx ends, or m does, which
// it closes. Carry has to run.
func (a *Air) Attach(ctx context.Context, machine string, m Medium) error {
	a.mu.Lock()
	if _, there := a.mediums[machine]; there {
		a.mu.Unlock()
		return errors.Join(fmt.Errorf("air: the radios of %q take part already", machine), m.Close())
	}
	a.mediums[machine] = m
	a.mu.Unlock()
	reading := make(chan error, 1)
	go func() { reading <- a.read(ctx, machine, m) }()
	var err error
	select {
	case <-ctx.Done(): // closing ends the reading
	case err = <-reading:
		reading <- nil
	}
	a.mu.Lock()
	delete(a.mediums, machine)
	a.mu.Unlock()
	err = errors.Join(err, m.Close())
	<-reading
	return err
}

func (a *Air) read(ctx context.Context, machine string, m Medium) error {
	for {
		f, err := m.Next()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, syscall.ENOBUFS) {
			continue // the radios take it for silence
		}
		if err == nil {
			err = a.owned(machine, f.Transmitter)
		}
		if err != nil {
			return err
		}
		select {
		case a.frames <- sent{machine, f}:
		case <-ctx.Done():
			return nil
		}
	}
}

// owned returns an error when the radio is another machine's: none may speak for
// another's. One without a place is nobody's.
func (a *Air) owned(machine string, transmitter net.HardwareAddr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.find(transmitter); r != nil && r.Machine != machine {
		return fmt.Errorf("air: machine %q: expected frames of its own radios, got one of %s", machine, r.Name)
	}
	return nil
}

// sent is a frame and where it comes from.
type sent struct {
	machine string
	frame   hwsim.Frame
}

// due is a frame on its way, to some of those who hear it.
type due struct {
	at    time.Time
	order int // of sending
	sent
	fate fate
	to   []hearing
	last bool // the report goes with it
}

type schedule []due

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	return s[i].at.Before(s[j].at) || s[i].at.Equal(s[j].at) && s[i].order < s[j].order
}
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)   { *s = append(*s, x.(due)) }
func (s *schedule) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

// Carry carries the frames of all who take part until ctx ends. Each frame is
// delivered when its airtime is over, and a channel carries one at a time.
func (a *Air) Carry(ctx context.Context) {
	var waiting schedule
	free := map[int]time.Time{} // when a channel is free, by MHz
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	order := 0
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-a.frames:
			v := a.carry(f.frame)
			at := time.Now()
			if busy := free[f.frame.FreqMHz]; busy.After(at) {
				at = busy
			}
			at = at.Add(v.airtime.Airtime)
			free[f.frame.FreqMHz] = at
			onTime, later := v.split()
			heap.Push(&waiting, due{at, order, f, v, onTime, true})
			order++
			for _, h := range later {
				heap.Push(&waiting, due{at.Add(h.after), order, f, v, []hearing{h}, false})
				order++
			}
		case <-timer.C:
		}
		for len(waiting) > 0 && !time.Now().Before(waiting[0].at) {
			a.hand(heap.Pop(&waiting).(due))
		}
		if len(waiting) > 0 {
			timer.Reset(time.Until(waiting[0].at))
		}
	}
}

// hand gives a frame to those who hear it and the report to who sent it, in the
// order of the air: the acknowledgement comes last, but for what is late. A machine that is gone, or
// that fails, hears nothing; its own Attach ends with the reason.
func (a *Air) hand(d due) {
	a.mu.Lock()
	if d.last {
		a.record(d.at, d.frame, d.fate)
	}
	for _, h := range d.to {
		a.count(d.fate.from, d.order, h)
	}
	a.mu.Unlock()
	for _, h := range d.to {
		if m := a.medium(h.radio.Machine); m != nil {
			if err := m.Deliver(h.radio.Address, h.frame(d.frame.Data), d.fate.rate, h.signal, d.frame.FreqMHz); err != nil {
				_ = m.Close()
			}
		}
	}
	if m := a.medium(d.machine); m != nil && d.last {
		// A radio without a place hears nothing back, and must be told so.
		if err := m.Report(d.frame, d.fate.acked, d.fate.signal, d.fate.did); err != nil {
			_ = m.Close()
		}
	}
}

func (a *Air) medium(machine string) Medium {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mediums[machine]
}
