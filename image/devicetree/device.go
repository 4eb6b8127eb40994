package devicetree

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Device is an enabled device of a tree.
type Device struct {
	Path     string
	Modalias string   // as the kernel makes it, for drivers to be found by
	Needs    []string // paths of the devices without which it does not work
	Slot     bool     // a slot for a memory card
}

// Devices returns the devices of a tree that are enabled, in its order.
func Devices(root *Node) []Device {
	parents, handles := map[*Node]*Node{}, map[uint32]*Node{}
	var enabled []*Node
	walk(root, func(n, parent *Node) {
		enabled = append(enabled, n)
		parents[n] = parent
		if h := n.Cells("phandle"); len(h) == 1 {
			handles[h[0]] = n
		}
	})
	// device is the device that a node is, or is a part of.
	device := func(n *Node) *Node {
		for n != nil && n != root && len(n.Strings("compatible")) == 0 {
			n = parents[n]
		}
		return n
	}
	var list []Device
	for _, n := range enabled {
		if n == root || device(n) != n {
			continue
		}
		d := Device{Path: n.Path, Modalias: modalias(n), Slot: slot(n)}
		for _, to := range append(references(n, handles), parents[n]) {
			if to = device(to); to != nil && to != root && to != n && !slices.Contains(d.Needs, to.Path) {
				d.Needs = append(d.Needs, to.Path)
			}
		}
		slices.Sort(d.Needs)
		list = append(list, d)
	}
	return list
}

// walk calls f for each enabled node below n, and n. What is below a disabled
// node is disabled with it.
func walk(n *Node, f func(n, parent *Node)) {
	var visit func(n, parent *Node)
	visit = func(n, parent *Node) {
		if s := n.Strings("status"); len(s) > 0 && s[0] != "okay" && s[0] != "ok" {
			return
		}
		f(n, parent)
		for _, c := range n.Children {
			visit(c, n)
		}
	}
	visit(n, nil)
}

// modalias spells a node as the kernel does: of:N<name>T<type>C<compatible>….
func modalias(n *Node) string {
	name, _, _ := strings.Cut(path.Base(n.Path), "@")
	kind := "(null)"
	if t := n.Strings("device_type"); len(t) > 0 {
		kind = t[0]
	}
	return strings.ReplaceAll("of:N"+name+"T"+kind+"C"+strings.Join(n.Strings("compatible"), "C"), " ", "_")
}

// slot tells a slot for a memory card from one that a radio is soldered to: the
// tree describes that radio.
func slot(n *Node) bool {
	described := func(c *Node) bool { return len(c.Strings("compatible")) > 0 }
	return strings.HasPrefix(path.Base(n.Path), "mmc@") && !slices.ContainsFunc(n.Children, described)
}

// forms are the properties that name other nodes, each name followed by as many
// cells as the named node says.
var forms = []struct {
	property *regexp.Regexp
	cells    string
}{
	{regexp.MustCompile(`-supply$|^pinctrl-[0-9]+$|^mmc-pwrseq$|^interrupt-parent$`), ""},
	{regexp.MustCompile(`^clocks$`), "#clock-cells"},
	{regexp.MustCompile(`^dmas$`), "#dma-cells"},
	{regexp.MustCompile(`^power-domains$`), "#power-domain-cells"},
	{regexp.MustCompile(`^resets$`), "#reset-cells"},
	{regexp.MustCompile(`^mboxes$`), "#mbox-cells"},
	{regexp.MustCompile(`^phys$`), "#phy-cells"},
	{regexp.MustCompile(`^(.*-)?gpios?$`), "#gpio-cells"},
	{regexp.MustCompile(`^interrupts-extended$`), "#interrupt-cells"},
}

// references returns the nodes that a node names.
func references(n *Node, handles map[uint32]*Node) []*Node {
	var nodes []*Node
	for name := range n.Properties {
		for _, f := range forms {
			if !f.property.MatchString(name) {
				continue
			}
			for cells := n.Cells(name); len(cells) > 0; {
				to := handles[cells[0]]
				if to == nil { // disabled, or a number after all
					break
				}
				nodes = append(nodes, to)
				skip := uint64(1)
				if c := to.Cells(f.cells); len(c) == 1 {
					skip += uint64(c[0])
				}
				cells = cells[min(skip, uint64(len(cells))):]
			}
		}
	}
	return nodes
}
