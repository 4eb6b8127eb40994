package ingest

import (
	"fmt"
	"time"

	"halo.internal/gateway/events"
	"halo.internal/model"
)

// dropEvery is the least time between two events of dropped batches: on a disk
// that stays nearly full each batch that comes costs an old one.
const dropEvery = time.Hour

// drops makes events of batches that were dropped for space: at once when there
// was none for a while, then all that came since together. Those that were not
// told when the process ends stand in telemetry.db with the rest, by node and
// boot. It is for one goroutine.
type drops struct {
	events *events.Log
	budget int64

	why    string // of the last
	since  int64  // dropped and not told
	quiet  time.Time
	waiter *time.Timer // until quiet has passed, while something is not told; nil: nothing waits
}

// add notes that batches were dropped.
func (d *drops) add(n int64, why string) {
	if n == 0 {
		return
	}
	d.since, d.why = d.since+n, why
	switch wait := time.Until(d.quiet); {
	case wait <= 0:
		d.tell()
	case d.waiter == nil:
		d.waiter = time.NewTimer(wait)
	}
}

// due gets a value when tell is to be called.
func (d *drops) due() <-chan time.Time {
	if d.waiter == nil {
		return nil
	}
	return d.waiter.C
}

func (d *drops) tell() {
	d.stop()
	d.events.Add("telemetry.dropped", model.Warning, "", fmt.Sprintf("%s: the oldest %d batches were dropped", d.why, d.since),
		map[string]string{"batches": fmt.Sprint(d.since), "budget_bytes": fmt.Sprint(d.budget)})
	d.since, d.quiet = 0, time.Now().Add(dropEvery)
}

// stop ends the waiting.
func (d *drops) stop() {
	if d.waiter != nil {
		d.waiter.Stop()
		d.waiter = nil
	}
}
