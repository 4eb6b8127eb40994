package doctor

import (
	"slices"
	"sync"
	"time"

	"halo.internal/model"
)

// Kinds of events.
const (
	EventFound  = "doctor.found"  // a fault; Error where nothing helps
	EventMended = "doctor.mended" // traffic passes again
	EventEnded  = "doctor.ended"  // the fault itself is gone, and what was done about it
)

const (
	maxFindings = 64
	// A fault that comes back within an hour is the same one again. Somebody may put
	// it there again and again: it is mended each time, and told of at that pace.
	sameFault = time.Hour
	tellBurst = 6
	tellEvery = 10 * time.Minute
)

// about names a fault: of which kind, on the path to which peer, or of what else.
type about struct{ fault, peer, what string }

// ledger keeps the faults and tells of them. It may be used from any goroutine.
type ledger struct {
	now    func() time.Time // of the clock, for people
	notify func(model.Event)

	mu      sync.Mutex
	entries []*entry // the oldest first
}

type entry struct {
	about
	model.DoctorFinding
	since  time.Time // monotonic, of the last change
	tokens float64
	told   time.Time
	silent bool // the present turn is not told of
}

func newLedger(now func() time.Time, notify func(model.Event)) *ledger {
	return &ledger{now: now, notify: notify}
}

// last returns the last entry of a fault.
func (l *ledger) last(a about) *entry {
	i := slices.IndexFunc(l.entries, func(e *entry) bool { return e.about == a })
	if i < 0 {
		return nil
	}
	return l.entries[i]
}

// found notes a fault that is there; hopeless says that nothing can be done. It
// tells of it when it is new, came back, or is another in words.
func (l *ledger) found(a about, detail string, hopeless bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, now := l.last(a), time.Now()
	switch {
	case e != nil && e.Mended == nil && e.Ended == nil:
		if e.Detail == detail {
			return // as before
		}
		e.Detail = detail
	case e != nil && now.Sub(e.since) < sameFault:
		e.Times, e.Detail, e.Mended, e.Ended, e.Treatment = e.Times+1, detail, nil, nil, ""
	default:
		if e != nil {
			l.entries = slices.DeleteFunc(l.entries, func(o *entry) bool { return o == e })
		}
		e = &entry{about: a, tokens: tellBurst, told: now, DoctorFinding: model.DoctorFinding{
			Fault: a.fault, Peer: a.peer, Detail: detail, Found: l.now().UTC(), Times: 1,
		}}
		l.entries = append(l.entries, e)
		l.entries = l.entries[max(0, len(l.entries)-maxFindings):]
	}
	e.since = now
	e.tokens = min(tellBurst, e.tokens+float64(now.Sub(e.told))/float64(tellEvery))
	e.told = now
	if e.silent = e.tokens < 1; e.silent {
		return
	}
	e.tokens--
	severity := model.Warning
	if hopeless {
		severity = model.Error
	}
	l.tell(EventFound, severity, detail, e)
}

// mended notes that the fault, which was found, does no harm any more since that was
// done.
func (l *ledger) mended(a about, treatment string) {
	l.close(a, EventMended, treatment, func(e *entry) **time.Time { return &e.Mended })
}

// ended notes that the fault is not there any more. One that was never mended was
// not the doctor's doing.
func (l *ledger) ended(a about, words string) {
	l.close(a, EventEnded, words, func(e *entry) **time.Time { return &e.Ended })
}

func (l *ledger) close(a about, kind, words string, field func(*entry) **time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.last(a)
	if e == nil || *field(e) != nil || e.Ended != nil {
		return
	}
	t := l.now().UTC()
	*field(e), e.since = &t, time.Now()
	if kind == EventMended {
		e.Treatment = words
	}
	if !e.silent {
		l.tell(kind, model.Info, words, e)
	}
}

func (l *ledger) tell(kind string, s model.Severity, message string, e *entry) {
	fields := map[string]string{"fault": e.Fault}
	if e.Peer != "" {
		fields["peer"] = e.Peer
	}
	if kind != EventFound {
		fields["detail"] = e.Detail
	}
	l.notify(model.Event{Kind: kind, Severity: s, Message: message, Fields: fields})
}

// open tells whether a fault is there and does harm.
func (l *ledger) open(a about) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.last(a)
	return e != nil && e.Mended == nil && e.Ended == nil
}

// of returns all that were found of one kind and are not over.
func (l *ledger) of(fault string) (list []about) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.fault == fault && e.Mended == nil && e.Ended == nil {
			list = append(list, e.about)
		}
	}
	return list
}

// list returns the findings, the newest first.
func (l *ledger) list() []model.DoctorFinding {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]model.DoctorFinding, 0, len(l.entries))
	for _, e := range slices.Backward(l.entries) {
		out = append(out, e.DoctorFinding)
	}
	return out
}
