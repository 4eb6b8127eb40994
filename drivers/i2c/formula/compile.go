package formula

import (
	"fmt"
	"slices"
)

type (
	numeric   func(*Frame) float64
	condition func(*Frame) bool
)

// operand is a number, and whether no variable is in it: it is a literal then, which
// needs no frame.
type operand struct {
	eval     numeric
	constant bool
}

type compiler struct {
	text  string
	scope *Scope
	nodes int
	uses  []int
}

// Compile compiles a formula of numbers. What can't be computed whatever the
// variables are, such as a division by the constant 0, is refused.
func Compile(text string, s *Scope) (*Formula, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := compiler{text: text, scope: s}
	o, err := c.number(root)
	if err != nil {
		return nil, err
	}
	return &Formula{o.eval, c.used()}, nil
}

// CompileCondition compiles a formula that is true or false.
func CompileCondition(text string, s *Scope) (*Condition, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := compiler{text: text, scope: s}
	eval, err := c.condition(root)
	if err != nil {
		return nil, err
	}
	return &Condition{eval, c.used()}, nil
}

func (c *compiler) used() []int {
	slices.Sort(c.uses)
	return slices.Compact(c.uses)
}

// count bounds the formula; each node passes here once.
func (c *compiler) count() error {
	if c.nodes++; c.nodes > MaxNodes {
		return fmt.Errorf("expected at most %d operations, operands and calls", MaxNodes)
	}
	return nil
}

// not refuses a node that is not what is wanted.
func (c *compiler) not(want string, n *node) error {
	return at(n.at, "expected %s, got %.80s", want, c.text[n.from:n.to])
}

func literal(v float64) operand { return operand{func(*Frame) float64 { return v }, true} }

// fold computes what has no variable in it.
func fold(o operand) (operand, error) {
	if !o.constant {
		return o, nil
	}
	var f Frame
	v := o.eval(&f)
	return literal(v), f.err
}

func (c *compiler) number(n *node) (operand, error) {
	if err := c.count(); err != nil {
		return operand{}, err
	}
	switch n.kind {
	case literalNode:
		return literal(n.value), nil
	case nameNode:
		return c.variable(n)
	case indexNode:
		return c.index(n)
	case unaryNode:
		return c.sign(n)
	case binaryNode:
		return c.binary(n)
	case choiceNode:
		return c.choice(n)
	case callNode:
		return c.call(n)
	}
	return operand{}, c.not("a number", n)
}

func (c *compiler) variable(n *node) (operand, error) {
	slot, ok := c.scope.slots[n.name]
	if !ok {
		return operand{}, at(n.at, "%.40q is not known here; expected one of %.400v", n.name, c.scope.names)
	}
	c.uses = append(c.uses, slot)
	missing := &Error{n.at + 1, n.name + " has no value", slot}
	return operand{eval: func(f *Frame) float64 {
		v := f.Vars[slot]
		if v != v {
			return f.fail(missing)
		}
		return v
	}}, nil
}

func (c *compiler) index(n *node) (operand, error) {
	table, ok := c.scope.tables[n.name]
	if !ok {
		return operand{}, at(n.at, "expected a table's name before [, got %.40q", n.name)
	}
	place, err := c.number(n.args[0])
	if err != nil {
		return operand{}, err
	}
	outside := &Error{n.at + 1, fmt.Sprintf("expected an index of %s from 0 to %d", n.name, len(table)-1), -1}
	return fold(operand{func(f *Frame) float64 {
		i := place.eval(f)
		if !(i >= 0 && i < float64(len(table))) || i != float64(int(i)) {
			return f.fail(outside)
		}
		return table[int(i)]
	}, place.constant})
}

func (c *compiler) sign(n *node) (operand, error) {
	if n.name != "+" && n.name != "-" {
		return operand{}, c.not("a number", n)
	}
	x, err := c.number(n.args[0])
	if err != nil || n.name == "+" {
		return x, err
	}
	return fold(operand{func(f *Frame) float64 { return -x.eval(f) }, x.constant})
}

func (c *compiler) choice(n *node) (operand, error) {
	test, err := c.condition(n.args[0])
	if err != nil {
		return operand{}, err
	}
	yes, err := c.number(n.args[1])
	if err != nil {
		return operand{}, err
	}
	no, err := c.number(n.args[2])
	if err != nil {
		return operand{}, err
	}
	return operand{eval: func(f *Frame) float64 {
		if test(f) {
			return yes.eval(f)
		}
		return no.eval(f)
	}}, nil
}

func (c *compiler) condition(n *node) (condition, error) {
	if err := c.count(); err != nil {
		return nil, err
	}
	switch n.kind {
	case truthNode:
		return func(*Frame) bool { return n.value != 0 }, nil
	case unaryNode:
		if n.name != "not" && n.name != "!" {
			break
		}
		x, err := c.condition(n.args[0])
		return func(f *Frame) bool { return !x(f) }, err
	case binaryNode:
		switch n.name {
		case "and", "&&", "or", "||":
			return c.both(n)
		case "==", "!=", "<", "<=", ">", ">=":
			return c.comparison(n)
		}
	}
	return nil, c.not("a condition such as a > b", n)
}

func (c *compiler) both(n *node) (condition, error) {
	a, err := c.condition(n.args[0])
	if err != nil {
		return nil, err
	}
	b, err := c.condition(n.args[1])
	if err != nil {
		return nil, err
	}
	if n.name == "and" || n.name == "&&" {
		return func(f *Frame) bool { return a(f) && b(f) }, nil
	}
	return func(f *Frame) bool { return a(f) || b(f) }, nil
}

func (c *compiler) comparison(n *node) (condition, error) {
	l, err := c.number(n.args[0])
	if err != nil {
		return nil, err
	}
	r, err := c.number(n.args[1])
	if err != nil {
		return nil, err
	}
	a, b := l.eval, r.eval
	switch n.name {
	case "==":
		return func(f *Frame) bool { return a(f) == b(f) }, nil
	case "!=":
		return func(f *Frame) bool { return a(f) != b(f) }, nil
	case "<":
		return func(f *Frame) bool { return a(f) < b(f) }, nil
	case "<=":
		return func(f *Frame) bool { return a(f) <= b(f) }, nil
	case ">":
		return func(f *Frame) bool { return a(f) > b(f) }, nil
	default:
		return func(f *Frame) bool { return a(f) >= b(f) }, nil
	}
}
