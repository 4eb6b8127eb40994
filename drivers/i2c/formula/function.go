package formula

import (
	"maps"
	"math"
	"slices"
)

// binary compiles + - * / % and the power ** or ^.
func (c *compiler) binary(n *node) (operand, error) {
	var apply func(a, b float64) float64
	reason := "the result is not finite"
	switch n.name {
	case "+":
		apply = func(a, b float64) float64 { return a + b }
	case "-":
		apply = func(a, b float64) float64 { return a - b }
	case "*":
		apply = func(a, b float64) float64 { return a * b }
	case "/":
		apply = func(a, b float64) float64 { return a / b }
		reason = "division by zero, or the quotient is not finite"
	case "%":
		apply = math.Mod // the sign of a, as in Go and expr
		reason = "remainder of a division by zero"
	case "**", "^":
		apply = math.Pow
	default:
		return operand{}, c.not("a number", n)
	}
	l, err := c.number(n.args[0])
	if err != nil {
		return operand{}, err
	}
	r, err := c.number(n.args[1])
	if err != nil {
		return operand{}, err
	}
	if (n.name == "/" || n.name == "%") && r.constant && r.eval(nil) == 0 {
		return operand{}, at(n.at, "division by zero")
	}
	return c.together(apply, l, r, &Error{n.at + 1, reason, -1})
}

// function is what a formula may call, of one number, of two, or of several, which
// are taken together two by two. It gives NaN where there is no result.
type function struct {
	one     func(a float64) float64
	two     func(a, b float64) float64
	several bool
	reason  string // why there is none
}

// maxArguments bounds min and max.
const maxArguments = 8

var functions = map[string]function{
	"abs":   {one: math.Abs},
	"floor": {one: math.Floor},
	"ceil":  {one: math.Ceil},
	"round": {one: math.Round}, // halves away from zero
	"int":   {one: math.Trunc},
	"sqrt":  {one: math.Sqrt, reason: "the square root of a number below 0"},
	"exp":   {one: math.Exp, reason: "the result is not finite"},
	"log":   {one: math.Log, reason: "the logarithm of 0 or less"},
	"log10": {one: math.Log10, reason: "the logarithm of 0 or less"},
	"min":   {two: math.Min, several: true},
	"max":   {two: math.Max, several: true},

	"bitand": {two: bits(func(a, b int64) int64 { return a & b }), reason: bitReason},
	"bitor":  {two: bits(func(a, b int64) int64 { return a | b }), reason: bitReason},
	"bitxor": {two: bits(func(a, b int64) int64 { return a ^ b }), reason: bitReason},
	"bitshl": {two: shiftLeft, reason: shiftReason},
	"bitshr": {two: shiftRight, reason: shiftReason},
}

const (
	bitReason   = "bits are of whole numbers up to 2^53"
	shiftReason = "shifts are of whole numbers up to 2^53, by 0 to 52 bits, to no more than 2^53"
)

// whole tells whether x is a whole number that float64 holds exactly.
func whole(x float64) bool { return x == math.Trunc(x) && math.Abs(x) <= maxWhole }

func bits(apply func(a, b int64) int64) func(a, b float64) float64 {
	return func(a, b float64) float64 {
		if !whole(a) || !whole(b) {
			return math.NaN()
		}
		return float64(apply(int64(a), int64(b)))
	}
}

func shiftLeft(a, n float64) float64 {
	if !whole(a) || !whole(n) || n < 0 || n > 52 {
		return math.NaN()
	}
	if x := math.Ldexp(a, int(n)); whole(x) {
		return x
	}
	return math.NaN()
}

// shiftRight keeps the sign and rounds down, as >> of signed integers does.
func shiftRight(a, n float64) float64 {
	if !whole(a) || !whole(n) || n < 0 || n > 52 {
		return math.NaN()
	}
	return float64(int64(a) >> int(n))
}

// FunctionNames are what formulas may call, sorted.
func FunctionNames() []string { return slices.Sorted(maps.Keys(functions)) }

func (c *compiler) call(n *node) (operand, error) {
	name, args, fn := n.name, n.args, functions[n.name] // parse has refused others
	low, high := 1, 1
	if fn.several {
		high = maxArguments
	} else if fn.two != nil {
		low, high = 2, 2
	}
	if len(args) < low || len(args) > high {
		return operand{}, at(n.at, "%s: expected %d to %d numbers, got %d", name, low, high, len(args))
	}
	first, err := c.number(args[0])
	if err != nil {
		return operand{}, err
	}
	failed := &Error{n.at + 1, name + ": " + fn.reason, -1}
	if fn.one != nil {
		return fold(operand{func(f *Frame) float64 {
			x := fn.one(first.eval(f))
			if !finite(x) {
				return f.fail(failed)
			}
			return x
		}, first.constant})
	}
	for _, a := range args[1:] {
		second, err := c.number(a)
		if err != nil {
			return operand{}, err
		}
		if first, err = c.together(fn.two, first, second, failed); err != nil {
			return operand{}, err
		}
	}
	return first, nil
}

// together applies an operation to two numbers.
func (c *compiler) together(apply func(a, b float64) float64, l, r operand, failed *Error) (operand, error) {
	a, b := l.eval, r.eval
	return fold(operand{func(f *Frame) float64 {
		x := apply(a(f), b(f))
		if !finite(x) {
			return f.fail(failed)
		}
		return x
	}, l.constant && r.constant})
}
