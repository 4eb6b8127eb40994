// Package strict reads TOML files that people write: a key that nobody knows, a value
// of another type, and one that makes no sense are each said with file, line and key,
// and with what may stand there.
package strict

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Problem is one thing that is wrong in a file.
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

// Errors makes one error of problems; nil of none.
func Errors(problems []*Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// Decode reads a file into a struct, to which said points, and returns what is wrong
// with its form: syntax, types, and keys that the struct has no field for.
func Decode(file string, text []byte, said any) []*Problem {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(said)
	if err == nil {
		return nil
	}
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		at := Locate(text)
		var problems []*Problem
		for _, e := range missing.Errors {
			row, column := e.Position()
			path := at.path(row, column)
			table := path[:max(strings.LastIndexByte(path, '.'), 0)]
			problems = append(problems, &Problem{file, row, table,
				fmt.Sprintf("unknown key %.40q; expected one of %s", e.Key()[len(e.Key())-1], strings.Join(keysOf(reflect.TypeOf(said), table), ", "))})
		}
		return problems
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := bad.Position()
		return []*Problem{{file, row, strings.Join(bad.Key(), "."), strings.TrimPrefix(bad.Error(), "toml: ")}}
	}
	return []*Problem{{File: file, Text: err.Error()}}
}

// keysOf are the keys that the table at a path may have.
func keysOf(t reflect.Type, path string) []string {
	t = element(t)
	for key := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' }) {
		key, _, _ = strings.Cut(key, "[")
		t = element(child(t, key))
	}
	return fields(t)
}

func element(t reflect.Type) reflect.Type {
	for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer) {
		t = t.Elem()
	}
	return t
}

var readsText = reflect.TypeFor[encoding.TextUnmarshaler]()

func fields(t reflect.Type) (keys []string) {
	if t == nil || t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(readsText) {
		return nil
	}
	for f := range t.Fields() {
		if f.Anonymous && f.Tag.Get("toml") == "" {
			keys = append(keys, fields(element(f.Type))...)
		} else if key := keyOf(f); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	if key == "-" {
		return ""
	}
	return key
}

func child(t reflect.Type, key string) reflect.Type {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		for f := range t.Fields() {
			if f.Anonymous && f.Tag.Get("toml") == "" {
				if c := child(element(f.Type), key); c != nil {
					return c
				}
			} else if keyOf(f) == key {
				return f.Type
			}
		}
	}
	return nil
}
