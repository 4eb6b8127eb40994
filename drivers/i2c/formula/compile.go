package formula

import (
	"errors"
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

type (
	number    func(*Frame) float64
	condition func(*Frame) bool
)

// operand is a number, and whether no variable is in it: it is a literal then, which
// needs no frame.
type operand struct {
	eval     number
	constant bool
}

type compiler struct {
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
	c := compiler{scope: s}
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
	c := compiler{scope: s}
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

func parse(text string) (ast.Node, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("expected at most %d octets, got %d", MaxLength, len(text))
	}
	tree, err := parser.Parse(text)
	if bad, ok := errors.AsType[*file.Error](err); ok {
		return nil, fmt.Errorf("column %d: %s", bad.Column+1, bad.Message)
	}
	if err != nil {
		return nil, err
	}
	return tree.Node, nil
}

// count bounds the formula; each node passes here once.
func (c *compiler) count(n ast.Node) error {
	if n == nil {
		return errors.New("expected a number, got nothing")
	}
	if c.nodes++; c.nodes > MaxNodes {
		return fmt.Errorf("expected at most %d operations, operands and calls", MaxNodes)
	}
	return nil
}

func column(n ast.Node) int { return n.Location().From + 1 }

func refuse(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("column %d: %s", column(n), fmt.Sprintf(format, args...))
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

func (c *compiler) number(n ast.Node) (operand, error) {
	if err := c.count(n); err != nil {
		return operand{}, err
	}
	switch n := n.(type) {
	case *ast.IntegerNode:
		if n.Value > maxWhole || n.Value < -maxWhole {
			return operand{}, refuse(n, "expected at most 2^53, got %d", n.Value)
		}
		return literal(float64(n.Value)), nil
	case *ast.FloatNode:
		if !finite(n.Value) {
			return operand{}, refuse(n, "expected a finite number, got %v", n.Value)
		}
		return literal(n.Value), nil
	case *ast.IdentifierNode:
		return c.variable(n)
	case *ast.MemberNode:
		return c.index(n)
	case *ast.UnaryNode:
		return c.sign(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.choice(n)
	case *ast.BuiltinNode:
		return c.call(n, n.Name, n.Arguments)
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			return operand{}, refuse(n, "expected a function's name before the bracket")
		}
		return c.call(n, callee.Value, n.Arguments)
	}
	return operand{}, refuse(n, "expected a number, got %.80s", n)
}

func (c *compiler) variable(n *ast.IdentifierNode) (operand, error) {
	slot, ok := c.scope.slots[n.Value]
	if !ok {
		return operand{}, refuse(n, "%.40q is not known here; expected one of %.400v", n.Value, c.scope.names)
	}
	c.uses = append(c.uses, slot)
	missing := &Error{column(n), n.Value + " has no value", slot}
	return operand{eval: func(f *Frame) float64 {
		v := f.Vars[slot]
		if v != v {
			return f.fail(missing)
		}
		return v
	}}, nil
}

func (c *compiler) index(n *ast.MemberNode) (operand, error) {
	name, ok := n.Node.(*ast.IdentifierNode)
	if !ok || n.Optional {
		return operand{}, refuse(n, "expected a table's name before [")
	}
	table, ok := c.scope.tables[name.Value]
	if !ok {
		return operand{}, refuse(n, "expected a table's name before [, got %.40q", name.Value)
	}
	at, err := c.number(n.Property)
	if err != nil {
		return operand{}, err
	}
	outside := &Error{column(n), fmt.Sprintf("expected an index of %s from 0 to %d", name.Value, len(table)-1), -1}
	return fold(operand{func(f *Frame) float64 {
		i := at.eval(f)
		if !(i >= 0 && i < float64(len(table))) || i != float64(int(i)) {
			return f.fail(outside)
		}
		return table[int(i)]
	}, at.constant})
}

func (c *compiler) sign(n *ast.UnaryNode) (operand, error) {
	x, err := c.number(n.Node)
	if err != nil {
		return operand{}, err
	}
	switch n.Operator {
	case "+":
		return x, nil
	case "-":
		return fold(operand{func(f *Frame) float64 { return -x.eval(f) }, x.constant})
	}
	return operand{}, refuse(n, "expected a number, got %.80s", n)
}

func (c *compiler) choice(n *ast.ConditionalNode) (operand, error) {
	if n.Cond == nil {
		return operand{}, refuse(n, "expected a condition before ?")
	}
	test, err := c.condition(n.Cond)
	if err != nil {
		return operand{}, err
	}
	yes, err := c.number(n.Exp1)
	if err != nil {
		return operand{}, err
	}
	no, err := c.number(n.Exp2)
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

func (c *compiler) condition(n ast.Node) (condition, error) {
	if err := c.count(n); err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *ast.BoolNode:
		return func(*Frame) bool { return n.Value }, nil
	case *ast.UnaryNode:
		if n.Operator != "not" && n.Operator != "!" {
			break
		}
		x, err := c.condition(n.Node)
		return func(f *Frame) bool { return !x(f) }, err
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			return c.both(n)
		case "==", "!=", "<", "<=", ">", ">=":
			return c.comparison(n)
		}
	}
	return nil, refuse(n, "expected a condition such as a > b, got %.80s", n)
}

func (c *compiler) both(n *ast.BinaryNode) (condition, error) {
	a, err := c.condition(n.Left)
	if err != nil {
		return nil, err
	}
	b, err := c.condition(n.Right)
	if err != nil {
		return nil, err
	}
	if n.Operator == "and" || n.Operator == "&&" {
		return func(f *Frame) bool { return a(f) && b(f) }, nil
	}
	return func(f *Frame) bool { return a(f) || b(f) }, nil
}

func (c *compiler) comparison(n *ast.BinaryNode) (condition, error) {
	l, err := c.number(n.Left)
	if err != nil {
		return nil, err
	}
	r, err := c.number(n.Right)
	if err != nil {
		return nil, err
	}
	a, b := l.eval, r.eval
	switch n.Operator {
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
