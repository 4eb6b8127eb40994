package formula

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kind is what a node of a formula is.
type kind int

const (
	literalNode kind = iota // value
	truthNode               // value is 1 where it is true
	nameNode
	indexNode // args[0] of the table name
	unaryNode
	binaryNode
	choiceNode // condition, what it is if that holds, what it is else
	callNode
)

type node struct {
	kind     kind
	name     string // of an operator, a function, a variable or a table
	value    float64
	args     []*node
	at       int // octet in the text that errors name: an operator's, or the first
	from, to int // all of it
}

func (k token) is(text string) bool { return k.kind == sign && k.text == text }

// token is a word of the text.
type token struct {
	kind tokenKind
	text string // as it stands there
	at   int
}

type tokenKind int

const (
	end tokenKind = iota
	number
	word
	sign // an operator or a bracket
)

func (k token) String() string {
	if k.kind == end {
		return "the end"
	}
	return strconv.Quote(k.text)
}

// binding is how tightly operators bind what is on both sides of them, and unary what is
// behind them: as in expr.
var (
	binding = map[string]int{
		"or": 10, "||": 10, "and": 15, "&&": 15,
		"==": 20, "!=": 20, "<": 20, "<=": 20, ">": 20, ">=": 20,
		"+": 30, "-": 30, "*": 60, "/": 60, "%": 60, "**": 100, "^": 100,
	}
	unary = map[string]int{"not": 50, "!": 50, "-": 90, "+": 90}
)

// signs are operators and brackets, those of two letters first.
var signs = []string{
	"**", "==", "!=", "<=", ">=", "&&", "||",
	"+", "-", "*", "/", "%", "^", "<", ">", "!", "?", ":", ",", "(", ")", "[", "]",
}

type parser struct {
	text string
	tok  token // that is looked at
	pos  int   // behind it
}

// parse reads a formula. It goes no deeper than its text is long, which MaxLength bounds.
func parse(text string) (*node, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("expected at most %d octets, got %d", MaxLength, len(text))
	}
	p := parser{text: text}
	if err := p.next(); err != nil {
		return nil, err
	}
	n, err := p.expression(0)
	if err == nil && p.tok.kind != end {
		err = p.unexpected("an operator or the end")
	}
	return n, err
}

func at(column int, format string, args ...any) error {
	return fmt.Errorf("column %d: %s", column+1, fmt.Sprintf(format, args...))
}

func (p *parser) unexpected(want string) error {
	return at(p.tok.at, "expected %s, got %.40s", want, p.tok)
}

// next reads a token.
func (p *parser) next() error {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	p.tok = token{end, "", p.pos}
	rest := p.text[p.pos:]
	switch {
	case rest == "":
		return nil
	case digit(rest[0]) || rest[0] == '.' && len(rest) > 1 && digit(rest[1]):
		p.tok.kind, p.tok.text = number, numeral(rest)
	case letter(rest[0]):
		p.tok.kind, p.tok.text = word, rest[:run(rest, func(c byte) bool { return letter(c) || digit(c) })]
	default:
		i := slices.IndexFunc(signs, func(s string) bool { return strings.HasPrefix(rest, s) })
		if i < 0 {
			return at(p.pos, "expected a number, a name or an operator, got %q", []rune(rest)[0])
		}
		p.tok.kind, p.tok.text = sign, signs[i]
	}
	p.pos += len(p.tok.text)
	return nil
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }

// run is how many octets at the start of s are such ones.
func run(s string, such func(byte) bool) int {
	for i := range len(s) {
		if !such(s[i]) {
			return i
		}
	}
	return len(s)
}

// numeral is what s begins with that is meant as a number, whether it is one or not.
func numeral(s string) string {
	i := 0
	for i < len(s) {
		i += run(s[i:], func(c byte) bool { return digit(c) || letter(c) || c == '.' })
		// The sign of an exponent.
		if i == len(s) || s[i] != '+' && s[i] != '-' || s[i-1]|0x20 != 'e' || prefixed(s) {
			break
		}
		i++
	}
	return s[:i]
}

// prefixed tells whether a number is hexadecimal, octal or binary.
func prefixed(s string) bool {
	return len(s) > 1 && s[0] == '0' && strings.IndexByte("xob", s[1]|0x20) >= 0
}

// expression reads what is bound by operators at least that tightly.
func (p *parser) expression(least int) (*node, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	for p.tok.kind != number {
		op := p.tok
		tightly, ok := binding[op.text]
		if !ok || tightly < least {
			break
		}
		if err := p.next(); err != nil {
			return nil, err
		}
		behind := tightly + 1
		if op.text == "**" || op.text == "^" {
			behind = tightly // 2 ** 3 ** 2 is 2 ** 9
		}
		right, err := p.expression(behind)
		if err != nil {
			return nil, err
		}
		left = &node{kind: binaryNode, name: op.text, args: []*node{left, right}, at: op.at, from: left.from, to: right.to}
	}
	if least == 0 && p.tok.is("?") {
		return p.choice(left)
	}
	return left, nil
}

// choice reads what is behind a condition.
func (p *parser) choice(test *node) (*node, error) {
	n := &node{kind: choiceNode, args: []*node{test}, at: p.tok.at, from: test.from}
	if err := p.next(); err != nil {
		return nil, err
	}
	yes, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	no, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	n.args, n.to = append(n.args, yes, no), no.to
	return n, nil
}

func (p *parser) expect(text string) error {
	if !p.tok.is(text) {
		return p.unexpected(strconv.Quote(text))
	}
	return p.next()
}

// operand reads what is between operators.
func (p *parser) operand() (*node, error) {
	t := p.tok
	tightly, before := unary[t.text]
	switch {
	case before:
		if err := p.next(); err != nil {
			return nil, err
		}
		x, err := p.expression(tightly)
		if err != nil {
			return nil, err
		}
		return &node{kind: unaryNode, name: t.text, args: []*node{x}, at: t.at, from: t.at, to: x.to}, nil
	case t.is("("):
		if err := p.next(); err != nil {
			return nil, err
		}
		x, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		return x, p.expect(")")
	case t.kind == number:
		return p.literal()
	case t.kind == word && (t.text == "true" || t.text == "false"):
		n := &node{kind: truthNode, at: t.at, from: t.at, to: p.pos}
		if t.text == "true" {
			n.value = 1
		}
		return n, p.next()
	case t.kind == word && !slices.Contains(words, t.text):
		return p.named()
	}
	return nil, p.unexpected("a number or a name")
}

func (p *parser) literal() (*node, error) {
	n := &node{kind: literalNode, at: p.tok.at, from: p.tok.at, to: p.pos}
	text := strings.ToLower(strings.ReplaceAll(p.tok.text, "_", ""))
	var whole uint64
	var err error
	switch {
	case prefixed(text):
		whole, err = strconv.ParseUint(text, 0, 64)
	case strings.ContainsAny(text, ".e"):
		n.value, err = strconv.ParseFloat(text, 64)
	default:
		whole, err = strconv.ParseUint(text, 10, 64)
	}
	switch {
	case whole > maxWhole: // also where it is out of range
		return nil, at(n.at, "expected at most 2^53, got %.40s", p.tok.text)
	case errors.Is(err, strconv.ErrRange):
		return nil, at(n.at, "expected a finite number, got %.40s", p.tok.text)
	case err != nil:
		return nil, at(n.at, "expected a number, got %.40q", p.tok.text)
	}
	n.value += float64(whole)
	return n, p.next()
}

// named reads a variable, an element of a table or a call.
func (p *parser) named() (*node, error) {
	n := &node{kind: nameNode, name: p.tok.text, at: p.tok.at, from: p.tok.at, to: p.pos}
	if err := p.next(); err != nil {
		return nil, err
	}
	closing := "]"
	switch {
	case p.tok.is("["):
		n.kind = indexNode
	case p.tok.is("("):
		if _, ok := functions[n.name]; !ok {
			return nil, at(n.at, "%.40q is no function; expected one of %s", n.name, strings.Join(FunctionNames(), ", "))
		}
		n.kind, closing = callNode, ")"
	default:
		return n, nil
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	for n.kind == indexNode || !p.tok.is(closing) {
		x, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, x)
		if n.kind == indexNode || !p.tok.is(",") {
			break
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	n.to = p.pos
	return n, p.expect(closing)
}
