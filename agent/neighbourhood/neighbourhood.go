// Package neighbourhood decides when a device tells the gateway what it sees around it,
// and what of it. A channel of 150 kbit/s may be shared by 250 nodes, and each message of
// its own costs 20 ms of it at every hop, as does the acknowledgement of TCP: so nothing
// is sent while nothing has changed, what merely drifts goes along with a batch of
// readings, and what alters the network goes at once, a few times. docs/topology.md has
// the figures. It does no I/O.
package neighbourhood

import (
	"sync"
	"time"

	"halo.internal/model"
)

// When reports are sent.
const (
	// Numbers that have changed by much are sent so often at most: the more nodes there
	// are, the less each says.
	perNode  = 2 * time.Second
	shortest = time.Minute
	longest  = 10 * time.Minute
	// riding is how long a report waits for readings to go along with.
	riding = 90 * time.Second

	// What has altered is sent after settle, so that what alters together goes together,
	// soonest after the report before. burst such reports may follow each other; then
	// there is one for each interval, which goes along with readings.
	settle  = 4 * time.Second
	soonest = 10 * time.Second
	burst   = 4

	// Without news one is sent all the same, so that the gateway knows that it still
	// holds; everyS is what it is told.
	everyS = 600
	every  = everyS*time.Second - riding

	// What halo-mesh said longer ago is not sent: it is asked every minute.
	believed = 90 * time.Second
)

// Source tells what halo-mesh said last of all that is around, and when.
type Source func() (model.MeshStatus, time.Time)

// Reporter makes the reports of one stream after the other. Its methods may be called
// from any goroutine.
type Reporter struct {
	source Source
	seq    func() uint64 // milliseconds since the start of the machine

	mu      sync.Mutex // guards what follows
	base    model.Report
	before  *model.MeshStatus // that base was made of
	begun   bool              // a stream has, and nothing was sent on it
	last    uint64            // number of the last report
	sent    time.Time
	news    time.Time // since when numbers are other than in base; zero: they are not
	altered time.Time // since when the network is
	tokens  float64   // of burst
	filled  time.Time
}

// New returns a reporter. seq tells the milliseconds since the start of the machine, by
// which numbers of reports rise over restarts of the process.
func New(source Source, seq func() uint64) *Reporter {
	return &Reporter{source: source, seq: seq, tokens: burst}
}

// Begin is to be called when a stream has begun: a report goes at once, of what has
// changed since the last one. Whether that arrived, and whether the gateway still has it,
// the gateway tells.
func (r *Reporter) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = true
}

// Again is to be called when the gateway wants a whole report.
func (r *Reporter) Again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base = model.Report{}
}

// Next returns the report that is to be sent now, if one is. along tells whether readings
// are being sent. A report that is returned counts as sent: if it cannot be, the stream
// has ended.
func (r *Reporter) Next(now time.Time, along bool) (model.Report, bool) {
	status, at := r.source()
	if status.Node == "" || now.Sub(at) > believed || time.Duration(status.StaleMS)*time.Millisecond > believed {
		return model.Report{}, false // nothing that is known holds
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := model.ReportOf(status, r.before)
	seen.EveryS = everyS
	seen.Seq = max(r.last+1, r.seq())
	if seen.Check() != nil {
		return model.Report{}, false // halo-mesh has not settled who the device is
	}
	changes, sum, err := seen.Since(r.base)
	if err == nil {
		err = changes.Check()
	}
	switch {
	case r.base.Seq != 0 && err == nil:
		if !r.due(now, along, status, seen, changes) && !r.begun {
			return model.Report{}, false
		}
	case r.begun || now.Sub(r.sent) >= soonest:
		changes, sum = seen, seen
	default:
		return model.Report{}, false // it was asked for a whole one again
	}
	r.base, r.before, r.last, r.sent, r.altered, r.begun = sum, &status, changes.Seq, now, time.Time{}, false
	r.news = time.Time{}
	return changes, true
}

// due tells whether it is time for a report.
func (r *Reporter) due(now time.Time, along bool, status model.MeshStatus, seen, changes model.Report) bool {
	interval := intervalOf(status)
	refill := interval
	if status.Role == model.RoleGateway {
		refill = soonest // it is not sent over the air
	}
	r.tokens = min(r.tokens+now.Sub(r.filled).Seconds()/refill.Seconds(), burst)
	r.filled = now
	since := now.Sub(r.sent)
	if !seen.Altered(r.base, gatewayOf(seen, r.base)) {
		r.altered = time.Time{}
	} else if r.altered.IsZero() {
		r.altered = now
	}
	if !r.altered.IsZero() && since >= soonest && r.tokens >= 1 {
		wait := settle
		if r.tokens < 2 {
			wait = riding // the last one does not go by itself, if it can
		}
		if along || now.Sub(r.altered) >= wait {
			r.tokens--
			return true
		}
	}
	if !changes.News(r.base) {
		r.news = time.Time{}
	} else if r.news.IsZero() {
		r.news = now
	}
	by := r.sent.Add(every)
	if !r.news.IsZero() {
		by = later(r.news, r.sent.Add(interval))
	}
	return !now.Before(by) && (along || now.Sub(by) >= riding)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// gatewayOf names the node that routing leads to.
func gatewayOf(reports ...model.Report) string {
	for _, r := range reports {
		for _, h := range r.NextHops {
			return h.Node
		}
	}
	return ""
}

// intervalOf is how often numbers are told, by how many share the channels. The gateway's
// own agent shares them with nobody.
func intervalOf(s model.MeshStatus) time.Duration {
	if s.Role == model.RoleGateway {
		return shortest
	}
	return min(max(perNode*time.Duration(min(max(s.Originators, 0), 1000)+1), shortest), longest)
}
