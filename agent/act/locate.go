package act

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"halo.internal/agent/command"
	"halo.internal/hal/led"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// lamps tells whether there are any.
func (d Device) lamps() error {
	_, err := led.Find(d.LEDs)
	if errors.Is(err, led.ErrNone) {
		return model.RefuseCommand(model.CodeNoLED, "%v", err)
	}
	return err
}

// locate has the LEDs blink, and show afterwards what they did before.
func (d Device) locate(ctx context.Context, t *command.Task) (_ command.Result, err error) {
	if d.TakeLEDs != nil {
		defer d.TakeLEDs()()
	}
	leds, err := led.Find(d.LEDs)
	if err != nil {
		return command.Result{}, err
	}
	before, err := led.States(leds)
	if err != nil {
		return command.Result{}, err
	}
	// A process that dies while they blink leaves them so: the next one puts that right.
	if b, err := json.Marshal(before); err != nil {
		return command.Result{}, err
	} else if err := errors.Join(os.MkdirAll(filepath.Dir(d.LEDState), 0o700), atomicfile.Write(d.LEDState, b, 0o600)); err != nil {
		d.Log.Warn("what the LEDs show is not kept", "err", err)
	}
	defer func() {
		restored := led.Restore(d.LEDs, before)
		if restored == nil {
			restored = ignoreMissing(os.Remove(d.LEDState))
		}
		err = errors.Join(err, restored)
	}()
	seconds := t.Command.Locate.Seconds
	limit, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	if err := led.Blink(limit, leds); err != nil {
		return command.Result{}, err
	}
	if ctx.Err() != nil {
		return command.Result{}, ctx.Err() // it was cut short
	}
	var names []string
	for _, l := range leds {
		names = append(names, l.Name)
	}
	return command.Result{Value: map[string]any{"leds": names, "seconds": seconds}}, nil
}

// RestoreLEDs puts right what a process left that died while they blinked.
func (d Device) RestoreLEDs() error {
	b, err := os.ReadFile(d.LEDState)
	if err != nil {
		return ignoreMissing(err)
	}
	var before []led.State
	if err := json.Unmarshal(b, &before); err != nil {
		return err
	}
	return errors.Join(led.Restore(d.LEDs, before), os.Remove(d.LEDState))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
