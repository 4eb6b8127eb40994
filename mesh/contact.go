package mesh

import (
	"context"
	"time"

	"halo.internal/mesh/port"
	"halo.internal/mesh/radio"
	"halo.internal/model"
)

// contactAfter is when, after a new link, the device makes itself known: what goes
// to all arrives at once, what goes to one only when routing knows the way, which
// takes a few of its messages. It costs a few frames, and saves up to half a minute
// after a start of either end.
var contactAfter = []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second}

// noteUnderlay records what happens below bat0, and takes note of new links.
func (m *core) noteUnderlay(e model.Event) {
	m.events.Record(e)
	m.noteStep(e)
	switch e.Kind {
	case port.EventRole, port.EventGone:
		wake(m.serveNow)
	case radio.EventPeer, radio.EventPeerAgain, port.EventProven:
		wake(m.contact)
	}
}

// followContacts calls greet some times after the last new link, until ctx ends.
func followContacts(ctx context.Context, contact <-chan struct{}, after []time.Duration, greet func()) error {
	var at time.Time
	next := len(after)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-contact:
			// In a dense cell links come one after the other: what is due stays due.
			if at = time.Now(); next == len(after) || next > 0 {
				next = 0
				timer.Reset(after[0])
			}
		case <-timer.C:
			greet()
			if next++; next < len(after) {
				timer.Reset(time.Until(at.Add(after[next])))
			}
		}
	}
}
