package devicetree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Node is a node of a device tree.
type Node struct {
	Path       string // from the root, e.g. /soc/mmc@7e300000
	Properties map[string][]byte
	Children   []*Node
}

// Tokens of a blob's structure block, as the Devicetree Specification (chapter
// 5, "Flattened Devicetree Format") numbers them.
const (
	magic     = 0xd00dfeed
	beginNode = 1
	endNode   = 2
	property  = 3
	nop       = 4
)

// maxDepth is deeper than any device tree, and shallow enough to recurse.
const maxDepth = 64

// Parse reads a blob.
func Parse(blob []byte) (*Node, error) {
	const header = 40
	if len(blob) < header || binary.BigEndian.Uint32(blob) != magic {
		return nil, errors.New("expected a device tree blob")
	}
	word := func(n int) uint64 { return uint64(binary.BigEndian.Uint32(blob[4*n:])) }
	part := func(at, size uint64) ([]byte, error) {
		if at+size > uint64(len(blob)) {
			return nil, fmt.Errorf("device tree: expected a block of %d octets at %d, got %d octets in all", size, at, len(blob))
		}
		return blob[at : at+size], nil
	}
	names, err := part(word(3), word(8))
	if err != nil {
		return nil, err
	}
	structure, err := part(word(2), word(9))
	if err != nil {
		return nil, err
	}
	r := &reader{structure, names}
	if t, err := r.token(); err != nil || t != beginNode {
		return nil, errors.Join(errors.New("device tree: expected a root node"), err)
	}
	if _, err := r.name(); err != nil {
		return nil, err
	}
	return r.node("/", 0)
}

// reader consumes a structure block.
type reader struct{ rest, names []byte }

var errShort = errors.New("device tree: ends early")

func (r *reader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.rest) {
		return nil, errShort
	}
	b := r.rest[:n]
	r.rest = r.rest[min((n+3)&^3, len(r.rest)):]
	return b, nil
}

func (r *reader) word() (uint32, error) {
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

func (r *reader) token() (uint32, error) {
	for {
		if t, err := r.word(); err != nil || t != nop {
			return t, err
		}
	}
}

func (r *reader) name() (string, error) {
	n := bytes.IndexByte(r.rest, 0)
	b, err := r.take(n + 1)
	if n < 0 || err != nil {
		return "", errShort
	}
	return string(b[:n]), nil
}

// node reads what follows a node's name.
func (r *reader) node(path string, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("device tree: expected at most %d levels", maxDepth)
	}
	n := &Node{Path: path, Properties: map[string][]byte{}}
	for {
		t, err := r.token()
		if err != nil {
			return nil, err
		}
		switch t {
		case property:
			name, value, err := r.property()
			if err != nil {
				return nil, err
			}
			n.Properties[name] = value
		case beginNode:
			name, err := r.name()
			if err != nil {
				return nil, err
			}
			child, err := r.node(strings.TrimSuffix(path, "/")+"/"+name, depth+1)
			if err != nil {
				return nil, err
			}
			n.Children = append(n.Children, child)
		case endNode:
			return n, nil
		default:
			return nil, fmt.Errorf("device tree: unexpected token %d in %s", t, path)
		}
	}
}

func (r *reader) property() (string, []byte, error) {
	size, err := r.word()
	if err != nil {
		return "", nil, err
	}
	at, err := r.word()
	if err != nil {
		return "", nil, err
	}
	value, err := r.take(int(size))
	if err != nil {
		return "", nil, err
	}
	if uint64(at) > uint64(len(r.names)) {
		return "", nil, errShort
	}
	name, _, ok := bytes.Cut(r.names[at:], []byte{0})
	if !ok {
		return "", nil, errShort
	}
	return string(name), value, nil
}

// Strings returns a property that is a list of strings.
func (n *Node) Strings(name string) []string {
	if len(n.Properties[name]) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(n.Properties[name]), "\x00"), "\x00")
}

// Cells returns a property that is a list of numbers.
func (n *Node) Cells(name string) []uint32 {
	b := n.Properties[name]
	cells := make([]uint32, len(b)/4)
	for i := range cells {
		cells[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return cells
}
