package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/agent/act"
	"halo.internal/agent/output"
	"halo.internal/agent/sensors"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// outputs are what the device switches: those of its board, and those of chips.
type outputs struct {
	board act.Outputs
	chips *chipOutputs
}

// Able implements act.Outputs.
func (o outputs) Able() error {
	if len(o.chips.bus.Outputs()) > 0 {
		return nil
	}
	return o.board.Able()
}

// Set implements act.Outputs. A name that the board has is the board's.
func (o outputs) Set(name string, part float64) error {
	err := o.board.Set(name, part)
	if no, ok := errors.AsType[*model.CommandRefusal](err); ok && no.Code == model.CodeNoOutput && o.chips.has(name) {
		return o.chips.set(name, part)
	}
	return err
}

// chipOutputs are the outputs of chips on buses: LABEL.OUTPUT, as relays.out1. Each is in
// the safe state of its template when its chip is set up and when nobody reads it any more,
// which package sensors sees to, and when the gateway has been out of reach for output.Lost.
type chipOutputs struct {
	bus interface {
		Outputs() map[string][]i2c.Output
		Send(ctx context.Context, label, name string, value float64) error
	}
	reached func() bool
	note    func(kind string, s model.Severity, message string, fields map[string]string)
	log     *slog.Logger
	state   string // file that tells the next process what was driven, should this one not end in order; empty: none

	mu     sync.Mutex           // guards what follows, and is held while a chip is driven
	driven map[string]time.Time // not known to be safe; no attempt to make it so before
	kept   []string             // as the file has them
	lost   time.Time            // since when the gateway is out of reach; zero: it is not
}

const (
	chipLimit    = 5 * time.Second // for a chip to be driven
	chipAgain    = time.Minute     // after a chip could not be made safe
	maxDriven    = 1024            // outputs of all chips, as a file may have them
	maxDrivenLen = 80              // octets of such a name
)

// begin takes over what a process before has left: it has not ended in order. As soon as
// the chips are set up they are safe.
func (c *chipOutputs) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.Open(c.state)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list []string
	if err == nil {
		defer f.Close()
		err = json.NewDecoder(io.LimitReader(f, maxDriven*(maxDrivenLen+4))).Decode(&list)
	}
	if err != nil {
		c.log.Warn("which outputs of chips a process before has driven is not known", "err", err)
		return
	}
	for _, name := range list[:min(len(list), maxDriven)] {
		if len(name) <= maxDrivenLen {
			c.driven[name] = time.Time{}
		}
	}
	c.kept = slices.Sorted(maps.Keys(c.driven))
}

// keep writes what is driven, where that is something else; its caller holds the lock.
func (c *chipOutputs) keep() {
	now := slices.Sorted(maps.Keys(c.driven))
	if c.state == "" || slices.Equal(now, c.kept) {
		return
	}
	b, err := json.Marshal(now)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(c.state), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(c.state, b, 0o600)
	}
	if err != nil {
		c.log.Warn("which outputs of chips are driven is not kept for a process to come", "err", err)
	}
	c.kept = now
}

// safe notes that all outputs of a chip are in their safe state. Why they are is for
// people; empty: the process ends.
func (c *chipOutputs) safe(label, why string) {
	c.mu.Lock()
	var names []string
	for name := range c.driven {
		if of, _, _ := strings.Cut(name, "."); of == label {
			names = append(names, name)
			delete(c.driven, name)
		}
	}
	c.keep()
	c.mu.Unlock()
	if why == "" {
		return
	}
	slices.Sort(names)
	for _, name := range names {
		c.note("output.safe", model.Warning, "an output went to its safe state: "+why, map[string]string{"output": name})
	}
}

// find is the output of that name.
func (c *chipOutputs) find(name string) (label string, o i2c.Output, known bool) {
	label, of, _ := strings.Cut(name, ".")
	list := c.bus.Outputs()[label]
	if i := slices.IndexFunc(list, func(o i2c.Output) bool { return o.Name == of }); i >= 0 {
		return label, list[i], true
	}
	return label, i2c.Output{}, false
}

func (c *chipOutputs) has(name string) bool {
	_, _, known := c.find(name)
	return known
}

// set drives an output: a part of it is that part of its range.
func (c *chipOutputs) set(name string, part float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	label, o, known := c.find(name)
	if !known {
		return model.RefuseCommand(model.CodeNoOutput, "no chip on a bus has the output %.64s", name)
	}
	v := o.Min + part*(o.Max-o.Min)
	if o.Whole {
		if o.Max-o.Min == 1 && part != 0 && part != 1 {
			return model.RefuseCommand(model.CodeInvalid, "%s is a line: expected it on or off, got %v %%", name, part*100)
		}
		v = math.Round(v)
	}
	c.driven[name] = time.Time{} // also where that fails: who knows what it does
	c.keep()
	err := c.send(context.Background(), label, o.Name, v)
	if err == nil && v == o.Safe {
		delete(c.driven, name)
		c.keep()
	}
	return err
}

func (c *chipOutputs) send(ctx context.Context, label, name string, v float64) error {
	ctx, cancel := context.WithTimeout(ctx, chipLimit)
	defer cancel()
	err := c.bus.Send(ctx, label, name, v)
	if errors.Is(err, sensors.ErrNoOutput) {
		return model.RefuseCommand(model.CodeNoOutput, "%v", err)
	}
	return err
}

// run makes outputs safe that nobody controls any more, until ctx ends.
func (c *chipOutputs) run(ctx context.Context) {
	every(ctx, time.Second, func() bool {
		c.look(ctx, time.Now())
		return false
	})
}

func (c *chipOutputs) look(ctx context.Context, now time.Time) {
	reached := c.reached()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case reached:
		c.lost = time.Time{}
		return
	case c.lost.IsZero():
		c.lost = now
	}
	if now.Sub(c.lost) < output.Lost {
		return
	}
	for name, next := range c.driven {
		if now.Before(next) {
			continue
		}
		label, o, known := c.find(name)
		if !known {
			continue // its chip is away, or is not read: as soon as it is, it is made safe
		}
		if err := c.send(ctx, label, o.Name, o.Safe); ctx.Err() != nil {
			return // package sensors makes all safe
		} else if err != nil {
			c.log.Warn("an output of a chip is not in its safe state", "output", name, "err", err)
			c.driven[name] = now.Add(chipAgain)
			continue
		}
		delete(c.driven, name)
		c.keep()
		c.note("output.safe", model.Warning, "the gateway is lost: an output went to its safe state", map[string]string{"output": name, "state": stateOf(o)})
	}
}

// stateOf is the safe state in words, as outputs of boards have it.
func stateOf(o i2c.Output) string {
	switch o.Safe {
	case o.Min:
		return string(model.SafeOff)
	case o.Max:
		return string(model.SafeOn)
	}
	return fmt.Sprintf("%.0f %%", (o.Safe-o.Min)/(o.Max-o.Min)*100)
}
