package gps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"halo.internal/hal/serial"
)

// Port is an open serial port: *serial.Port.
type Port interface {
	Read([]byte) (int, error)
	SetReadDeadline(time.Time) error
	SetRate(int) error
	Close() error
}

var _ Port = (*serial.Port)(nil)

// Rates are those at which receivers speak, in bit/s, the usual ones first.
var Rates = []int{9600, 115200, 38400, 4800, 57600, 19200, 230400, 460800, 921600}

// Config is what a receiver is looked for with.
type Config struct {
	Root string // of the system's /sys and /dev
	// Ports are device files at which a receiver may be, besides those on USB. Where Only is
	// set, nowhere else.
	Ports []string
	Only  bool
	Rate  int // bit/s; 0: found by listening

	Earliest, Latest time.Time // dates outside of that are not believed

	// Changed has a token when ports may have come or gone. It may be nil.
	Changed <-chan struct{}
	Listener

	// Find and Open are those of hal/serial unless they are set.
	Find func() ([]serial.Info, error)
	Open func(name string, rate int) (Port, error)
}

// How a receiver is looked for, and when it is given up.
const (
	listenFor   = 2500 * time.Millisecond // at one rate: receivers speak each second
	enough      = 2                       // valid sentences, by which a rate is the right one
	tooMuch     = 1024                    // octets without one, by which it is not
	lookEvery   = 10 * time.Second        // at the latest, where nothing tells of changes
	pauseFirst  = 30 * time.Second        // between two searches of a port that says nothing
	pauseMost   = 10 * time.Minute
	staleAfter  = 10 * time.Second // without a valid sentence, a fix is over
	searchAfter = 20 * time.Second // and the rate is looked for again
	gap         = 60 * time.Millisecond
	chunk       = 1024
)

// State is what can be asked of a receiver.
type State struct {
	Device   Device // its Path is empty while there is none
	Fix      Fix    // the last one; its Mode is 0 before the first
	Sky      Sky
	Reason   Reason // why Fix has no position or time, although the receiver said one
	Stale    bool   // nothing has come for ten seconds
	Told     Told   // the last time that was believed; zero: none
	PPS      string // device of the pulses that are used; empty: none
	Lines    LineStats
	Bad      uint64 // sentences with a right checksum and wrong contents
	Dropped  map[Reason]uint64
	Why      string // in words, what was dropped last
	WhyAt    time.Time
	Trouble  string   // why there is no receiver
	Searched []string // ports at which nobody spoke NMEA
}

// Receiver looks for a receiver and follows it.
type Receiver struct {
	Config
	pauses map[string]*pause // by name and place of a port
	known  map[string]int    // the rate at which a place spoke last

	staleAfter, searchAfter time.Duration

	mu    sync.Mutex // guards state
	state State
}

type pause struct {
	until time.Time
	last  time.Duration
}

// New returns a receiver that is not looked for yet.
func New(c Config) *Receiver {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Find == nil {
		c.Find = func() ([]serial.Info, error) { return serial.Find(c.Root) }
	}
	if c.Open == nil {
		c.Open = func(name string, rate int) (Port, error) { return serial.Open(name, rate) }
	}
	return &Receiver{Config: c, pauses: map[string]*pause{}, known: map[string]int{}, staleAfter: staleAfter, searchAfter: searchAfter, state: State{Dropped: map[Reason]uint64{}}}
}

// State returns what is known now. Its maps are the caller's.
func (r *Receiver) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Dropped = maps.Clone(s.Dropped)
	return s
}

func (r *Receiver) set(f func(*State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.state)
}

// Run looks for a receiver, follows it, and looks again, until ctx ends.
func (r *Receiver) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := r.round(ctx)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-r.Changed:
			// The kernel tells of a device before its file is there, and of each of its parts.
			t.Reset(200 * time.Millisecond)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		case <-t.C:
		}
		t.Stop()
	}
}

// round tries each port that may be tried, and returns when to do so again.
func (r *Receiver) round(ctx context.Context) time.Duration {
	list, err := r.candidates()
	if err != nil {
		r.set(func(s *State) { s.Trouble = err.Error() })
		return lookEvery
	}
	there := map[string]bool{}
	for _, p := range list {
		there[key(p)] = true
	}
	maps.DeleteFunc(r.pauses, func(k string, _ *pause) bool { return !there[k] }) // whoever comes back is new
	wait := lookEvery
	var silent []string
	for _, p := range list {
		if ctx.Err() != nil {
			return 0
		}
		w := r.pauses[key(p)]
		if w != nil && time.Now().Before(w.until) {
			silent = append(silent, p.Path)
			wait = min(wait, time.Until(w.until))
			continue
		}
		spoke, err := r.try(ctx, p)
		if ctx.Err() != nil {
			return 0
		}
		if spoke {
			delete(r.pauses, key(p))
			r.set(func(s *State) { s.Trouble = fmt.Sprintf("%s: %v", p.Path, err) })
			return 0 // what was learnt of the ports is old by now
		}
		if w == nil {
			w = &pause{}
			r.pauses[key(p)] = w
		}
		w.last = min(max(2*w.last, pauseFirst), pauseMost)
		w.until = time.Now().Add(w.last)
		silent = append(silent, p.Path)
		r.set(func(s *State) { s.Trouble = fmt.Sprintf("%s: %v", p.Path, err) })
	}
	r.set(func(s *State) {
		s.Searched = silent
		if len(list) == 0 {
			s.Trouble = "no serial port at which a receiver may be"
		}
	})
	return max(wait, 50*time.Millisecond)
}

func key(p serial.Info) string { return p.Name + " " + p.Place }

// candidates are the ports to try, the ones at which a receiver spoke first.
func (r *Receiver) candidates() ([]serial.Info, error) {
	all, err := r.Find()
	if err != nil {
		return nil, err
	}
	var list []serial.Info
	for _, p := range all {
		named := slices.Contains(r.Ports, p.Path) || slices.Contains(r.Ports, p.Name)
		if !p.Console && (named || !r.Only && p.Kind == serial.USB) {
			list = append(list, p)
		}
	}
	for _, name := range r.Ports { // what /sys does not call a port, such as a pseudo terminal
		if !slices.ContainsFunc(all, func(p serial.Info) bool { return p.Path == name || p.Name == name }) {
			if _, err := os.Stat(name); err == nil {
				list = append(list, serial.Info{Name: name, Path: name, Kind: serial.UART, Place: name})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b serial.Info) int { return cmp.Compare(r.liking(b), r.liking(a)) })
	return list, nil
}

// liking is how likely a receiver is at a port.
func (r *Receiver) liking(p serial.Info) int {
	switch {
	case r.known[p.Place] != 0:
		return 3
	case slices.Contains(r.Ports, p.Path) || slices.Contains(r.Ports, p.Name):
		return 2
	case p.Vendor == "1546": // u-blox
		return 1
	}
	return 0
}

// errSilent: nobody speaks NMEA at a port.
var errSilent = errors.New("nobody speaks NMEA there")

// try looks for a receiver at a port and follows it until it is gone. spoke is false when
// there was none.
func (r *Receiver) try(ctx context.Context, p serial.Info) (spoke bool, err error) {
	rates := Rates
	if known := r.known[p.Place]; known != 0 {
		rates = append([]int{known}, Rates...)
	}
	if r.Rate != 0 {
		rates = []int{r.Rate}
	}
	port, err := r.Open(p.Path, rates[0])
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = port.SetReadDeadline(time.Unix(1, 0)) }) // fails on a closed port only
	defer stop()
	defer port.Close() // nothing that was written could be lost
	for i, rate := range rates {
		if i > 0 {
			if err := port.SetRate(rate); err != nil {
				continue // a driver that can't
			}
		}
		begun, err := listen(ctx, port)
		if errors.Is(err, errSilent) {
			continue
		}
		if err != nil {
			return false, err
		}
		r.known[p.Place] = rate
		f := follower{Receiver: r, port: port, device: Device{Path: p.Path, Place: p.Place, Model: p.Model, Rate: rate}}
		return true, f.run(ctx, begun)
	}
	return false, errSilent
}

// listen tells whether sentences come. It returns what has come, whole reads.
func listen(ctx context.Context, port Port) ([]byte, error) {
	var all []byte
	var l Lines
	b := make([]byte, chunk)
	until := time.Now().Add(listenFor)
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := port.SetReadDeadline(until); err != nil {
			return nil, err
		}
		n, err := port.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.Join(ctx.Err(), errSilent)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b[:n]...)
		l.Feed(b[:n], func(string) {})
		if l.Sentences >= enough {
			return all, nil
		}
		if len(all) > tooMuch && l.Sentences == 0 || len(all) > 16*tooMuch {
			return nil, errSilent
		}
	}
}

// follower follows one receiver.
type follower struct {
	*Receiver
	port   Port
	device Device

	lines Lines
	dec   *Decoder
	judge *Judge
	keep  *Timekeeper
	pps   *pps
	heard time.Time // when a valid sentence came last
	stale bool
}

func (f *follower) run(ctx context.Context, begun []byte) (err error) {
	f.dec, f.judge, f.keep = NewDecoder(), NewJudge(f.Earliest, f.Latest), NewTimekeeper()
	f.heard = time.Now()
	if f.pps = openPPS(f.Root); f.pps != nil {
		defer func() { _ = f.pps.close() }() // it was only read
	}
	f.set(func(s *State) {
		// What was counted before is of another receiver.
		*s = State{Device: f.device, Dropped: map[Reason]uint64{}}
	})
	f.Found(f.device)
	defer func() {
		f.set(func(s *State) { *s = State{Dropped: s.Dropped, Why: s.Why, WhyAt: s.WhyAt} })
		f.Gone(f.device, err)
	}()
	f.feed(begun, f.heard)
	b := make([]byte, chunk)
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := time.Second
		if f.dec.dirty {
			wait = gap // what ends a cycle is that nothing more comes
		}
		if err := f.port.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		n, err := f.port.Read(b)
		now := time.Now()
		switch {
		case err == nil:
			f.feed(b[:n], now)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		default:
			if fix, sky, ok := f.dec.Flush(); ok {
				f.tell(fix, sky, now)
			}
		}
		switch silent := now.Sub(f.heard); {
		case silent > f.searchAfter:
			return fmt.Errorf("no sentence has come for %s", f.searchAfter)
		case silent > f.staleAfter && !f.stale:
			f.stale = true
			f.judge.Stale(f.staleAfter, now)
			none := blank()
			none.At = now
			f.note(none, Sky{At: now}, ReasonStale, Told{})
			f.Listener.Fix(none, Sky{At: now}, ReasonStale)
		}
	}
}

// feed takes octets that came at that time.
func (f *follower) feed(b []byte, at time.Time) {
	f.lines.Feed(b, func(line string) {
		f.heard, f.stale = at, false
		f.Sentence(line)
		fix, sky, ended, err := f.dec.Sentence(line, at)
		if err == nil && ended {
			f.tell(fix, sky, at)
		}
	})
}

// tell judges what a cycle came to, and tells of it.
func (f *follower) tell(fix Fix, sky Sky, now time.Time) {
	fix, reason := f.judge.Judge(fix, now)
	told, ok, pulse := f.tick(fix, now)
	f.note(fix, sky, reason, told)
	f.Listener.Fix(fix, sky, reason)
	if ok && pulse.Device != "" {
		f.Listener.Pulse(pulse)
	}
}

// tick has the timekeeper hear of a fix, and of the last pulse before it.
func (f *follower) tick(fix Fix, now time.Time) (told Told, ok bool, p Pulse) {
	if f.pps == nil || fix.Time.IsZero() || fix.Time.Nanosecond() != 0 {
		told, ok = f.keep.Fix(fix)
		return told, ok, p
	}
	seq, clock, err := f.pps.fetch()
	age := time.Since(clock) // by the system clock, which may have been set since
	if err == nil && seq != 0 && age >= 0 && age < 2*time.Second {
		f.keep.Pulse(seq, now.Add(-age))
	}
	told, ok = f.keep.Fix(fix)
	if told.Pulse {
		p = Pulse{Device: f.pps.name, Clock: clock, Real: told.Time}
	}
	return told, ok, p
}

func (f *follower) note(fix Fix, sky Sky, reason Reason, told Told) {
	f.set(func(s *State) {
		s.Fix, s.Sky, s.Reason, s.Stale = fix, sky, reason, f.stale
		if !told.Time.IsZero() {
			s.Told = told
		}
		s.PPS = ""
		if s.Told.Pulse && f.pps != nil {
			s.PPS = f.pps.name
		}
		s.Lines, s.Bad = f.lines.LineStats, f.dec.Malformed
		s.Dropped, s.Why, s.WhyAt = maps.Clone(f.judge.dropped), f.judge.why, f.judge.whyAt
	})
}
