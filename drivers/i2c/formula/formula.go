// Package formula is the arithmetic of device templates: the syntax of expr
// (expr-lang.org), of which it takes numbers, named variables, tables and
// conditions, and nothing that loops or allocates.
//
// Each number is a float64; whole numbers are exact to 2^53, and functions on bits
// take and give nothing else. A division by zero, an operand without a value and
// whatever else is not finite makes the whole formula fail, also where a later
// step would hide it: 1/(1/0) is an error, not 0.
//
// expr itself is not in it: with its parser come its types, which look for methods by
// their names, so that the linker keeps every exported method of a program, and its
// virtual machine boxes each number, and lets the quotient of a division by zero pass as
// an infinity. Formulas are compiled to closures, which take nanoseconds and no memory.
// Tests hold what is parsed here against expr's parser.
package formula

import (
	"fmt"
	"math"
	"regexp"
	"slices"
)

// Bounds of one formula.
const (
	MaxLength = 1024 // octets of its text
	MaxNodes  = 256  // operations, operands and calls
	MaxTable  = 256  // numbers of one table
)

// maxWhole is what a float64 counts to without a gap.
const maxWhole = 1 << 53

// Scope is what formulas may name.
type Scope struct {
	slots  map[string]int
	names  []string
	tables map[string][]float64
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,31}$`)

// words mean something in expr.
var words = []string{"true", "false", "nil", "not", "in", "and", "or", "let", "if", "else", "matches", "contains", "startsWith", "endsWith"}

// CheckName tells why something can't be named so.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("expected a letter and then letters, digits and _, at most 32, got %.40q", name)
	}
	if _, ok := functions[name]; ok || slices.Contains(words, name) {
		return fmt.Errorf("expected a name that means nothing in a formula, got %q", name)
	}
	return nil
}

// Variable adds a variable and returns its place in Frame.Vars.
func (s *Scope) Variable(name string) (int, error) {
	if err := s.free(name); err != nil {
		return 0, err
	}
	if s.slots == nil {
		s.slots = map[string]int{}
	}
	s.slots[name] = len(s.names)
	s.names = append(s.names, name)
	return len(s.names) - 1, nil
}

// Table adds a row of numbers, which formulas index from 0.
func (s *Scope) Table(name string, numbers []float64) error {
	if err := s.free(name); err != nil {
		return err
	}
	if len(numbers) < 1 || len(numbers) > MaxTable {
		return fmt.Errorf("expected 1 to %d numbers, got %d", MaxTable, len(numbers))
	}
	for _, n := range numbers {
		if !finite(n) {
			return fmt.Errorf("expected finite numbers, got %v", n)
		}
	}
	if s.tables == nil {
		s.tables = map[string][]float64{}
	}
	s.tables[name] = numbers
	return nil
}

func (s *Scope) free(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	_, variable := s.slots[name]
	_, table := s.tables[name]
	if variable || table {
		return fmt.Errorf("%s is there already", name)
	}
	return nil
}

// Names are the variables in the order of their places.
func (s *Scope) Names() []string { return s.names }

// NewFrame returns room for one evaluation at a time, in which no variable has a
// value yet.
func (s *Scope) NewFrame() *Frame {
	f := &Frame{Vars: make([]float64, len(s.names))}
	for i := range f.Vars {
		f.Vars[i] = math.NaN()
	}
	return f
}

// Frame holds the variables: NaN where there is no value.
type Frame struct {
	Vars []float64
	err  error
}

// fail keeps the first error.
func (f *Frame) fail(err error) float64 {
	if f.err == nil {
		f.err = err
	}
	return math.NaN()
}

// Error is why a formula has no value.
type Error struct {
	Column  int // of the operation in its text, from 1
	Reason  string
	Missing int // place of the variable that has no value; -1: it is another reason
}

func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Reason) }

// Formula is a compiled number.
type Formula struct {
	eval numeric
	uses []int
}

// Eval computes the formula. The error is an *Error, and the number then NaN.
func (f *Formula) Eval(frame *Frame) (float64, error) {
	frame.err = nil
	x := f.eval(frame)
	if frame.err != nil {
		return math.NaN(), frame.err
	}
	return x, nil
}

// Uses are the places of the variables that are in it, ascending.
func (f *Formula) Uses() []int { return f.uses }

// Condition is a compiled truth.
type Condition struct {
	eval condition
	uses []int
}

// Eval tells whether the condition holds. The error is an *Error.
func (c *Condition) Eval(frame *Frame) (bool, error) {
	frame.err = nil
	ok := c.eval(frame)
	return ok && frame.err == nil, frame.err
}

// Uses are the places of the variables that are in it, ascending.
func (c *Condition) Uses() []int { return c.uses }

func finite(x float64) bool { return x-x == 0 }
