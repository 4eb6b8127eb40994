package i2c

import (
	"context"
	"fmt"
	"math"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Transaction is what happened on a bus.
type Transaction struct {
	Write []byte
	Read  []byte
	Err   error
	Took  time.Duration
}

// Trial is what a template made of a chip.
type Trial struct {
	Addr         uint16
	Transactions []Transaction // of set-up and the first reading; at most maxTraced
	Dropped      int           // transactions beyond those
	Variables    []Variable    // fields, constants and so on, as the file has them
	Samples      []Sample      // as Spec.Values
	Took         time.Duration
	Err          error // why there are no samples
}

// Variable is a name of a formula and what it stood for.
type Variable struct {
	Name   string
	Number float64
	Err    error // why there is no number
}

// maxTraced bounds what a trial keeps.
const maxTraced = 256

// Try sets up a chip as a template says, at an address, reads it once, and tells
// all that happened on the way. It is for people who write templates.
func Try(ctx context.Context, bus i2c.Bus, t *Template, addr uint16, params map[string]float64) Trial {
	trial := Trial{Addr: addr}
	log := &tracer{bus: bus, trial: &trial}
	c, err := t.open(log, addr, params)
	if err != nil {
		trial.Err = err
		return trial
	}
	began := time.Now()
	trial.Samples, trial.Err = c.Read(ctx, nil)
	trial.Took = time.Since(began)
	for i, name := range t.scope.Names() {
		v := Variable{name, c.run.frame.Vars[i], c.why[i]}
		if math.IsNaN(v.Number) && v.Err == nil {
			v.Err = fmt.Errorf("%s was not computed", name)
		}
		trial.Variables = append(trial.Variables, v)
	}
	return trial
}

// tracer is a bus that keeps what happens on another.
type tracer struct {
	bus   i2c.Bus
	trial *Trial
}

func (t *tracer) String() string { return t.bus.String() }

func (t *tracer) SetSpeed(f physic.Frequency) error { return t.bus.SetSpeed(f) }

func (t *tracer) Tx(addr uint16, w, r []byte) error {
	began := time.Now()
	err := t.bus.Tx(addr, w, r)
	if len(t.trial.Transactions) >= maxTraced {
		t.trial.Dropped++
		return err
	}
	x := Transaction{Write: append([]byte(nil), w...), Err: err, Took: time.Since(began)}
	if err == nil {
		x.Read = append(x.Read, r...)
	}
	t.trial.Transactions = append(t.trial.Transactions, x)
	return err
}
