// Package graph is the network's picture as the gateway tells it: which nodes there
// are, the links between them with their quality both ways, the routes to the gateway,
// what would be cut off by whose loss, how healthy all that is and why, and what changed
// from one picture to another. gateway/topology draws it; docs/topology.md says what the
// numbers mean.
package graph

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
)

// Bounds of a picture. What is beyond is left out.
const (
	MaxNodes     = 512 // members
	MaxStrangers = 64
	MaxConflicts = 64
	MaxNamed     = 32 // nodes that a cut, a loop or a conflict names; it counts them all
)

// Picture is the network at an instant. All lists are sorted by their keys.
type Picture struct {
	Run       uint64     `json:"run" example:"4711" doc:"which life of the gateway's process made it"`
	Seq       uint64     `json:"seq" example:"1042" doc:"number of the picture in that run, from 1"`
	At        time.Time  `json:"at"`
	Gateway   string     `json:"gateway" example:"n-abcdefghij2345abcdef" doc:"canonical ID"`
	Score     int        `json:"score" example:"87" minimum:"0" maximum:"100" doc:"health of the network"`
	Reasons   []Reason   `json:"reasons" doc:"points that its nodes lack on average, the most first"`
	Nodes     []Node     `json:"nodes"`
	Links     []Link     `json:"links"`
	Routes    []Route    `json:"routes" doc:"of each node but the gateway, to the gateway"`
	Cuts      []Cut      `json:"cuts" doc:"nodes and links whose loss splits the network"`
	Conflicts []Conflict `json:"conflicts" doc:"hardware addresses that more than one node is said to have: they count as nobody's"`
}

// Kind of a node.
type Kind string

// Kinds.
const (
	KindGateway  Kind = "gateway"
	KindNode     Kind = "node"
	KindStranger Kind = "stranger" // no member; two reporters at least have a link to it
)

// Freshness is how recent a node's own report is, or whether the node still says
// anything, if that is worse.
type Freshness string

// Freshness, best first.
const (
	Fresh  Freshness = "fresh"  // at most FreshFor old
	Late   Freshness = "late"   // at most SilentAfter old
	Silent Freshness = "silent" // older
	Never  Freshness = "never"  // there has been none
)

// When what a node says loses its worth, of one that says something every minute.
const (
	FreshFor    = 150 * time.Second // two reports a minute apart may be lost
	SilentAfter = 10 * time.Minute
)

// Overlay is how a node's encrypted session with the gateway stands.
type Overlay string

// States of a session, best first.
const (
	OverlayUp      Overlay = "up"
	OverlayOld     Overlay = "old"     // it is past its time, and was there a moment ago
	OverlayDown    Overlay = "down"    // or there never was one
	OverlayUnknown Overlay = "unknown" // neither end has reported lately
)

// Node is a device of the network.
type Node struct {
	ID         string      `json:"id" example:"n-bcdefghij2345abcdefg" doc:"canonical ID; of a stranger the hardware address that is seen"`
	Name       string      `json:"name,omitempty" example:"mast"`
	Kind       Kind        `json:"kind" enum:"gateway,node,stranger"`
	Report     Freshness   `json:"report" enum:"fresh,late,silent,never"`
	Heard      time.Time   `json:"heard,omitzero" doc:"when its last report came"`
	Addresses  []dot11.MAC `json:"addresses" doc:"hardware addresses that it has, as it says itself"`
	Neighbours int         `json:"neighbours" example:"3" doc:"nodes that it has live links to"`
	Overlay    Overlay     `json:"overlay" enum:"up,old,down,unknown" doc:"session with the gateway; of the gateway: with half of the nodes at least"`
	Direct     int         `json:"direct_peers" example:"2" doc:"other nodes that it has sessions with directly; a node tells of 15 at most"`
	NextHops   int         `json:"next_hop_changes" example:"1" doc:"how often its next hop to the gateway changed within the last hour"`
	Score      int         `json:"score" example:"82" minimum:"0" maximum:"100" doc:"health; a stranger has none"`
	Reasons    []Reason    `json:"reasons" doc:"why the score is not 100, the most points first: they add up"`
}

// LinkID names a link: two nodes, the lower ID first, and what it goes over.
type LinkID struct {
	A         string          `json:"a" example:"n-abcdefghij2345abcdef"`
	B         string          `json:"b" example:"n-bcdefghij2345abcdefg"`
	Transport model.Transport `json:"transport" enum:"halow,wifi,ethernet"`
}

// String returns e.g. "n-a… wifi n-b…".
func (l LinkID) String() string { return l.A + " " + string(l.Transport) + " " + l.B }

// Compare orders links by their nodes, then by what they go over.
func (l LinkID) Compare(o LinkID) int {
	if c := strings.Compare(l.A, o.A); c != 0 {
		return c
	}
	if c := strings.Compare(l.B, o.B); c != 0 {
		return c
	}
	return strings.Compare(string(l.Transport), string(o.Transport))
}

// PerfectCost is that of a link of quality 100 both ways.
const PerfectCost = 1000

// Limit is what keeps the quality of a direction below 100.
type Limit string

// Limits.
const (
	LimitSignal  Limit = "signal"
	LimitLoss    Limit = "loss" // repetitions and frames given up
	LimitTQ      Limit = "tq"   // routing's own measure
	LimitUnknown Limit = "unknown"
)

// LinkState is whether a link stands.
type LinkState string

// States of a link, best first.
const (
	Live   LinkState = "live"    // both ends say so, or one where the other has not reported lately
	OneWay LinkState = "one_way" // one end says so, and the other has reported without it
	Stale  LinkState = "stale"   // what is known of it is past its time
)

// Link is what two nodes have between them over one transport.
type Link struct {
	LinkID
	State    LinkState `json:"state" enum:"live,one_way,stale"`
	Parallel int       `json:"parallel" example:"1" doc:"pairs of interfaces that it stands on; the best is described"`
	Quality  int       `json:"quality" example:"84" minimum:"0" maximum:"100" doc:"of the worse direction"`
	Cost     int       `json:"cost" example:"1293" doc:"transmissions that a frame and its answer take, in thousandths: 1000 is a perfect link"`
	AB       Direction `json:"ab,omitzero" doc:"from A to B, as A sees it; absent where A does not report it"`
	BA       Direction `json:"ba,omitzero" doc:"from B to A, as B sees it"`
}

// Direction is one end's view of a link. What is not known is zero.
type Direction struct {
	Iface         string `json:"iface" example:"mesh0" doc:"of the end that sees it so"`
	FreqKHz       int    `json:"freq_khz,omitempty" example:"924000"`
	WidthKHz      int    `json:"width_khz,omitempty" example:"1000"`
	Quality       int    `json:"quality" example:"84" minimum:"0" maximum:"100"`
	Limit         Limit  `json:"limit,omitempty" enum:"signal,loss,tq,unknown" doc:"what keeps the quality below 100"`
	SignalDBm     int    `json:"signal_dbm,omitempty" example:"-72"`
	TxKbps        int    `json:"tx_kbps,omitempty" example:"600"`
	RxKbps        int    `json:"rx_kbps,omitempty" example:"900"`
	ExpectedKbps  int    `json:"expected_kbps,omitempty" example:"480"`
	TQ            int    `json:"tq,omitempty" example:"231"`
	RetryPermille int    `json:"retry_permille,omitempty" example:"85"`
	FailPermille  int    `json:"fail_permille,omitempty" example:"2"`
}

// RouteState is whether a node has a way to the gateway.
type RouteState string

// States of a route.
const (
	RouteOK      RouteState = "ok"
	RouteLoop    RouteState = "loop"     // next hops lead in a circle
	RouteDeadEnd RouteState = "dead_end" // they lead to a node that has none
)

// Why a route ends where it does.
const (
	EndNoWay      = "no_way"      // the node at the end says that routing knows no way to the gateway
	EndNoReport   = "no_report"   // it has not reported lately, and no live links lead on
	EndUnknownHop = "unknown_hop" // its next hop is nobody's known address, and no live links lead on
	EndGatewayOff = "no_gateway"  // no member is the gateway
)

// Route is how a node's frames reach the gateway. Path follows it hop by hop.
type Route struct {
	Node      string          `json:"node" example:"n-bcdefghij2345abcdefg"`
	State     RouteState      `json:"state" enum:"ok,loop,dead_end"`
	Next      string          `json:"next,omitempty" example:"n-abcdefghij2345abcdef" doc:"next hop: canonical ID; absent where there is none"`
	Transport model.Transport `json:"transport,omitempty" doc:"towards the next hop, where it is known"`
	Guessed   bool            `json:"guessed,omitempty" doc:"no report names this next hop: it is the first of the best path by live links"`
	Estimated bool            `json:"estimated,omitempty" doc:"this next hop, or a later one, is guessed"`
	Hops      int             `json:"hops,omitempty" example:"2" doc:"to the gateway"`
	Cost      int             `json:"cost,omitempty" example:"2586" doc:"sum of those of the links"`
	Worst     int             `json:"worst,omitempty" example:"72" doc:"quality of the worst link on the way"`
	TQ        int             `json:"tq,omitempty" example:"201" doc:"of the whole way, as the node's BATMAN_IV has it"`
	Kbps      int             `json:"kbps,omitempty" doc:"of the whole way, as the node's BATMAN_V has it"`
	End       string          `json:"end,omitempty" doc:"of a dead end: the node where the way ends; of a loop: where the way enters it"`
	Why       string          `json:"why,omitempty" enum:"no_way,no_report,unknown_hop,no_gateway"`
	Loop      []string        `json:"loop,omitempty" doc:"nodes of the loop in the order of the hops, from the lowest ID on, 32 at most"`
}

// Cut is a node or a link whose loss splits the network.
type Cut struct {
	CutID
	Count int      `json:"count" example:"3" doc:"nodes that would be cut off from the gateway; where it is not there, or is the cut itself, from the largest part that is left"`
	Split []string `json:"split" doc:"their canonical IDs, the first 32"`
}

// CutID names a cut: a node, or else a link.
type CutID struct {
	Node string `json:"node,omitempty"`
	Link LinkID `json:"link,omitzero"`
}

// String returns the name of the node or of the link.
func (c CutID) String() string {
	if c.Node != "" {
		return c.Node
	}
	return c.Link.String()
}

// compare orders nodes before links.
func (c CutID) Compare(o CutID) int {
	if (c.Node == "") != (o.Node == "") {
		if c.Node != "" {
			return -1
		}
		return 1
	}
	return cmp.Or(strings.Compare(c.Node, o.Node), c.Link.Compare(o.Link))
}

// Conflict is a hardware address that more than one node is said to have.
type Conflict struct {
	Address dot11.MAC `json:"address"`
	Nodes   []string  `json:"nodes" doc:"canonical IDs of those that have it, as they or others say"`
}

// Find returns the item of a sorted list that has the key.
func find[T any](list []T, compare func(T) int) (T, bool) {
	i, ok := slices.BinarySearchFunc(list, struct{}{}, func(t T, _ struct{}) int { return compare(t) })
	if !ok {
		var none T
		return none, false
	}
	return list[i], true
}

// Node returns the node of that ID.
func (p Picture) Node(id string) (Node, bool) {
	return find(p.Nodes, func(n Node) int { return strings.Compare(n.ID, id) })
}

// Link returns the link of that name.
func (p Picture) Link(id LinkID) (Link, bool) {
	return find(p.Links, func(l Link) int { return l.LinkID.Compare(id) })
}

// Route returns a node's route.
func (p Picture) Route(node string) (Route, bool) {
	return find(p.Routes, func(r Route) int { return strings.Compare(r.Node, node) })
}

// Cut returns the cut of that name.
func (p Picture) Cut(id CutID) (Cut, bool) {
	return find(p.Cuts, func(c Cut) int { return c.Compare(id) })
}

// Path returns the nodes on a node's way to the gateway, both included; of a loop or a
// dead end those as far as the way goes, each once.
func (p Picture) Path(node string) []string {
	path := []string{node}
	for len(path) <= MaxNodes {
		r, ok := p.Route(path[len(path)-1])
		if !ok || r.Next == "" || slices.Contains(path, r.Next) {
			break
		}
		path = append(path, r.Next)
	}
	return path
}
