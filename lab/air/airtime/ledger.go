package airtime

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Ledger takes down frames from two sides. Its methods may be called from any
// goroutine.
type Ledger struct {
	mu    sync.Mutex // guards what follows
	begun time.Time
	sums  map[Kind]*sum             // of frames that tell what they are
	data  map[match][]time.Duration // in the air
	given map[match][]Kind          // to mesh interfaces
}

type sum struct {
	frames int
	time   time.Duration
}

// match is by what frames of one member are found on both sides, in their order.
type match struct {
	from     string
	receiver [6]byte
	payload  int
}

// New returns an empty ledger.
func New() *Ledger {
	l := &Ledger{}
	l.Reset()
	return l
}

// Reset begins anew.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun, l.sums, l.data, l.given = time.Now(), map[Kind]*sum{}, map[match][]time.Duration{}, map[match][]Kind{}
}

// Air takes down a frame of 802.11 that a member sent, without FCS, and the time
// that it took; it is what lab/air.Air's Observe calls.
func (l *Ledger) Air(from string, frame []byte, took time.Duration) {
	k, receiver, payload := air(frame)
	l.mu.Lock()
	defer l.mu.Unlock()
	if k == Data {
		m := match{from, receiver, payload}
		l.data[m] = append(l.data[m], took)
		return
	}
	l.add(k, took)
}

// Given takes down an Ethernet frame that a member handed to its mesh interface.
func (l *Ledger) Given(from string, frame []byte) {
	if len(frame) < 14 {
		return
	}
	m := match{from, [6]byte(frame[:6]), len(frame) - 14}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given[m] = append(l.given[m], ethernet(frame))
}

func (l *Ledger) add(k Kind, took time.Duration) {
	if l.sums[k] == nil {
		l.sums[k] = &sum{}
	}
	l.sums[k].frames++
	l.sums[k].time += took
}

// Row is what one kind took.
type Row struct {
	Kind   Kind
	Frames int
	Time   time.Duration
}

// Account is what was taken down within a time.
type Account struct {
	Over time.Duration
	Rows []Row // the most time first
}

// Close returns the account since New or Reset, and begins anew.
func (l *Ledger) Close() Account {
	l.mu.Lock()
	for m, times := range l.data {
		kinds := l.given[m]
		for i, took := range times {
			k := Data
			if i < len(kinds) {
				k = kinds[i]
			}
			l.add(k, took)
		}
	}
	a := Account{Over: time.Since(l.begun)}
	for k, s := range l.sums {
		a.Rows = append(a.Rows, Row{k, s.frames, s.time})
	}
	l.mu.Unlock()
	slices.SortFunc(a.Rows, func(x, y Row) int { return cmp.Or(cmp.Compare(y.Time, x.Time), cmp.Compare(x.Kind, y.Kind)) })
	l.Reset()
	return a
}

// Share returns which part of the time the frames took for which ok holds.
func (a Account) Share(ok func(Kind) bool) float64 {
	var took time.Duration
	for _, r := range a.Rows {
		if ok(r.Kind) {
			took += r.Time
		}
	}
	return took.Seconds() / a.Over.Seconds()
}

// Beacons returns the share of beacons, and Rest that of all else.
func (a Account) Beacons() float64 { return a.Share(func(k Kind) bool { return k == Beacon }) }

// Rest is what Beacons leaves.
func (a Account) Rest() float64 { return a.Share(func(k Kind) bool { return k != Beacon }) }

// String returns a table of frames a minute and shares of the time.
func (a Account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-32s %12s %10s\n", "kind", "frames/min", "airtime %")
	for _, r := range a.Rows {
		fmt.Fprintf(&b, "%-32s %12.1f %10.2f\n", r.Kind, float64(r.Frames)/a.Over.Minutes(), 100*r.Time.Seconds()/a.Over.Seconds())
	}
	fmt.Fprintf(&b, "%-32s %12s %10.2f\n", "all but beacons", "", 100*a.Rest())
	return b.String()
}
