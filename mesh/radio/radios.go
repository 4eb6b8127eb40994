package radio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/apart"
	"halo.internal/model"
	"halo.internal/model/order"
)

// More kinds of events.
const (
	EventFound  = "mesh.radio.found"  // field radio
	EventGone   = "mesh.radio.gone"   // field radio
	EventUnfit  = "mesh.radio.unfit"  // fields radio, reason: its driver lacks something, for good
	EventFailed = "mesh.radio.failed" // fields radio, iface, reason
	// EventRefused: it may not be a member as the mesh is set; fields radio, reason.
	EventRefused = "mesh.radio.refused"
	// EventHangs: a call into the kernel does not come back; fields radio, iface.
	EventHangs = "mesh.radio.hangs"
)

// Times after which the kernel counts as one that does not come back.
const (
	memberHangs = 10 * time.Second // a member looks at its stations every 2 s
	joinHangs   = time.Minute      // to join takes seconds, of HaLow's firmware too
	useHangs    = 5 * time.Second  // whose a radio is, the kernel says at once
	askUseAgain = 30 * time.Second // where it did not say
)

// Carrier carries the mesh over an interface, as batman.Mesh does.
type Carrier interface{ Enslave(iface string) error }

// RadiosConfig says what all radios of the device are to be members of.
type RadiosConfig struct {
	// Member is what each is to be; Wiphy and Iface are set for each.
	Member  Config
	Carrier Carrier
	// Use says why the mesh may not have a radio, or nothing; nil gives it all. It is
	// asked again when interfaces of any radio went away.
	Use func(nl80211.Wiphy) error
	// Fit makes of Member what this radio is to be, and says why it may not be one,
	// or nothing; nil leaves Member as it is. It is asked before each attempt, from
	// several goroutines. An error that wraps unix.ENODEV says that the radio is gone.
	Fit func(nl80211.Wiphy, *Config) error
	// Retry is the wait after a first failure; it doubles up to thirty times that.
	// Zero is one second.
	Retry time.Duration
	// Left is what hangs in the kernel from Radios before these; nil: there were none.
	Left *Left
}

// Radios makes every radio of the device a member of the mesh, whenever it is
// plugged in. Its methods may be called from any goroutine.
type Radios struct {
	c   RadiosConfig
	sys machine

	mu   sync.Mutex // guards what follows
	held map[int]*held
	left []State // radios that the mesh may not have
}

// held is a radio of the device.
type held struct {
	name  string // of the wiphy
	wiphy nl80211.Wiphy
	iface string
	radio *Radio // of the present attempt
	state string // why it is no member; empty when it is
	spare bool   // it may not be one: refused by Fit, or unfit
	fails int
	began time.Time // the present attempt; zero: between two
	stop  context.CancelFunc
	again context.CancelFunc // ends the present attempt
}

// State is what is known of one radio.
type State struct {
	Wiphy  int
	Name   string // of the kernel's, e.g. phy0
	Iface  string // empty for one that the mesh may not have
	Detail string // why it is no member of the mesh; empty when it is
	// Failures counts attempts in a row in which it did not become a member, or did
	// not stay one. Refusals by Fit or for good are none.
	Failures int
	Refused  bool // by Fit, or for good
	// Hangs is for how long the kernel has not come back from what it was asked for this
	// radio; 0: it does.
	Hangs   time.Duration
	Peers   []Peer
	Dropped Dropped // since it joined
	View    View
}

// NewRadios returns the radios of the device; Run makes them work.
func NewRadios(c RadiosConfig) *Radios {
	if c.Retry == 0 {
		c.Retry = time.Second
	}
	if c.Left == nil {
		c.Left = &Left{}
	}
	return &Radios{c: c, sys: linux(), held: map[int]*held{}}
}

// List returns the state of all radios, by name.
func (rs *Radios) List() []State {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	list := slices.Clone(rs.left)
	for index, h := range rs.held {
		detail := h.state
		if rs.c.Left.of(index) != nil {
			detail = ErrHangs.Error()
		}
		list = append(list, State{Wiphy: index, Name: h.name, Iface: h.iface, Detail: detail, Failures: h.fails, Refused: h.spare, Hangs: rs.hangs(h), Peers: h.radio.Peers(), Dropped: h.radio.Dropped(), View: h.radio.View()})
	}
	order.By(list, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// hangs is for how long the kernel has not come back from what it was asked for a radio.
// rs.mu is held.
func (rs *Radios) hangs(h *held) time.Duration {
	if left := rs.c.Left.of(h.wiphy.Index); left != nil {
		return time.Since(left.since)
	}
	since, long := h.began, joinHangs
	switch at := h.radio.View().Looked; {
	case !at.IsZero():
		since, long = at, memberHangs
	case h.began.IsZero() || h.state == "": // between two attempts, or at the end of one
		return 0
	}
	if took := time.Since(since); took > long {
		return took
	}
	return 0
}

// Run follows the radios until ctx ends, which ends their membership. The error
// is that of the kernel's wireless interface, fs.ErrNotExist where it has none. What
// hangs in the kernel then is left behind: Run returns within seconds.
func (rs *Radios) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	ended := make(chan error, 1)
	if !apart.Run(ctx, func() { ended <- rs.follow(ctx, &owned) }) {
		return fmt.Errorf("radios are not followed any more: %w", ErrHangs)
	}
	return <-ended
}

// follow has owned wait for what keeps the radios.
func (rs *Radios) follow(ctx context.Context, owned *sync.WaitGroup) (err error) {
	conn, err := rs.sys.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	events, err := rs.sys.listen(0, nl80211.GroupConfig)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	for ctx.Err() == nil {
		all, err := conn.Wiphys()
		if err != nil {
			return err
		}
		again, done := context.WithCancel(ctx)
		if !rs.reconcile(ctx, owned, all) {
			time.AfterFunc(askUseAgain, done)
		}
		err = awaitChange(again, events)
		asked := again.Err() != nil
		done()
		if err != nil && !asked {
			return err
		}
	}
	return nil
}

// awaitChange returns when radios have come or gone, or may have become free.
func awaitChange(ctx context.Context, events listener) error {
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		switch e.(type) {
		case nl80211.WiphyAdded, nl80211.WiphyRemoved, nl80211.InterfaceRemoved, nl80211.Overflow:
			return nil
		}
	}
}

// reconcile starts what is new and stops what is gone. It is false where the kernel has
// not said of all radios whether they are free. The kernel is asked without the lock:
// it may hang.
func (rs *Radios) reconcile(ctx context.Context, owned *sync.WaitGroup, all []nl80211.Wiphy) (whole bool) {
	fresh := rs.drop(all)
	var left []State
	whole = true
	for _, w := range fresh {
		err := rs.mayHave(ctx, w)
		if ctx.Err() != nil {
			return true // nobody waits any more
		}
		if err != nil {
			whole = whole && !errors.Is(err, ErrHangs)
			left = append(left, State{Wiphy: w.Index, Name: w.Name, Detail: err.Error()})
			continue
		}
		rs.hold(ctx, owned, w)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.left = left
	return whole
}

// drop stops those that are gone, and returns those that are not held.
func (rs *Radios) drop(all []nl80211.Wiphy) (fresh []nl80211.Wiphy) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for index, h := range rs.held {
		if !slices.ContainsFunc(all, func(w nl80211.Wiphy) bool { return w.Index == index }) {
			h.stop()
			delete(rs.held, index)
			rs.notify(EventGone, model.Warning, "radio "+h.name+" is gone", "radio", h.name)
		}
	}
	for _, w := range all {
		if rs.held[w.Index] == nil {
			fresh = append(fresh, w)
		}
	}
	return fresh
}

// mayHave says why the mesh may not have a radio, or nothing. One by which a member
// hangs is the mesh's.
func (rs *Radios) mayHave(ctx context.Context, w nl80211.Wiphy) error {
	left := rs.c.Left.of(w.Index)
	if rs.c.Use == nil || left != nil && left.iface != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, useHangs)
	defer cancel()
	said := make(chan error, 1)
	if !rs.c.Left.run(ctx, w.Index, w.Name, "", func() {}, func() { said <- rs.c.Use(w) }) {
		return fmt.Errorf("whether it is in use, the kernel does not say: %w", ErrHangs)
	}
	return <-said
}

// hold makes a radio a member from now on.
func (rs *Radios) hold(ctx context.Context, owned *sync.WaitGroup, w nl80211.Wiphy) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	inner, stop := context.WithCancel(ctx)
	h := &held{name: w.Name, wiphy: w, iface: rs.freeName(), radio: New(rs.c.Member), state: "it has not joined the mesh yet", stop: stop, again: func() {}}
	rs.held[w.Index] = h
	rs.notify(EventFound, model.Info, "radio "+w.Name+" is there", "radio", w.Name)
	owned.Go(func() { rs.keep(inner, h) })
}

// freeName returns the first name that no radio has, nor what hangs.
func (rs *Radios) freeName() string {
	left := rs.c.Left.ifaces()
	for n := 0; ; n++ {
		name := fmt.Sprintf("mesh%d", n)
		taken := left[name]
		for _, h := range rs.held {
			taken = taken || h.iface == name
		}
		if !taken {
			return name
		}
	}
}

// Again has a radio leave the mesh and ask Fit anew.
func (rs *Radios) Again(wiphy int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if h := rs.held[wiphy]; h != nil {
		h.again()
	}
}

// Seek has a radio look for peers anew.
func (rs *Radios) Seek(wiphy int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if h := rs.held[wiphy]; h != nil {
		h.radio.Seek()
	}
}

// refusedError is an error of Fit.
type refusedError struct{ error }

// Unwrap returns it.
func (e *refusedError) Unwrap() error { return e.error }

// keep runs a radio again and again, ever more slowly while it fails, until it
// is gone.
func (rs *Radios) keep(ctx context.Context, h *held) {
	told := ""
	for wait := rs.c.Retry; ; wait = min(2*wait, 30*rs.c.Retry) {
		began := time.Now()
		inner, again := context.WithCancel(ctx)
		err := rs.attempt(inner, again, h)
		asked := inner.Err() != nil
		again()
		if ctx.Err() != nil {
			return
		}
		if asked && errors.Is(err, ErrHangs) {
			rs.set(h, ErrHangs.Error(), 0)
			continue
		}
		if time.Since(began) > 30*rs.c.Retry {
			wait, told = rs.c.Retry, "" // it had worked
			rs.worked(h)
		}
		if asked {
			rs.set(h, "it was told to join anew", 0)
			continue
		}
		pause := wait
		refused, isRefused := errors.AsType[*refusedError](err)
		unfit, lacks := errors.AsType[*nl80211.UnsupportedError](err)
		rs.spare(h, lacks || isRefused && !errors.Is(err, unix.ENODEV))
		switch {
		case errors.Is(err, unix.ENODEV):
			// It is being unplugged, which is told by itself. A kernel in the middle of
			// removing a radio takes a new interface, and is not sane afterwards.
			rs.set(h, err.Error(), 0)
			pause = max(wait, unplugging)
		case isRefused:
			rs.set(h, "refused: "+err.Error(), 0)
			if err.Error() != told {
				told = err.Error()
				rs.notify(EventRefused, model.Error, fmt.Sprintf("radio %s may not be a member of the mesh: %v", h.name, refused), "radio", h.name, "reason", told)
			}
		case lacks:
			rs.set(h, err.Error(), 0)
			rs.notify(EventUnfit, model.Error, fmt.Sprintf("radio %s cannot carry the mesh: %v", h.name, unfit), "radio", h.name, "reason", unfit.Error())
			return
		default:
			rs.set(h, err.Error(), 1)
			if err.Error() != told {
				told = err.Error()
				rs.notify(EventFailed, model.Error, fmt.Sprintf("radio %s failed, and is tried again: %v", h.name, err), "radio", h.name, "iface", h.iface, "reason", told)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// unplugging is for how long a radio whose interface is gone is left alone, if it is not
// gone itself.
const unplugging = 5 * time.Second

// attempt makes a radio a member for as long as it goes. One that hangs in the kernel
// when ctx ends is left behind, and the next waits for it: the error is ErrHangs.
func (rs *Radios) attempt(ctx context.Context, again context.CancelFunc, h *held) error {
	c := rs.c.Member
	c.Wiphy, c.Iface = h.wiphy.Index, h.iface
	r := New(c)
	r.sys = rs.sys
	rs.mu.Lock()
	h.again, h.radio, h.began = again, r, time.Now()
	rs.mu.Unlock()
	defer func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		h.began = time.Time{}
	}()
	abandon := func() {
		r.abandon()
		rs.notify(EventHangs, model.Error, fmt.Sprintf("radio %s hangs in the kernel, and is left to itself until it comes back", h.name), "radio", h.name, "iface", h.iface)
	}
	ended := make(chan error, 1)
	if !rs.c.Left.run(ctx, h.wiphy.Index, h.name, h.iface, abandon, func() { ended <- rs.join(ctx, r, h) }) {
		return ErrHangs
	}
	return <-ended
}

// join is one attempt, which may come back late.
func (rs *Radios) join(ctx context.Context, r *Radio, h *held) error {
	if rs.c.Fit != nil {
		c := r.c
		if err := rs.c.Fit(h.wiphy, &c); err != nil {
			return &refusedError{err}
		}
		r.c = c.withDefaults()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.Run(ctx, func() error {
		if err := rs.c.Carrier.Enslave(h.iface); err != nil {
			return err
		}
		if !r.isLeft() {
			rs.set(h, "", 0)
			rs.spare(h, false)
		}
		return nil
	})
}

// set says how a radio is, and counts failures.
func (rs *Radios) set(h *held, state string, failures int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	h.state = state
	h.fails += failures
}

// spare notes whether a radio may not be a member.
func (rs *Radios) spare(h *held, spare bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	h.spare = spare
}

// worked forgets failures.
func (rs *Radios) worked(h *held) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	h.fails = 0
}

func (rs *Radios) notify(kind string, s model.Severity, message string, fields ...string) {
	notify(rs.c.Member.Notify, kind, s, message, fields...)
}

func notify(to func(model.Event), kind string, s model.Severity, message string, fields ...string) {
	if to == nil {
		return
	}
	f := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		f[fields[i]] = fields[i+1]
	}
	to(model.Event{Kind: kind, Severity: s, Message: message, Fields: f})
}
