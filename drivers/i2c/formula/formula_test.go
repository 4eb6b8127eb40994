package formula_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"halo.internal/drivers/i2c/formula"
)

// scope has the variables a = 7, b = -2.5, zero = 0, none without a value, and the
// table t.
func scope(t testing.TB) (*formula.Scope, *formula.Frame) {
	t.Helper()
	var s formula.Scope
	for _, name := range []string{"a", "b", "zero", "none"} {
		if _, err := s.Variable(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Table("t", []float64{10, 20, 30}); err != nil {
		t.Fatal(err)
	}
	f := s.NewFrame()
	copy(f.Vars, []float64{7, -2.5, 0})
	return &s, f
}

func TestEval(t *testing.T) {
	for text, want := range map[string]float64{
		"1 + 2 * 3":                         7,
		"(1 + 2) * 3":                       9,
		"7 / 2":                             3.5,
		"a / 2":                             3.5,
		"-a % 4":                            -3, // the sign of what is divided
		"a % 2.5":                           2,
		"2 ** 10":                           1024,
		"2 ^ -1":                            0.5,
		"-b":                                2.5,
		"+a":                                7,
		"0x1F + 0b11":                       34,
		"1e3 + .5":                          1000.5,
		"1_000_000":                         1e6,
		"t[0] + t[2]":                       40,
		"t[a - 6]":                          20,
		"a > 5 ? 1 : 2":                     1,
		"a > 5 and b > 0 ? 1 : 2":           2,
		"not (a == 7) || b <= -2.5 ? 1 : 2": 1,
		"true ? a : b":                      7,
		"abs(b)":                            2.5,
		"floor(b)":                          -3,
		"ceil(b)":                           -2,
		"int(b)":                            -2,
		"round(b)":                          -3, // halves away from zero
		"min(a, b, 1)":                      -2.5,
		"max(a, b, 100)":                    100,
		"min(a)":                            7,
		"sqrt(a + 2)":                       3,
		"exp(0)":                            1,
		"log(exp(2))":                       2,
		"log10(1000)":                       3,
		"bitand(0xF0F, 0xFF)":               0x0F,
		"bitor(0xF0, 0x0F)":                 0xFF,
		"bitxor(0xFF, a)":                   0xF8,
		"bitshl(1, 52)":                     1 << 52,
		"bitshr(-8, 1)":                     -4,
		"bitand(-1, 0xFF)":                  0xFF,
		"9007199254740992":                  1 << 53,
		"zero == 0 ? 3 : 1 / zero":          3, // what is not taken is not computed
		"zero > 0 and 1 / zero > 0 ? 1 : 2": 2,
	} {
		t.Run(text, func(t *testing.T) {
			s, frame := scope(t)
			f, err := formula.Compile(text, s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Eval(frame)
			if err != nil || math.Abs(got-want) > 1e-12 {
				t.Errorf("expected %v, got %v, %v", want, got, err)
			}
		})
	}
}

func TestNoValue(t *testing.T) {
	for text, want := range map[string]string{
		"a / zero":             "column 3: division by zero",
		"1 / (1 / zero)":       "column 8: division by zero",
		"a % zero":             "division by zero",
		"none + 1":             "column 1: none has no value",
		"1e308 * a * 10":       "column 7: the result is not finite",
		"exp(a * 1000)":        "exp: the result is not finite",
		"sqrt(b)":              "square root of a number below 0",
		"log(zero)":            "logarithm",
		"t[a]":                 "expected an index of t from 0 to 2",
		"t[b]":                 "expected an index",
		"t[0.5 + zero]":        "expected an index",
		"b ** 0.5":             "not finite",
		"bitand(b, 1)":         "whole numbers",
		"bitshl(a, 52)":        "shifts",
		"bitshl(1, b)":         "shifts",
		"bitshr(a, 64)":        "shifts",
		"a / zero > 1 ? 1 : 2": "division by zero",
	} {
		t.Run(text, func(t *testing.T) {
			s, frame := scope(t)
			f, err := formula.Compile(text, s)
			if err != nil {
				if strings.Contains(err.Error(), want) {
					return // constant: refused from the start
				}
				t.Fatal(err)
			}
			got, err := f.Eval(frame)
			if err == nil || !strings.Contains(err.Error(), want) || !math.IsNaN(got) {
				t.Errorf("expected %q, got %v, %v", want, got, err)
			}
			if _, ok := errors.AsType[*formula.Error](err); !ok {
				t.Errorf("expected a *formula.Error, got %T", err)
			}
		})
	}
}

func TestMissingNamesTheVariable(t *testing.T) {
	s, frame := scope(t)
	f, err := formula.Compile("a + none", s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Eval(frame)
	if e, ok := errors.AsType[*formula.Error](err); !ok || s.Names()[e.Missing] != "none" {
		t.Errorf("expected none to be missing, got %v", err)
	}
	if got := f.Uses(); len(got) != 2 || got[0] != 0 || got[1] != 3 {
		t.Errorf("expected a and none to be used, got %v", got)
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("(", 400) + "1" + strings.Repeat(")", 400)
	for text, want := range map[string]string{
		"":                              "column 1: expected a number or a name, got the end",
		"a +":                           "column 4: expected a number or a name, got the end",
		"a b":                           `column 3: expected an operator or the end, got "b"`,
		"(a":                            `expected ")", got the end`,
		"a ? 1":                         `expected ":"`,
		"min(a b)":                      `expected ")", got "b"`,
		"1abc":                          `expected a number, got "1abc"`,
		"a + ä":                         `column 5: expected a number, a name or an operator, got 'ä'`,
		"c + 1":                         `column 1: "c" is not known here; expected one of [a b zero none]`,
		"a > 1":                         "expected a number",
		"'x'":                           "expected a number",
		"nil":                           "expected a number",
		"[1, 2]":                        "expected a number",
		"{a: 1}":                        "expected a number",
		"let x = 1; x":                  "expected a number",
		"1..3":                          "expected a number",
		"a ?? 1":                        "expected a number",
		"map([1], # + 1)":               "no function",
		"sum([1])":                      "no function",
		"filter(1..1000000, true)":      "no function",
		"repeat('a', 1000000000)":       "no function",
		"now()":                         "no function",
		"system(1)":                     `"system" is no function`,
		"a.b":                           "got '.'",
		"a[0]":                          "expected a table's name",
		"t[0:1]":                        `expected "]", got ":"`,
		"t?.x":                          "expected a number",
		"abs()":                         "expected 1 to 1 numbers, got 0",
		"abs(1, 2)":                     "expected 1 to 1 numbers, got 2",
		"min(1,2,3,4,5,6,7,8,9)":        "expected 1 to 8 numbers, got 9",
		"1 / 0":                         "division by zero",
		"t[3]":                          "index",
		"99999999999999999":             "expected at most 2^53",
		"1e999":                         "expected a finite number",
		"0xFFFFFFFFFFFFFFFFFF":          "expected at most 2^53",
		"true":                          "expected a number",
		"a matches 'x'":                 `expected an operator or the end, got "matches"`,
		"1 ? 2 : 3":                     "expected a condition",
		"a > 1 > 0":                     "expected a number",
		strings.Repeat("1+", 200) + "1": "expected at most 256 operations",
		strings.Repeat("a ", 1000):      "expected at most 1024 octets",
		deep + "+" + deep:               "",
	} {
		t.Run(text[:min(len(text), 30)], func(t *testing.T) {
			s, _ := scope(t)
			_, err := formula.Compile(text, s)
			if text == deep+"+"+deep {
				return // taken or refused: it must only end
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("expected %q, got %v", want, err)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	s, frame := scope(t)
	for text, want := range map[string]bool{
		"a > 5": true, "a >= 7 and a <= 7": true, "a != 7": false, "!(a < 5)": true, "false or a == 7": true, "b < -3 or zero > 0": false,
	} {
		c, err := formula.CompileCondition(text, s)
		if err != nil {
			t.Fatal(text, err)
		}
		if got, err := c.Eval(frame); err != nil || got != want {
			t.Errorf("%s: expected %v, got %v, %v", text, want, got, err)
		}
	}
	if _, err := formula.CompileCondition("a + 1", s); err == nil {
		t.Error("expected a number to be refused")
	}
	c, err := formula.CompileCondition("none > 1", s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Eval(frame); got || err == nil {
		t.Errorf("expected an error, got %v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	var s formula.Scope
	for _, bad := range []string{"", "1a", "a-b", "and", "min", "true", "let", strings.Repeat("a", 33), "ä"} {
		if _, err := s.Variable(bad); err == nil {
			t.Errorf("expected %q to be refused", bad)
		}
	}
	if _, err := s.Variable("x"); err != nil {
		t.Fatal(err)
	}
	if err := s.Table("x", []float64{1}); err == nil {
		t.Error("expected a name to be refused that is there already")
	}
	for name, numbers := range map[string][]float64{"empty": nil, "long": make([]float64, 257), "inf": {math.Inf(1)}} {
		if err := s.Table(name, numbers); err == nil {
			t.Errorf("expected table %s to be refused", name)
		}
	}
}

func TestEvalTakesNoMemory(t *testing.T) {
	s, frame := scope(t)
	f, err := formula.Compile("min(max(a * b / (zero + 3) + t[1], -100), 100) ** 2", s)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := f.Eval(frame); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("expected no allocation, got %v", n)
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"a / zero", "t[a] ** b % 2", "a > 1 ? min(a, b) : bitshl(1, a)", "((((1", "let x = a; x", "#", "a | abs()", "'", "`", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, frame := scope(t)
		compiled, err := formula.Compile(text, s)
		if err != nil {
			return
		}
		v, err := compiled.Eval(frame)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("%q is %v without an error", text, v)
		}
		if err != nil && !math.IsNaN(v) {
			t.Errorf("%q is %v with %v", text, v, err)
		}
	})
}
