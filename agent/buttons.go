package agent

import (
	"context"
	"encoding/json"
	"errors"
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

// forget returns what asks for the factory reset at the next start; nil where there is
// no card to write that on.
func (a *agent) forget() func(by string) error {
	if a.Root != "" {
		return nil // a test
	}
	return func(by string) error {
		b, err := os.ReadFile(paths.BootReport)
		if err != nil {
			return err
		}
		var r model.BootReport
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		disk, err := card.OpenRoot(r.Disk)
		if err != nil {
			return err
		}
		return errors.Join(card.NewReset(disk).Ask(by), disk.Close())
	}
}

// buttonAgain is how long after a failure a button's line is tried again: its chip may be
// on USB.
const buttonAgain = time.Minute

// watchButtons watches the buttons that the board had at the start.
func (a *agent) watchButtons(ctx context.Context) {
	forget := a.forget()
	if forget == nil {
		return
	}
	b := a.hardware.board()
	var all sync.WaitGroup
	defer all.Wait()
	for _, v := range b.Buttons {
		if v.Does == board.FactoryReset {
			all.Go(func() { a.watchButton(ctx, b.Line(v.Line), v, forget) })
		}
	}
}

func (a *agent) watchButton(ctx context.Context, line string, v model.BoardButton, forget func(string) error) {
	hold := time.Duration(v.HoldS * float64(time.Second))
	if hold == 0 {
		hold = board.HoldS * time.Second
	}
	last := ""
	for ctx.Err() == nil {
		err := a.pressed(ctx, line, v, hold, forget)
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
func (a *agent) pressed(ctx context.Context, line string, v model.BoardButton, hold time.Duration, forget func(string) error) error {
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
			return a.startOver(ctx, by, forget, local.NewSupervisor(a.path(paths.GokrazySocket)).Reboot)
		},
		Stuck: func() {
			a.noteBoard(model.Warning, "agent.button.stuck", "the reset button is held for good: nothing is reset", map[string]string{"button": v.Name})
		},
	}.Run(ctx)
}

// tellWait bounds how long the gateway is told of what nobody is left to tell afterwards.
const tellWait = 10 * time.Second

// startOver has the next start, which follows at once, be the factory reset. The gateway
// hears of it before, where it is within reach.
func (a *agent) startOver(ctx context.Context, by string, forget func(string) error, reboot func(context.Context) error) error {
	if err := forget(by); err != nil {
		return err
	}
	a.Log.Warn("factory reset at the next start, which is now", "by", by)
	a.noteBoard(model.Warning, "agent.reset", "factory reset: the device forgets its identity, its network and all that it has stored", map[string]string{"by": by})
	limit, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	every(limit, tellWait/100, a.news.toldAll)
	return reboot(ctx)
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
