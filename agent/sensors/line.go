package sensors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/drivers/i2c"
	"halo.internal/hal/i2cbus"
	"halo.internal/model"
)

// line is one bus that is looked after. Its goroutine alone changes what places there are
// and what they are.
type line struct {
	Bus
	m      *Manager
	cancel context.CancelFunc
	due    chan struct{} // a token: chips are to be looked for
	doubt  chan struct{} // a token: a chip could not be read
	asks   chan ask
	wire   Wire // nil: not open
	ended  chan struct{}
	back   chan struct{} // closed once the last recovery has come back; nil: there was none

	// The manager's lock guards what follows.
	flaps   *flaps // outlives the line
	ending  bool
	mending bool // it is recovered: it may be away meanwhile
	fresh   Bus  // as it was listed last, perhaps with another number in the kernel
	problem string
	places  map[uint16]*place
}

// ask is something that the bus's goroutine is to do for somebody.
type ask struct {
	ctx  context.Context
	do   func(context.Context) error
	done chan error // has room for one
}

func newLine(m *Manager, b Bus, f *flaps) *line {
	return &line{Bus: b, fresh: b, m: m, flaps: f, due: make(chan struct{}, 1), doubt: make(chan struct{}, 1), asks: make(chan ask), ended: make(chan struct{}), places: map[uint16]*place{}}
}

func (l *line) poke() { token(l.due) }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one waits already
	}
}

func (l *line) run(ctx context.Context) {
	defer l.end()
	var later <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.due:
			l.scan(ctx)
		case <-l.doubt:
			if later == nil {
				later = time.After(suspectAfter)
			}
		case <-later:
			later = nil
			if l.judge(ctx) {
				token(l.doubt)
			}
		case a := <-l.asks:
			if a.ctx.Err() == nil {
				a.done <- a.do(a.ctx)
			}
		}
	}
}

// end lets go of a bus that is gone, or of all when the process ends.
func (l *line) end() {
	var gone []*place
	l.m.mu.Lock()
	for _, p := range l.places {
		if p.reader != nil {
			gone = append(gone, p)
		}
	}
	away := l.ending
	l.m.mu.Unlock()
	why := "" // the process ends, and the bus is there
	if away {
		why = "its bus is gone"
	}
	for _, p := range gone {
		p.calm(why)
		p.rest()
	}
	l.close()
	if away {
		l.moved("", model.Info, "") // its chips tell
	}
	l.m.mu.Lock()
	delete(l.m.buses, l.Path)
	l.m.mu.Unlock()
	close(l.ended)
	if !away {
		return
	}
	for _, p := range gone {
		p.tell(EventGone, model.Warning, "a chip is gone with its bus", p.title(), nil)
	}
	l.m.changed()
}

func (l *line) close() {
	if l.wire != nil {
		_ = l.wire.Close() // nothing is written to it that is not over
		l.wire = nil
	}
}

// ask has the bus's goroutine do something, and waits for it. The goroutine may be in the
// middle of a look: a bus on which nothing moves is looked at for probeLimit at most.
func (l *line) ask(ctx context.Context, do func(context.Context) error) error {
	a := ask{ctx, do, make(chan error, 1)}
	select {
	case l.asks <- a:
	case <-l.ended:
		return refuse("bus %s is gone", l.Path)
	case <-ctx.Done():
		return fmt.Errorf("bus %s: %w", l.Path, ctx.Err())
	}
	select {
	case err := <-a.done:
		return err
	case <-l.ended:
		return refuse("bus %s is gone", l.Path)
	case <-ctx.Done():
		return fmt.Errorf("bus %s: %w", l.Path, ctx.Err())
	}
}

// errHangs is of a bus that the kernel keeps: only a restart of the device frees it.
var errHangs = errors.New("the kernel has not come back from having the bus's driver begin anew: if that lasts, restart the device")

// open opens the bus, unless it is.
func (l *line) open() error {
	if l.wire != nil {
		return nil
	}
	if l.hangs() {
		return errHangs
	}
	w, err := l.Open()
	if err != nil {
		return err
	}
	l.wire = w
	return nil
}

// scan looks for chips where nobody is read.
func (l *line) scan(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	l.m.mu.Lock()
	l.Name, l.InUse, l.Open, l.Recover = l.fresh.Name, l.fresh.InUse, l.fresh.Open, l.fresh.Recover
	l.m.mu.Unlock()
	if err := l.open(); err != nil {
		l.trouble(ctx, err)
		return
	}
	l.renew(ctx)
	used, drivers := l.used(), l.knows()
	present, err := l.wire.Present(limited, used)
	if err == nil {
		err = limited.Err()
	}
	if err != nil {
		if ctx.Err() == nil {
			l.trouble(ctx, err)
		}
		return
	}
	if present == nil {
		present = []uint16{} // and not: not known
	}
	found, err := i2c.Probe(limited, l.wire, i2c.Survey{Drivers: drivers, InUse: used, Present: present})
	if err != nil {
		if ctx.Err() == nil {
			l.trouble(ctx, err)
		}
		return
	}
	l.fine()
	if !l.steady() {
		return
	}
	at := map[uint16]bool{}
	for _, f := range found {
		at[f.Addr] = true
		l.settle(ctx, f, true)
	}
	for _, e := range l.m.memory.assigned(l.Path) { // some answer to nothing but what is for them
		if !at[e.Address] {
			l.settle(ctx, i2c.Found{Addr: e.Address}, false)
			at[e.Address] = true
		}
	}
	l.m.mu.Lock()
	var missing []*place
	for addr, p := range l.places {
		if !at[addr] && p.reader == nil {
			missing = append(missing, p)
		}
	}
	l.m.mu.Unlock()
	for _, p := range missing {
		p.absent()
	}
}

// knows are the drivers of chips to look for.
func (l *line) knows() []i2c.Driver {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.drivers
}

// used are the addresses to which nothing is sent.
func (l *line) used() []uint16 {
	var used []uint16
	if l.InUse != nil {
		used = l.InUse()
	}
	for _, e := range l.m.memory.assigned(l.Path) {
		if e.Chip == model.ChipNone {
			used = append(used, e.Address)
		}
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	for addr, p := range l.places {
		if p.reader != nil || p.busy() {
			used = append(used, addr)
		}
	}
	return used
}

// renew lets go of chips whose template is another one now.
func (l *line) renew(ctx context.Context) {
	l.m.mu.Lock()
	var old []*place
	for _, p := range l.places {
		if p.reader != nil && l.m.driver(p.drv.Spec().Name) != p.drv {
			old = append(old, p)
		}
	}
	l.m.mu.Unlock()
	for _, p := range old {
		p.calm("its chip's template is another one")
		p.rest()
		p.quiet(ctx)
	}
}

// trouble notes that the bus as a whole does not work, and tries to mend it.
func (l *line) trouble(ctx context.Context, err error) {
	l.m.mu.Lock()
	news := l.problem == ""
	l.problem = err.Error()
	l.m.mu.Unlock()
	if news {
		l.moved(EventStuck, model.Warning, "an I2C bus does not work: "+err.Error())
		l.m.changed()
	}
	// Its chips are opened again on the bus that there is then.
	l.m.mu.Lock()
	var read []*place
	for _, p := range l.places {
		if p.reader != nil {
			read = append(read, p)
		}
	}
	l.m.mu.Unlock()
	for _, p := range read {
		p.bench(err.Error())
	}
	l.close()
	stuck := errors.Is(err, i2c.ErrStuck) || errors.Is(err, i2cbus.Stuck) || errors.Is(err, i2cbus.Timeout) || errors.Is(err, context.DeadlineExceeded)
	if !stuck || l.Recover == nil || l.hangs() {
		return
	}
	err = l.mended(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && news:
		l.m.Rescan() // it may have another number now
	case err != nil && news:
		l.m.Log.Warn("an I2C bus stays stuck", "bus", l.Path, "err", err)
	}
}

// recoverLimit is how long a recovery is waited for: it takes some clocks, and a driver's
// end and beginning.
const recoverLimit = 20 * time.Second

// mended recovers the bus, apart: a driver whose transaction never ends keeps whoever takes
// its bus away for ever, and would keep the end of the process, too.
func (l *line) mended(ctx context.Context) error {
	l.mend(true)
	recovery, back := l.Recover, make(chan struct{})
	l.back = back
	var err error
	go func() {
		defer close(back)
		defer l.mend(false)
		err = recovery(ctx)
	}()
	limit := time.NewTimer(recoverLimit)
	defer limit.Stop()
	select {
	case <-back:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return errHangs
	}
}

// hangs tells whether the last recovery has not come back.
func (l *line) hangs() bool {
	if l.back == nil {
		return false
	}
	select {
	case <-l.back:
		return false
	default:
		return true
	}
}

func (l *line) mend(on bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.mending = on
}

// moved tells that the bus stopped to work or works again, unless it does so all the time.
// Where there is no kind, nothing is told of it but that.
func (l *line) moved(kind string, s model.Severity, text string) {
	l.m.mu.Lock()
	tell, first := l.flaps.moved(time.Now())
	l.m.mu.Unlock()
	l.m.busMoved(l.Path, first)
	if tell && kind != "" {
		l.m.Event(kind, s, text, map[string]string{"bus": l.Path})
	}
}

// busMoved tells that a bus has begun to come and go, if it has.
func (m *Manager) busMoved(path string, begun bool) {
	if begun {
		m.Event(EventBusFlapping, model.Warning, "an I2C bus comes and goes, or stops and works again: a plug may be loose. It and its chips are not told of any more until that ends", map[string]string{"bus": path})
	}
}

// hushed tells whether the bus comes and goes, so that nobody is told.
func (l *line) hushed() bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.flaps.Hushed()
}

// steady notes that the bus works at this look, and tells whether its chips are to be read:
// those of one that comes and goes once it worked at some looks in a row.
func (l *line) steady() bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.flaps.steady++
	return !l.flaps.Hushed() || l.flaps.steady >= steadyLooks
}

// answers tells whether something answers at an address, to which nothing is sent.
func (l *line) answers(ctx context.Context, addr uint16) bool {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	there, err := l.wire.Present(limited, only(addr))
	if err != nil {
		l.poke() // that is the bus's: the next look deals with it
		return false
	}
	return slices.Contains(there, addr)
}

const answerLimit = 3 * time.Second

// fine notes that the bus works.
func (l *line) fine() {
	l.m.mu.Lock()
	was := l.problem
	l.problem = ""
	l.m.mu.Unlock()
	if was != "" {
		l.moved(EventFree, model.Info, "an I2C bus works again")
		l.m.changed()
	}
}

// place returns the place of an address.
func (l *line) place(addr uint16) *place {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	p := l.places[addr]
	if p == nil {
		p = &place{line: l, addr: addr}
		l.places[addr] = p
	}
	return p
}

// settle decides what is at an address. answers says that something does; of what does not,
// only those that a person has assigned are tried.
func (l *line) settle(ctx context.Context, f i2c.Found, answers bool) {
	e, known := l.m.memory.of(l.Path, f.Addr)
	p := l.place(f.Addr)
	switch {
	case p.reader != nil: // it is read: what is assigned is settled at each look
		return
	case p.busy():
		if p.state != model.SensorGone {
			p.set(model.SensorFailed, "what was read there last hangs still", nil)
		}
	case known && e.Assigned && e.Chip == model.ChipNone:
		l.m.mu.Lock()
		p.assigned = true
		l.m.mu.Unlock()
		p.set(model.SensorIgnored, "", nil)
	case known && e.Assigned:
		l.m.mu.Lock()
		drv := l.m.driver(e.Chip)
		l.m.mu.Unlock()
		if drv == nil {
			p.fail(fmt.Errorf("expected a template of the name %s, and there is none", e.Chip))
			return
		}
		p.admit(ctx, drv, e, f.Chip, answers)
	case f.Chip != nil:
		p.admit(ctx, f.Chip, entry{Bus: l.Path, Address: f.Addr, Chip: f.Chip.Spec().Name}, f.Chip, answers)
	default:
		var names []string
		for _, c := range f.Candidates {
			names = append(names, c.Spec().Name)
		}
		p.offer(names[:min(len(names), 16)])
	}
}

// judge looks at chips that could not be read; it is to be called again where it returns
// true.
func (l *line) judge(ctx context.Context) (again bool) {
	l.m.mu.Lock()
	var list []*place
	for _, p := range l.places {
		if p.reader != nil && p.fails > 0 {
			list = append(list, p)
		}
	}
	l.m.mu.Unlock()
	for _, p := range list {
		if p.doubted(ctx) {
			again = true
		}
	}
	return again
}

// only is all addresses but one.
func only(addr uint16) []uint16 {
	var others []uint16
	for a := uint16(0); a <= 0x7f; a++ {
		if a != addr {
			others = append(others, a)
		}
	}
	return others
}

// names joins names for people.
func names(list []string) string {
	if len(list) == 0 {
		return "nothing that is known"
	}
	return strings.Join(list, ", ")
}
