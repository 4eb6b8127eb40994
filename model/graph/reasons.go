package graph

import "fmt"

// Code says why points are lacking.
type Code string

// Codes of reasons.
const (
	DeadEnd        Code = "dead_end"         // no way to the gateway: it ends at Node
	Loop           Code = "loop"             // nor here: next hops lead in a circle of Value nodes, which it enters at Node
	Alone          Code = "alone"            // of the gateway: it has live links to nobody
	WeakSignal     Code = "weak_signal"      // of the link to Node, whose quality is Value
	Losses         Code = "losses"           // likewise
	LowTQ          Code = "low_tq"           // likewise
	OneWayLink     Code = "one_way_link"     // the link to Node is reported by one end, and the other denies it
	UnknownLink    Code = "unknown_link"     // nothing recent is known of the link to Node
	ManyHops       Code = "hops"             // Value hops to the gateway
	SingleLink     Code = "single_link"      // the link to Node's side is the only one
	BehindNode     Code = "behind_node"      // the loss of Node cuts it off
	VitalNode      Code = "vital"            // its loss cuts off Value nodes
	OverlayIsOld   Code = "overlay_old"      // the session with Node is past its time
	OverlayIsDown  Code = "overlay_down"     // there is none; of the gateway: with Value nodes
	OverlayUnheard Code = "overlay_unknown"  // neither end has reported lately
	LateReport     Code = "late_report"      // its last report came more than FreshFor ago
	NoReport       Code = "no_report"        // none came within SilentAfter
	NextHopChanges Code = "next_hop_changes" // Value of them within the last hour
)

// Codes are all there are, in the order in which they are stored: new ones go to the end.
var Codes = [...]Code{DeadEnd, Loop, Alone, WeakSignal, Losses, LowTQ, OneWayLink, UnknownLink, ManyHops, SingleLink, BehindNode, VitalNode,
	OverlayIsOld, OverlayIsDown, OverlayUnheard, LateReport, NoReport, NextHopChanges}

// Reason is why a score is not 100.
type Reason struct {
	Code  Code   `json:"code" enum:"dead_end,loop,alone,weak_signal,losses,low_tq,one_way_link,unknown_link,hops,single_link,behind_node,vital,overlay_old,overlay_down,overlay_unknown,late_report,no_report,next_hop_changes"`
	Lost  int    `json:"lost" example:"8" doc:"points of 100"`
	Node  string `json:"node,omitempty" doc:"the other node that it is about"`
	Value int    `json:"value,omitempty" example:"72" doc:"what was measured or counted; of the network: nodes of which it is so"`
}

// String is the reason of a node for people. name gives nodes the names that people
// gave them.
func (r Reason) String() string { return r.Text(func(id string) string { return id }) }

// Text is String with other names for the nodes.
func (r Reason) Text(name func(id string) string) string {
	node := name(r.Node)
	switch r.Code {
	case DeadEnd:
		return fmt.Sprintf("no way to the gateway: it ends at %s", node)
	case Loop:
		return fmt.Sprintf("no way to the gateway: from %s on the next hops lead in a circle of %s", node, count(r.Value, "node"))
	case Alone:
		return "no live link to any node"
	case WeakSignal:
		return fmt.Sprintf("weak signal on the link to %s: quality %d of 100", node, r.Value)
	case Losses:
		return fmt.Sprintf("frames are lost on the link to %s: quality %d of 100", node, r.Value)
	case LowTQ:
		return fmt.Sprintf("routing finds the link to %s lossy: quality %d of 100", node, r.Value)
	case OneWayLink:
		return fmt.Sprintf("the link to %s is seen from one end alone: quality %d of 100", node, r.Value)
	case UnknownLink:
		return fmt.Sprintf("nothing recent is known of the link to %s", node)
	case ManyHops:
		return fmt.Sprintf("%s to the gateway", count(r.Value, "hop"))
	case SingleLink:
		return fmt.Sprintf("one link, to %s, is its only connection", node)
	case BehindNode:
		return fmt.Sprintf("it is cut off when %s fails", node)
	case VitalNode:
		return fmt.Sprintf("its failure cuts off %s", count(r.Value, "node"))
	case OverlayIsOld:
		return fmt.Sprintf("the encrypted session with %s was not renewed", node)
	case OverlayIsDown:
		if r.Node == "" {
			return fmt.Sprintf("no fresh encrypted session with %s", count(r.Value, "node"))
		}
		return fmt.Sprintf("no encrypted session with %s", node)
	case OverlayUnheard:
		return "whether there is an encrypted session is not known"
	case LateReport:
		return fmt.Sprintf("its last report is more than %v old", FreshFor)
	case NoReport:
		return fmt.Sprintf("no report for %v", SilentAfter)
	case NextHopChanges:
		return fmt.Sprintf("its next hop changed %s within an hour", count(r.Value, "time"))
	}
	return string(r.Code)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
