// Package led blinks the lamps of a board, so that somebody who stands before
// twenty of them sees which one is meant. It uses the kernel's LED class
// (Documentation/leds/leds-class.rst): a lamp has a trigger, which says what the
// kernel shows by it; that is taken away while it blinks, and given back.
package led

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Class is where the kernel has the LEDs.
const Class = "/sys/class/leds"

// ErrNone is wrapped where a board has no LED that may blink.
var ErrNone = errors.New("the board has no LED that HALO may use")

// LED is one lamp.
type LED struct {
	Name string // as the kernel names it, e.g. ACT
	dir  string
}

// maxLEDs bounds how many blink: strips of lamps are no help.
const maxLEDs = 16

// Find returns the LEDs of a class directory that may blink: not those of
// keyboards, nor those by which Ethernet ports show their links, as what is set up
// for these is more than a trigger's name. Without any, the error wraps ErrNone.
func Find(class string) ([]LED, error) {
	list, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []LED
	for _, e := range list {
		l := LED{e.Name(), filepath.Join(class, e.Name())}
		if strings.HasPrefix(l.Name, "input") || strings.Contains(l.Name, "kbd") {
			continue
		}
		trigger, err := l.trigger()
		if err != nil || trigger == "netdev" || trigger == "pattern" {
			continue
		}
		if len(found) < maxLEDs {
			found = append(found, l)
		}
	}
	if len(found) == 0 {
		return nil, ErrNone
	}
	return found, nil
}

// State is what an LED showed before it blinked.
type State struct {
	Name    string            `json:"name"`
	Trigger string            `json:"trigger"`
	Values  map[string]string `json:"values,omitempty"` // settings of the trigger, by file
}

// settings are the files that a trigger may have, and brightness, which counts
// where there is none.
var settings = []string{"delay_on", "delay_off", "invert"}

const noTrigger = "none"

// States reads what LEDs show, for Restore.
func States(leds []LED) ([]State, error) {
	var all []State
	for _, l := range leds {
		trigger, err := l.trigger()
		if err != nil {
			return nil, err
		}
		s := State{Name: l.Name, Trigger: trigger, Values: map[string]string{}}
		files := settings
		if trigger == noTrigger {
			files = []string{"brightness"}
		}
		for _, f := range files {
			if v, err := l.read(f); err == nil { // a trigger without it
				s.Values[f] = v
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// Restore gives LEDs of a class directory back what they showed. One that is gone
// meanwhile is no error.
func Restore(class string, states []State) error {
	var errs []error
	for _, s := range states {
		l := LED{s.Name, filepath.Join(class, filepath.Base(s.Name))}
		if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, l.write("trigger", s.Trigger))
		for _, f := range append(slices.Clone(settings), "brightness") {
			if v, ok := s.Values[f]; ok {
				errs = append(errs, l.write(f, v))
			}
		}
	}
	return errors.Join(errs...)
}

// Two short flashes and a pause: no trigger of the kernel looks like it.
var pattern = []time.Duration{100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond}

// Blink has LEDs blink until ctx ends. What they showed before is the caller's to
// restore. An LED that cannot be written to is an error; the others blink on until
// there are none.
func Blink(ctx context.Context, leds []LED) error {
	return BlinkBy(ctx, leds, func(step int) time.Duration { return pattern[step%len(pattern)] })
}

// BlinkBy is Blink in a rhythm of the caller's: how long each step lasts, of which the
// even ones are light.
func BlinkBy(ctx context.Context, leds []LED, lasts func(step int) time.Duration) error {
	var errs []error
	lamps := map[LED]string{} // how bright each is when it is on
	for _, l := range leds {
		most, err := l.read("max_brightness")
		if err = errors.Join(err, l.write("trigger", noTrigger)); err != nil {
			errs = append(errs, err)
			continue
		}
		lamps[l] = most
	}
	for step := 0; len(lamps) > 0; step++ {
		for l, most := range lamps {
			level := "0"
			if step%2 == 0 {
				level = most
			}
			if err := l.write("brightness", level); err != nil {
				errs = append(errs, err)
				delete(lamps, l)
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(errs...)
		case <-time.After(lasts(step)):
		}
	}
	return errors.Join(errs...)
}

// trigger returns the name of the trigger in use, which the kernel shows in
// brackets among all that there are.
func (l LED) trigger() (string, error) {
	all, err := l.read("trigger")
	if err != nil {
		return "", err
	}
	for name := range strings.FieldsSeq(all) {
		if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
			return name[1 : len(name)-1], nil
		}
	}
	return "", fmt.Errorf("LED %s: expected its trigger in brackets, got %.100q", l.Name, all)
}

func (l LED) read(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(l.dir, file))
	if err != nil {
		return "", fmt.Errorf("LED %s: %w", l.Name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (l LED) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(l.dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("LED %s: %w", l.Name, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("LED %s: set %s to %s: %w", l.Name, file, value, err)
	}
	return nil
}
