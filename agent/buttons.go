package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"halo.internal/agent/reset"
	"halo.internal/drivers/board"
	"halo.internal/hal/card"
	"halo.internal/hal/gpio"
	"halo.internal/hal/led"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// request is the request for the factory reset on the card.
type request struct {
	open func() (disk, error)
	note func(by string) // that it was withdrawn
	mu   sync.Mutex      // one writes at a time
}

var _ reset.Request = (*request)(nil)

// disk is a disk that is open.
type disk interface {
	card.Device
	io.Closer
}

// newRequest returns nil where there is no card to write a request on.
func (a *agent) newRequest() *request {
	if a.Root != "" {
		return nil // a test
	}
	return &request{note: a.noteWithdrawn, open: func() (disk, error) {
		b, err := os.ReadFile(paths.BootReport)
		if err != nil {
			return nil, err
		}
		var r model.BootReport
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, err
		}
		return card.OpenRoot(r.Disk)
	}}
}

func (a *agent) noteWithdrawn(by string) {
	a.Log.Warn("the factory reset is withdrawn: no start has begun with it", "by", by)
	a.note("agent.reset.withdrawn", model.Warning, "no factory reset: no start has begun with it", map[string]string{"by": by})
}

func (r *request) with(do func(card.Reset) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, err := r.open()
	if err != nil {
		return err
	}
	return errors.Join(do(card.NewReset(d)), d.Close())
}

// Ask implements reset.Request.
func (r *request) Ask(by string) error { return r.with(func(c card.Reset) error { return c.Ask(by) }) }

// Withdraw implements reset.Request.
func (r *request) Withdraw() (by string, err error) {
	err = r.with(func(c card.Reset) (err error) {
		by, err = c.Withdraw()
		return err
	})
	if err == nil && by != "" {
		r.note(by)
	}
	return by, err
}

// withdrawOld withdraws a request that a process before has made, whose start did not
// come about: it would be another one's some day.
func (a *agent) withdrawOld() {
	if a.reset == nil {
		return
	}
	if _, err := a.reset.Withdraw(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("whether a factory reset is asked for is not known", "err", err)
	}
}

// buttonAgain is how long after a failure a button's line is tried again: its chip may be
// on USB.
const buttonAgain = time.Minute

// watchButtons watches the buttons that the board had at the start.
func (a *agent) watchButtons(ctx context.Context) {
	if a.reset == nil {
		return
	}
	b := a.hardware.board()
	var all sync.WaitGroup
	defer all.Wait()
	for _, v := range b.Buttons {
		if v.Does == board.FactoryReset {
			all.Go(func() { a.watchButton(ctx, b.Line(v.Line), v) })
		}
	}
}

func (a *agent) watchButton(ctx context.Context, line string, v model.BoardButton) {
	hold := time.Duration(v.HoldS * float64(time.Second))
	if hold == 0 {
		hold = board.HoldS * time.Second
	}
	last := ""
	for ctx.Err() == nil {
		err := a.pressed(ctx, line, v, hold)
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			a.Log.Warn("a button is not watched", "button", v.Name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(buttonAgain):
		}
	}
}

// pressed watches a button until its line fails.
func (a *agent) pressed(ctx context.Context, line string, v model.BoardButton, hold time.Duration) error {
	bias := map[string]gpio.Bias{"pull-up": gpio.PullUp, "pull-down": gpio.PullDown, "none": gpio.NoBias}[v.Bias]
	if v.Bias == "" {
		if bias = gpio.PullUp; v.High {
			bias = gpio.PullDown
		}
	}
	in, err := gpio.OpenInput(line, gpio.InputOptions{Bias: bias, Edges: true, Debounce: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	defer in.Close()
	return reset.Button{
		Name: v.Name, Pin: in, ActiveHigh: v.High, Hold: hold, Lamps: a.countdown, Log: a.Log,
		Reset: func(by string) error {
			return a.startOver(ctx, by, a.reset, local.NewSupervisor(a.path(paths.GokrazySocket)).Reboot)
		},
		Stuck: func() {
			a.note("agent.button.stuck", model.Warning, "the reset button is held for good: nothing is reset", map[string]string{"button": v.Name})
		},
	}.Run(ctx)
}

// tellWait bounds how long the gateway is told of what nobody is left to tell afterwards.
const tellWait = 10 * time.Second

// startOver has the next start, which follows at once, be the factory reset. The gateway
// hears of it before, where it is within reach.
func (a *agent) startOver(ctx context.Context, by string, r reset.Request, reboot func(context.Context) error) error {
	if err := r.Ask(by); err != nil {
		return err
	}
	a.Log.Warn("factory reset at the next start, which is now", "by", by)
	a.note("agent.reset", model.Warning, "factory reset: the device forgets its identity, its network and all that it has stored", map[string]string{"by": by})
	limit, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	every(limit, tellWait/100, a.news.toldAll)
	return reset.Restart(ctx, r, reboot)
}

// countdown shows by the lamps how long the button is held, and what they showed before
// when ctx ends.
func (a *agent) countdown(ctx context.Context, hold time.Duration) {
	defer a.lamps.Take()()
	class := filepath.Join(a.Root, led.Class)
	leds, err := led.Find(class)
	if err != nil {
		return // a board without lamps
	}
	before, err := led.States(leds)
	if err != nil {
		a.Log.Warn("the lamps do not count down", "err", err)
		return
	}
	began := time.Now()
	err = led.BlinkBy(ctx, leds, func(int) time.Duration { return reset.Rhythm(time.Since(began), hold) })
	if err := errors.Join(err, led.Restore(class, before)); err != nil {
		a.Log.Warn("the lamps", "err", err)
	}
}
