package strict

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Positions tells where in a TOML file each key is, by its path:
// measure[2].until.limit.
type Positions struct {
	text    []byte
	offsets map[string]int // of keys, in octets
	arrays  map[string]int // how many tables of each array have begun
}

// Locate finds all keys of a file. What can't be parsed ends it early: the decoder
// says what is wrong there.
func Locate(text []byte) *Positions {
	p := &Positions{text, map[string]int{}, map[string]int{}}
	var parser unstable.Parser
	parser.Reset(text)
	prefix := ""
	for parser.NextExpression() {
		switch e := parser.Expression(); e.Kind {
		case unstable.Table:
			prefix = p.walk("", e.Key())
		case unstable.ArrayTable:
			prefix = p.begin(e.Key())
		case unstable.KeyValue:
			p.entry(prefix, e)
		}
	}
	return p
}

// walk follows a dotted key, and into the latest table of each array.
func (p *Positions) walk(path string, key unstable.Iterator) string {
	for key.Next() {
		path = Join(path, string(key.Node().Data))
		if n := p.arrays[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1)
		}
		p.note(path, key.Node())
	}
	return path
}

// begin starts a table of an array.
func (p *Positions) begin(key unstable.Iterator) string {
	path := ""
	for key.Next() {
		path = Join(path, string(key.Node().Data))
		if key.IsLast() {
			p.arrays[path]++
		}
		p.note(path, key.Node())
		if n := p.arrays[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1)
		}
		p.note(path, key.Node())
	}
	return path
}

func (p *Positions) entry(prefix string, e *unstable.Node) {
	p.value(p.walk(prefix, e.Key()), e.Value())
}

// maxDepth is deeper than any key of a file; what is nested deeper would only
// make paths long.
const maxDepth = 8

func (p *Positions) value(path string, v *unstable.Node) {
	if strings.Count(path, ".")+strings.Count(path, "[") > maxDepth {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		for c := v.Children(); c.Next(); {
			if c.Node().Kind == unstable.KeyValue {
				p.entry(path, c.Node())
			}
		}
	case unstable.Array:
		i := 0
		for c := v.Children(); c.Next(); {
			if c.Node().Kind == unstable.Comment {
				continue
			}
			at := fmt.Sprintf("%s[%d]", path, i)
			p.note(at, c.Node())
			p.value(at, c.Node())
			i++
		}
	}
}

func (p *Positions) note(path string, n *unstable.Node) {
	if _, ok := p.offsets[path]; !ok && n.Raw.Length > 0 {
		p.offsets[path] = int(n.Raw.Offset)
	}
}

// Join is the path of a key of a table.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Offset is where a key is, or what it would be in; 0 where that is not there either.
func (p *Positions) Offset(path string) int {
	for path != "" {
		if o, ok := p.offsets[path]; ok {
			return o
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// Line is that of a key, or of what it would be in, from 1.
func (p *Positions) Line(path string) int {
	return 1 + bytes.Count(p.text[:p.Offset(path)], []byte("\n"))
}

// path is what begins in a line and column, from 1; empty where nothing does.
func (p *Positions) path(line, column int) string {
	offset := 0
	for range line - 1 {
		offset += 1 + bytes.IndexByte(p.text[offset:], '\n')
	}
	offset += column - 1
	longest := ""
	for path, o := range p.offsets {
		if o == offset && len(path) > len(longest) {
			longest = path
		}
	}
	return longest
}
