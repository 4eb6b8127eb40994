package topology

import (
	"cmp"
	"slices"

	"halo.internal/model/dot11"

	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// owner is whose an address is.
type owner struct {
	node  int32
	iface int8 // index in the node's report; nobody where it is not known
	rank  uint8
	twice bool // others of the same rank say that it is theirs
}

// claim finds out whose each hardware address is: the node's that says so. A fresh
// report counts before a late one, and that before one that is long past, since a
// radio may have been plugged into another node meanwhile; what it joined with counts
// least. Of two nodes that say so equally lately neither is believed.
func (d *drawing) claim() {
	d.owners, d.conflicts = make(map[dot11.MAC]owner, 4*len(d.members)), map[dot11.MAC][]int32{}
	ranks := []graph.Freshness{graph.Fresh, graph.Late, graph.Silent}
	for rank, fresh := range ranks {
		for i, r := range d.reports {
			if r == nil || d.fresh[i] != fresh {
				continue
			}
			for k, iface := range r.report.Interfaces {
				for _, a := range iface.Addresses {
					d.claimed(a, owner{node: int32(i), iface: int8(k), rank: uint8(rank)})
				}
			}
		}
	}
	for i, m := range d.members {
		for _, a := range m.Addresses {
			d.claimed(a, owner{node: int32(i), iface: nobody, rank: uint8(len(ranks))})
		}
	}
}

func (d *drawing) claimed(a dot11.MAC, by owner) {
	was, known := d.owners[a]
	switch {
	case !known:
		d.owners[a] = by
	case was.node == by.node || was.rank < by.rank:
		// A bridge has its port's address; of those with less to say nobody asks.
	default:
		if !was.twice {
			was.twice = true
			d.owners[a] = was
			d.dispute(a, was.node)
		}
		d.dispute(a, by.node)
	}
}

// dispute notes that a node is said to have an address that another has too.
func (d *drawing) dispute(a dot11.MAC, node int32) {
	if list, known := d.conflicts[a]; (known || len(d.conflicts) < graph.MaxConflicts) && !slices.Contains(list, node) {
		d.conflicts[a] = append(list, node)
	}
}

// whose tells which node has an address, of which the reporter may say that it is the
// node hint's: that counts where nobody claims the address himself. Where the two
// differ although the reporter has had the node prove who it is, the reporter's word
// counts for nothing, and the others' goes on: a liar may not take links from others.
// known is false when nothing is said of the address.
func (d *drawing) whose(a dot11.MAC, hint string, proven bool) (o owner, known bool) {
	said, isMember := d.index[hint]
	if a != (dot11.MAC{}) {
		if o, claimed := d.owners[a]; claimed {
			if o.twice {
				return owner{node: nobody}, true
			}
			if isMember && proven && said != o.node {
				d.dispute(a, o.node)
				d.dispute(a, said)
				return owner{node: nobody}, true
			}
			return o, true
		}
	}
	if isMember {
		return owner{node: said, iface: nobody}, true
	}
	return owner{node: nobody}, false
}

func (d *drawing) conflicted() []graph.Conflict {
	list := make([]graph.Conflict, 0, len(d.conflicts))
	for a, nodes := range d.conflicts {
		list = append(list, graph.Conflict{Address: a, Nodes: d.named(nodes)})
	}
	order.By(list, func(a, b graph.Conflict) int { return slices.Compare(a.Address[:], b.Address[:]) })
	return list
}

// stranger is somebody who is no member, and to whom two members have links.
type stranger struct {
	id        string
	addresses []dot11.MAC
	seen      []int32 // members
}

// strangersOf takes those who are seen by two reporters at least, the most seen first
// where there are too many, and returns their numbers.
func (d *drawing) strangersOf(seen map[string]*stranger) map[string]int32 {
	for _, s := range seen {
		slices.Sort(s.seen)
		if s.seen = slices.Compact(s.seen); len(s.seen) > 1 {
			d.strangers = append(d.strangers, *s)
		}
	}
	order.By(d.strangers, func(a, b stranger) int {
		return cmp.Or(cmp.Compare(len(b.seen), len(a.seen)), cmp.Compare(a.id, b.id))
	})
	d.strangers = d.strangers[:min(len(d.strangers), graph.MaxStrangers)]
	order.By(d.strangers, func(a, b stranger) int { return cmp.Compare(a.id, b.id) })
	numbers := make(map[string]int32, len(d.strangers))
	for i, s := range d.strangers {
		numbers[s.id] = int32(len(d.members) + i)
	}
	return numbers
}
