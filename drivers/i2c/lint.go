package i2c

import (
	"fmt"
	"halo.internal/model/strict"
	"time"
)

// Finding is what Lint has to say.
type Finding struct {
	Problem
	Warning bool // the template is usable all the same
}

// Lint tells what is wrong with a template, or, if nothing is, what its author may
// have overlooked. file is the name of its file.
func Lint(file string, text []byte) []Finding {
	c, problems := compile(file, text)
	var found []Finding
	for _, p := range problems {
		found = append(found, Finding{Problem: *p})
	}
	if len(problems) > 0 {
		return found
	}
	warn := func(key, format string, args ...any) {
		found = append(found, Finding{Problem{File: file, Line: c.at.Line(key), Key: key, Text: fmt.Sprintf(format, args...)}, true})
	}
	c.overlooked(warn)
	c.unused(warn)
	return found
}

func (c *compiler) overlooked(warn func(key, format string, args ...any)) {
	t, s := c.t, &c.t.spec
	if s.Title == "" {
		warn("title", "people see the name alone where there is no title")
	}
	if s.Datasheet == "" {
		warn("datasheet", "nobody can check the template without knowing which data sheet it is of")
	}
	if len(s.Identity) == 0 {
		warn("identity", "a chip without identity is offered where something answers at its address, and not recognised")
	}
	for i, a := range s.Addresses {
		if len(s.Identity) > 0 && neverWrite(a) {
			warn(fmt.Sprintf("addresses[%d]", i), "at %#02x there may be an EEPROM: the identity is not asked there", a)
		}
	}
	if least := waits(t.measure); least > s.MinInterval {
		warn("min_interval", "a reading takes %v at least, min_interval is %v", least, s.MinInterval)
	}
	for _, d := range Builtin() {
		if d.Spec().Name == s.Name {
			warn("name", "the template takes the place of the built-in one of this name")
		}
	}
}

// waits is how long steps take at least.
func waits(steps []step) (d time.Duration) {
	for _, s := range steps {
		d += s.wait
	}
	return d
}

func (c *compiler) unused(warn func(key, format string, args ...any)) {
	const nobody = "no formula names it"
	names := c.t.scope.Names()
	in := map[int]bool{} // blocks that a field is of
	for _, list := range [][]field{c.t.calibrated, c.t.measured} {
		for _, f := range list {
			in[f.block] = true
			if !c.used[f.slot] {
				warn(strict.Join("fields", names[f.slot]), nobody)
			}
		}
	}
	for table, list := range map[string][]named{"constants": c.t.constants, "compute": c.t.compute} {
		for _, n := range list {
			if !c.used[n.slot] {
				warn(strict.Join(table, n.name), nobody)
			}
		}
	}
	for i, slot := range c.t.parameters {
		if !c.used[slot] {
			warn(fmt.Sprintf("parameter[%d]", i), nobody)
		}
	}
	for i, slot := range c.t.outputs {
		if !c.used[slot] {
			warn(fmt.Sprintf("output[%d]", i), nobody)
		}
	}
	for i, b := range c.t.blocks {
		if !in[i] {
			warn("", "block %s: no field is of it", b.name)
		}
	}
}
