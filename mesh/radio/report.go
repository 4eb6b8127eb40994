package radio

import (
	"time"

	"halo.internal/drivers/nl80211"
)

// Every driver tells what became of a management frame, within milliseconds and
// whoever is in reach: also of one to all, which nobody acknowledges. So frames
// without a report are what a driver that has hung looks like, as against one that
// is alone (mesh/heal). A driver that never reports any is not judged by it.

// Reports counts frames by what the driver has said of them, since the radio
// joined.
type Reports struct {
	Sent     uint64 // a report is there, or overdue
	Reported uint64 // a report came in time, acknowledged or not
}

const (
	reportWithin = 5 * time.Second
	// reportSlow is the same of a HaLow radio, whose channel may be full for seconds: of
	// 1 MHz, ten who begin together fill it so.
	reportSlow = 12 * time.Second
	maxAwaited = 128 // more than are sent in that time
)

// reportsWithin is after what time a frame's report is not to be expected any more.
func (r *Radio) reportsWithin() time.Duration {
	if r.c.Morse {
		return reportSlow
	}
	return reportWithin
}

// send hands a frame to the driver, and awaits its report.
func (r *Radio) send(f nl80211.SendFrame) error {
	cookie, err := r.conn.Send(r.iface.Index, f)
	if err == nil && !f.NoAck && len(r.awaited) < maxAwaited {
		r.awaited[cookie] = time.Now()
	}
	return err
}

// reported takes the driver's word on a frame.
func (r *Radio) reported(now time.Time, cookie uint64) {
	at, ok := r.awaited[cookie]
	if !ok {
		return
	}
	delete(r.awaited, cookie)
	r.reports.Sent++
	if now.Sub(at) <= r.reportsWithin() {
		r.reports.Reported++
	}
}

// overdue counts the frames whose report is not to be expected any more.
func (r *Radio) overdue(now time.Time) {
	for cookie, at := range r.awaited {
		if now.Sub(at) > r.reportsWithin() {
			delete(r.awaited, cookie)
			r.reports.Sent++
		}
	}
}

// Seek has the radio look for peers anew: whoever is heard is sought at once,
// whatever came of earlier attempts, and where nobody is heard, it asks. It is taken
// note of by a radio that is a member.
func (r *Radio) Seek() {
	select {
	case r.seek <- struct{}{}:
	default: // it is to do so already
	}
}

// seekAnew forgets why stations are left alone, and asks who is there if nobody is
// heard.
func (r *Radio) seekAnew(now time.Time) error {
	for _, s := range r.heard {
		if s.since.IsZero() {
			s.hold, s.refused = time.Time{}, time.Time{}
		}
	}
	r.choose(now)
	return r.lookAround(now)
}
