package i2c

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// MaxTemplate is what a template may have, in octets.
const MaxTemplate = 32 << 10

// Problem is one thing that is wrong in a template.
type Problem struct {
	File string
	Line int    // from 1; 0 where it is of the file as a whole
	Key  string // path such as measure[2].until; empty where it is of no key
	Text string
}

func (p *Problem) Error() string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Key != "" {
		at += ": " + p.Key
	}
	return at + ": " + p.Text
}

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
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&said); err != nil {
		return nil, decodeProblems(file, text, err)
	}
	c := newCompiler(file, text)
	c.template(&said)
	slices.SortStableFunc(c.problems, func(a, b *Problem) int { return a.Line - b.Line })
	return c, c.problems
}

// decodeProblems says what the TOML decoder found, with what was expected.
func decodeProblems(file string, text []byte, err error) []*Problem {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		at := locate(text)
		var problems []*Problem
		for _, e := range strict.Errors {
			row, column := e.Position()
			path := at.path(row, column)
			table := path[:max(strings.LastIndexByte(path, '.'), 0)]
			problems = append(problems, &Problem{file, row, table,
				fmt.Sprintf("unknown key %.40q; expected one of %s", e.Key()[len(e.Key())-1], strings.Join(keysOf(table), ", "))})
		}
		return problems
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := bad.Position()
		return []*Problem{{file, row, strings.Join(bad.Key(), "."), strings.TrimPrefix(bad.Error(), "toml: ")}}
	}
	return []*Problem{{File: file, Text: err.Error()}}
}

// keysOf are the keys that a table of a template may have.
func keysOf(path string) []string {
	t := reflect.TypeFor[templateText]()
	for key := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' }) {
		key, _, _ = strings.Cut(key, "[")
		t = child(t, key)
		for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer) {
			t = t.Elem()
		}
	}
	var keys []string
	if t != nil && t.Kind() == reflect.Struct {
		for f := range t.Fields() {
			keys = append(keys, f.Tag.Get("toml"))
		}
	}
	return keys
}

func child(t reflect.Type, key string) reflect.Type {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		for f := range t.Fields() {
			if f.Tag.Get("toml") == key {
				return f.Type
			}
		}
	}
	return nil
}
