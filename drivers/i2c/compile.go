package i2c

import (
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"halo.internal/drivers/i2c/formula"
	"halo.internal/model/strict"
	"halo.internal/model/wire"
)

// Bounds of a template. A data sheet that needs more needs a Driver.
const (
	maxAddresses  = 16
	maxSteps      = 64  // of one list
	maxOctets     = 256 // of one transaction, either way
	maxChecks     = 16
	maxCheckRead  = 32
	maxNames      = 256 // fields, constants and so on, each
	maxValues     = 32
	maxWait       = 10 * time.Second // of one step
	maxList       = 30 * time.Second // of all steps of a list
	maxPolls      = 1000
	defaultEvery  = 5 * time.Millisecond
	maxRetries    = 5
	firstAddr     = 0x08 // below and above are addresses that I2C reserves
	lastAddr      = 0x77
	maxTitle      = 120
	defaultScale  = 2
	defaultPeriod = time.Minute
)

// Template is a Driver that a file describes.
type Template struct {
	spec    Spec
	retries int
	scope   formula.Scope
	blocks  []block

	verify                                   []Check
	reset, calibration, setup, measure, send []step
	calibrated, measured                     []field // from blocks of calibration, and of measure
	constants, compute                       []named
	values                                   []formulaValue
	parameters, outputs                      []int // their variables
}

// block keeps the answer of a step.
type block struct {
	name string
	size int
	once bool // read with the calibration
}

// named is a formula whose result has a name.
type named struct {
	name    string
	slot    int
	formula *formula.Formula
}

// formulaValue computes one of Spec.Values.
type formulaValue struct {
	named
	valid *formula.Condition // nil: always
}

// compiler turns what a file says into a Template, and collects what is wrong.
type compiler struct {
	file     string
	at       *strict.Positions
	problems []*Problem
	used     map[int]bool // variables that a formula names
	t        *Template
}

func newCompiler(file string, text []byte) *compiler {
	return &compiler{file: file, at: strict.Locate(text), used: map[int]bool{}, t: &Template{}}
}

func (c *compiler) bad(key, format string, args ...any) {
	c.problems = append(c.problems, &Problem{File: c.file, Line: c.at.Line(key), Key: key, Text: fmt.Sprintf(format, args...)})
}

// between tells whether v is within bounds, and complains if not.
func (c *compiler) between(key string, v, low, high int64) bool {
	if v < low || v > high {
		c.bad(key, "expected %d to %d, got %d", low, high, v)
		return false
	}
	return true
}

func (c *compiler) text(key, v string, most int) string {
	if len(v) > most {
		c.bad(key, "expected at most %d octets, got %d", most, len(v))
	}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) {
		c.bad(key, "expected printable text, got %.40q", v)
	}
	return v
}

var templateForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// template compiles in the order in which things happen to a chip, so that a
// formula can name only what is known by then.
func (c *compiler) template(s *templateText) *Template {
	c.head(s)
	c.tables(s.Tables)
	c.parametersOf(s.Parameter)
	c.t.spec.Identity = c.checks("identity", s.Identity)
	c.t.verify = c.checks("verify", s.Verify)
	c.t.reset = c.steps("reset", s.Reset, "")
	c.t.calibration = c.steps("calibration", s.Calibration, "once")
	c.t.calibrated = c.fields(s.Fields, true)
	c.t.constants = c.formulas("constants", s.Constants)
	c.t.setup = c.steps("setup", s.Setup, "")
	c.outputsOf(s.Output)
	c.t.send = c.steps("send", s.Send, "")
	c.t.measure = c.steps("measure", s.Measure, "each")
	c.t.measured = c.fields(s.Fields, false)
	c.t.compute = c.formulas("compute", s.Compute)
	c.valuesOf(s.Value)
	c.whole(s)
	return c.t
}

func (c *compiler) head(s *templateText) {
	spec := &c.t.spec
	if want := strings.TrimSuffix(path.Base(c.file), ".toml"); !templateForm.MatchString(s.Name) {
		c.bad("name", "expected small letters, digits, - and _, at most 32, got %.40q", s.Name)
	} else if s.Name != want {
		c.bad("name", "expected the file's name, %.40q, got %q", want, s.Name)
	}
	spec.Name = s.Name
	spec.Title = c.text("title", s.Title, maxTitle)
	spec.Datasheet = c.text("datasheet", s.Datasheet, maxTitle)
	spec.WeakIdentity, spec.IdleNAK = s.WeakIdentity, s.IdleNAK
	switch spec.Role = Role(s.Role); spec.Role {
	case "":
		spec.Role = Sensor
	case Sensor, Send:
	default:
		c.bad("role", `expected "sensor" or "send", got %.40q`, s.Role)
	}
	if n := len(s.Addresses); n < 1 || n > maxAddresses {
		c.bad("addresses", "expected 1 to %d, got %d", maxAddresses, n)
	}
	for i, a := range s.Addresses {
		key := fmt.Sprintf("addresses[%d]", i)
		if a < firstAddr || a > lastAddr {
			c.bad(key, "expected %#02x to %#02x, got %#x", firstAddr, lastAddr, a)
		} else if spec.answersAt(uint16(a)) {
			c.bad(key, "%#02x is there twice", a)
		}
		spec.Addresses = append(spec.Addresses, uint16(a))
	}
	spec.MinInterval = c.duration("min_interval", s.MinInterval, time.Second, 10*time.Millisecond, time.Hour)
	spec.Interval = c.duration("interval", s.Interval, max(defaultPeriod, spec.MinInterval), spec.MinInterval, 24*time.Hour)
	c.t.retries = 2
	if s.Retries != nil && c.between("retries", *s.Retries, 0, maxRetries) {
		c.t.retries = int(*s.Retries)
	}
}

func (c *compiler) duration(key string, d *duration, other, low, high time.Duration) time.Duration {
	v := d.or(other)
	if v < low || v > high {
		c.bad(key, "expected %v to %v, got %v", low, high, v)
		return other
	}
	return v
}

// whole judges what is of the template as a whole.
func (c *compiler) whole(s *templateText) {
	spec := &c.t.spec
	if spec.Role == Sensor && len(s.Value) == 0 {
		c.bad("", `expected a [[value]] of a sensor; a chip that only has outputs has role = "send"`)
	}
	if spec.Role == Send && len(s.Output) == 0 {
		c.bad("", `expected an [[output]] of a chip with role = "send"`)
	}
	if len(s.Value) > 0 && len(s.Measure) == 0 {
		c.bad("", "expected measure, which reads what values are computed from")
	}
	if (len(s.Output) > 0) != (len(s.Send) > 0) {
		c.bad("", "expected send, which writes all outputs, where there is an [[output]], and nowhere else")
	}
	if spec.WeakIdentity && len(s.Identity) == 0 {
		c.bad("weak_identity", "expected an [[identity]] that it is about")
	}
	for _, steps := range [][]step{c.t.reset, c.t.calibration, c.t.setup, c.t.send, c.t.measure} {
		spec.Longest += bound(steps, c.t.retries)
	}
}

func (c *compiler) tables(tables map[string][]float64) {
	if len(tables) > maxNames {
		c.bad("tables", "expected at most %d, got %d", maxNames, len(tables))
		return
	}
	for _, name := range c.inOrder("tables", maps.Keys(tables)) {
		if err := c.t.scope.Table(name, tables[name]); err != nil {
			c.bad("tables."+name, "%v", err)
		}
	}
}

// variable names a slot of the formulas' variables.
func (c *compiler) variable(key, name string) int {
	slot, err := c.t.scope.Variable(name)
	if err != nil {
		c.bad(key, "%v", err)
	}
	return slot
}

// inOrder sorts the keys of a table as the file has them.
func (c *compiler) inOrder(table string, names func(func(string) bool)) []string {
	return slices.SortedFunc(names, func(a, b string) int {
		if d := c.at.Offset(strict.Join(table, a)) - c.at.Offset(strict.Join(table, b)); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

func (c *compiler) formula(key, text string) *formula.Formula {
	f, err := formula.Compile(text, &c.t.scope)
	if err != nil {
		c.bad(key, "%v", err)
		return nil
	}
	c.use(f.Uses())
	return f
}

func (c *compiler) use(slots []int) {
	for _, s := range slots {
		c.used[s] = true
	}
}

// formulas compiles a table of them. Each may name those above it.
func (c *compiler) formulas(table string, formulas map[string]string) (list []named) {
	if len(formulas) > maxNames {
		c.bad(table, "expected at most %d, got %d", maxNames, len(formulas))
		return nil
	}
	for _, name := range c.inOrder(table, maps.Keys(formulas)) {
		key := strict.Join(table, name)
		f := c.formula(key, formulas[name])
		list = append(list, named{name, c.variable(key, name), f})
	}
	return list
}

// limits reads range = [min, max].
func (c *compiler) limits(key string, r []float64) (low, high float64) {
	if len(r) != 2 || !(r[0] < r[1]) || math.IsInf(r[0], 0) || math.IsInf(r[1], 0) {
		c.bad(key, "expected [lowest, highest], got %v", r)
		return 0, 1
	}
	return r[0], r[1]
}

func (c *compiler) parametersOf(list []parameterText) {
	if len(list) > maxValues {
		c.bad("parameter", "expected at most %d, got %d", maxValues, len(list))
		return
	}
	for i, p := range list {
		key := fmt.Sprintf("parameter[%d]", i)
		low, high := c.limits(key+".range", p.Range)
		c.t.parameters = append(c.t.parameters, c.variable(key+".name", p.Name))
		if p.Default == nil || !(*p.Default >= low && *p.Default <= high) {
			c.bad(key+".default", "expected %v to %v", low, high)
			continue
		}
		c.t.spec.Parameters = append(c.t.spec.Parameters, Parameter{
			Name: p.Name, Title: c.text(key+".title", p.Title, maxTitle), Unit: c.text(key+".unit", p.Unit, wire.MaxUnit),
			Default: *p.Default, Min: low, Max: high,
		})
	}
}

func (c *compiler) outputsOf(list []outputText) {
	if len(list) > maxValues {
		c.bad("output", "expected at most %d, got %d", maxValues, len(list))
		return
	}
	for i, o := range list {
		key := fmt.Sprintf("output[%d]", i)
		low, high := c.limits(key+".range", o.Range)
		c.t.outputs = append(c.t.outputs, c.variable(key+".name", o.Name))
		out := Output{
			Name: o.Name, Title: c.text(key+".title", o.Title, maxTitle), Unit: c.text(key+".unit", o.Unit, wire.MaxUnit),
			Min: low, Max: high, Whole: o.Whole,
		}
		if o.Safe == nil {
			c.bad(key+".safe", "expected what it is at the start, and when whoever controls it is lost")
			continue
		}
		if out.Safe = *o.Safe; out.check(out.Safe) != nil {
			c.bad(key+".safe", "%v", out.check(out.Safe))
		}
		c.t.spec.Outputs = append(c.t.spec.Outputs, out)
	}
}

// check tells why an output can't be set so.
func (o *Output) check(v float64) error {
	if !(v >= o.Min && v <= o.Max) {
		return fmt.Errorf("expected %v to %v, got %v", o.Min, o.Max, v)
	}
	if o.Whole && v != math.Trunc(v) {
		return fmt.Errorf("expected a whole number, got %v", v)
	}
	return nil
}

func (c *compiler) valuesOf(list []valueText) {
	if len(list) > maxValues {
		c.bad("value", "expected at most %d, got %d", maxValues, len(list))
		return
	}
	for i, v := range list {
		c.value(fmt.Sprintf("value[%d]", i), v)
	}
}

func (c *compiler) value(key string, v valueText) {
	spec := Value{
		Name: v.Name, Title: c.text(key+".title", v.Title, maxTitle), Unit: c.text(key+".unit", v.Unit, wire.MaxUnit),
		Scale: defaultScale, Power: v.Power,
	}
	spec.Min, spec.Max = c.limits(key+".range", v.Range)
	if v.Scale != nil && c.between(key+".scale", *v.Scale, -wire.MaxScale, wire.MaxScale) {
		spec.Scale = int8(*v.Scale)
	}
	if v.Power != "" && !slices.Contains(powerMeanings, v.Power) {
		c.bad(key+".power", "expected one of %s, got %.40q", strings.Join(powerMeanings, ", "), v.Power)
	}
	value := formulaValue{named: named{name: v.Name, formula: c.formula(key+".formula", v.Formula)}}
	if v.Valid != "" {
		var err error
		if value.valid, err = formula.CompileCondition(v.Valid, &c.t.scope); err != nil {
			c.bad(key+".valid", "%v", err)
		} else {
			c.use(value.valid.Uses())
		}
	}
	if strings.ToLower(v.Name) != v.Name {
		c.bad(key+".name", "expected small letters, got %.40q", v.Name)
	}
	value.slot = c.variable(key+".name", v.Name) // from here on, so that a later value can be made of it
	c.t.values = append(c.t.values, value)
	c.t.spec.Values = append(c.t.spec.Values, spec)
}
