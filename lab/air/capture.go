package air

import (
	"encoding/binary"
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/model/pcap"
)

// Capture records every frame that a radio sends, heard by anybody or not, until
// it is called with nil. The capture's link type is pcap.Radiotap.
func (a *Air) Capture(c *pcap.Writer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.capture = c
}

// Observe has f called with each frame that a radio sends, without FCS, and the
// time that the channel is taken by all its attempts, waiting included; nil ends
// that. f must not keep the frame, block, or call the air.
func (a *Air) Observe(f func(from string, frame []byte, airtime time.Duration)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.observer = f
}

// Fields of a radiotap header, and bits in them (radiotap.org).
const (
	tapRate    = 1 << 2
	tapChannel = 1 << 3
	tapTxFlags = 1 << 15
	tapRetries = 1 << 17
	tapMCS     = 1 << 19

	txFailed  = 1
	txNoAck   = 8
	band2GHz  = 0x80
	band5GHz  = 0x100
	mcsIsHT20 = 0x03 // the MCS and the width are known
)

// record writes down a frame as it was sent last, and what became of it.
func (a *Air) record(now time.Time, f hwsim.Frame, v fate) {
	if a.capture == nil {
		return
	}
	if err := a.capture.Write(now, append(radiotap(f, v), f.Data...)); err != nil {
		a.capture = nil // the disk is full: the air goes on
	}
}

// radiotap returns the header of a frame: its channel, rate, and how often it was
// repeated. Rates are the driver's; what they stand for is up to the profile.
func radiotap(f hwsim.Frame, v fate) []byte {
	last, attempts := hwsim.Attempt{Rate: -1}, 0
	kind := hwsim.Legacy
	for i, t := range v.did {
		if t.Rate >= 0 && t.Count > 0 {
			last, kind = t, f.Kinds[i]
			attempts += int(t.Count)
		}
	}
	present := uint32(tapChannel | tapTxFlags | tapRetries)
	le := binary.LittleEndian
	var body []byte // begins at octet 8, so that its alignment is the header's
	legacyRate := byte(0)
	if last.Rate >= 0 && kind == hwsim.Legacy {
		legacyRate = halfMbps(f.FreqMHz, int(last.Rate))
	}
	if legacyRate > 0 {
		present |= tapRate
		body = append(body, legacyRate, 0) // the channel is aligned to two octets
	}
	flags := uint16(band2GHz)
	if !dsssBand(f.FreqMHz) {
		flags = band5GHz
	}
	body = le.AppendUint16(body, uint16(f.FreqMHz))
	body = le.AppendUint16(body, flags)
	tx := uint16(0)
	switch {
	case f.Flags&hwsim.NoAck != 0 || f.Data[4]&1 != 0:
		tx = txNoAck
	case !v.acked:
		tx = txFailed
	}
	body = le.AppendUint16(body, tx)
	body = append(body, byte(min(max(attempts-1, 0), 255)))
	if last.Rate >= 0 && kind != hwsim.Legacy {
		present |= tapMCS
		body = append(body, mcsIsHT20, 0, byte(modulation(f.FreqMHz, kind, int(last.Rate))))
	}
	head := le.AppendUint16([]byte{0, 0}, uint16(8+len(body)))
	return append(le.AppendUint32(head, present), body...)
}

// halfMbps is a rate of the driver in units of 500 kbit/s.
func halfMbps(freqMHz, n int) byte {
	all := []byte{12, 18, 24, 36, 48, 72, 96, 108}
	if dsssBand(freqMHz) {
		all = append([]byte{2, 4, 11, 22}, all...)
	}
	if n >= len(all) {
		return 0
	}
	return all[n]
}
