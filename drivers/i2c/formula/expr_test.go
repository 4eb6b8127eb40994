package formula_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"halo.internal/drivers/i2c/formula"
)

// exprTree is what expr's parser makes of a text, written as formula.Tree does.
func exprTree(text string) (string, error) {
	tree, err := parser.Parse(text)
	if err != nil {
		return "", err
	}
	return written(tree.Node), nil
}

func written(n ast.Node) string {
	of := func(op string, args ...ast.Node) string {
		out := []string{op}
		for _, a := range args {
			out = append(out, written(a))
		}
		return "(" + strings.Join(out, " ") + ")"
	}
	switch n := n.(type) {
	case *ast.IntegerNode:
		return fmt.Sprint(float64(n.Value))
	case *ast.FloatNode:
		return fmt.Sprint(n.Value)
	case *ast.BoolNode:
		return fmt.Sprint(n.Value)
	case *ast.IdentifierNode:
		return n.Value
	case *ast.UnaryNode:
		return of(n.Operator, n.Node)
	case *ast.BinaryNode:
		return of(n.Operator, n.Left, n.Right)
	case *ast.ConditionalNode:
		return of("?", n.Cond, n.Exp1, n.Exp2)
	case *ast.MemberNode:
		return of("[]", n.Node, n.Property)
	case *ast.BuiltinNode:
		return of(n.Name, n.Arguments...)
	case *ast.CallNode:
		return of(written(n.Callee), n.Arguments...)
	}
	return fmt.Sprintf("%T", n)
}

// author writes formulas at random.
type author struct{ *rand.Rand }

func (a author) of(list ...string) string { return list[a.IntN(len(list))] }

func (a author) space() string { return a.of("", "", " ", "  ") }

func (a author) number(depth int) string {
	if depth == 0 {
		return a.of("a", "b", "zero", "none", "1", "2.5", ".5", "5.", "0x1F", "0b101", "0o17", "1e3", "2E-2", "1_000", "010")
	}
	sub := func() string { return a.number(a.IntN(depth)) }
	switch a.IntN(9) {
	case 0:
		return "(" + a.space() + sub() + a.space() + ")"
	case 1:
		return a.of("-", "+", "- ") + sub()
	case 2:
		return "t[" + sub() + "]"
	case 3:
		return a.of("abs", "sqrt", "log", "int", "bitand") + "(" + sub() + "," + a.space() + sub() + ")"
	case 4:
		return "(" + a.truth(a.IntN(depth)) + " ? " + sub() + " : " + sub() + ")"
	}
	return sub() + " " + a.of("+", "-", "*", "/", "%", "**", "^") + a.space() + sub()
}

func (a author) truth(depth int) string {
	if depth == 0 {
		return a.of("true", "false")
	}
	sub := func() string { return a.truth(a.IntN(depth)) }
	switch a.IntN(5) {
	case 0:
		return a.of("not ", "!", "! ") + "(" + sub() + ")"
	case 1:
		return sub() + " " + a.of("and", "or", "&&", "||") + " " + sub()
	}
	return a.number(a.IntN(depth)) + a.space() + a.of("==", "!=", "<", "<=", ">", ">=") + a.space() + a.number(a.IntN(depth))
}

// TestFormulasAreReadAsByExpr: what people know of expr holds here.
func TestFormulasAreReadAsByExpr(t *testing.T) {
	a := author{rand.New(rand.NewPCG(7, 11))}
	for range 20_000 {
		text := a.number(1 + a.IntN(5))
		if a.IntN(4) == 0 {
			text = a.truth(1+a.IntN(4)) + " ? " + text + " : " + a.number(2)
		}
		if len(text) > formula.MaxLength {
			continue
		}
		want, err := exprTree(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got, err := formula.Tree(text); err != nil || got != want {
			t.Fatalf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
}

// FuzzAsExpr has what is taken here be the same in expr.
func FuzzAsExpr(f *testing.F) {
	for _, seed := range []string{"-a ** 2 % t[1]", "not (a > 1) and b <= 2 ? 1 : min(a, 2)", "0x1E+2", "2 ^ -1 ^ b", "a ? b", "1_0.5e+3", "1.e", "a\n-\tb", "true"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := scope(t)
		if _, err := formula.Compile(text, s); err != nil {
			return
		}
		got, err := formula.Tree(text)
		if err != nil {
			t.Fatalf("%q was compiled, and is not parsed: %v", text, err)
		}
		if want, err := exprTree(text); err != nil || got != want {
			t.Errorf("%q: got %s, expr has %s, %v", text, got, want, err)
		}
	})
}
