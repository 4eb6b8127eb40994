package i2c

import (
	"errors"
	"fmt"
	"slices"

	"halo.internal/model/strict"
)

// MaxTemplate is what a template may have, in octets.
const MaxTemplate = 32 << 10

// Problem is one thing that is wrong in a template.
type Problem = strict.Problem

// Parse reads a template. The name of its file is used in errors, which are
// *Problem, joined where there are several.
func Parse(file string, text []byte) (*Template, error) {
	t, problems := parse(file, text)
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = p
		}
		return nil, errors.Join(errs...)
	}
	return t, nil
}

func parse(file string, text []byte) (*Template, []*Problem) {
	c, problems := compile(file, text)
	if len(problems) > 0 {
		return nil, problems
	}
	return c.t, nil
}

// compile returns what a template was compiled with, or what is wrong.
func compile(file string, text []byte) (*compiler, []*Problem) {
	if len(text) > MaxTemplate {
		return nil, []*Problem{{File: file, Text: fmt.Sprintf("expected at most %d octets, got %d", MaxTemplate, len(text))}}
	}
	var said templateText
	if problems := strict.Decode(file, text, &said); len(problems) > 0 {
		return nil, problems
	}
	c := newCompiler(file, text)
	c.template(&said)
	slices.SortStableFunc(c.problems, func(a, b *Problem) int { return a.Line - b.Line })
	return c, c.problems
}
