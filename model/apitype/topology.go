package apitype

import (
	"time"

	"halo.internal/model"
	"halo.internal/model/graph"
)

// TopologyChanges is what changed since a picture, or the whole one.
type TopologyChanges struct {
	Run     uint64         `json:"run" example:"4711" doc:"of the picture that it leads to"`
	Seq     uint64         `json:"seq" example:"1042" doc:"likewise: ask from here on"`
	Delta   *graph.Delta   `json:"delta,omitempty" doc:"absent where nothing changed, or with picture"`
	Picture *graph.Picture `json:"picture,omitempty" doc:"whole, where the gateway does not know any more what changed since"`
}

// TopologyHistory is what happened to the network, oldest first.
type TopologyHistory struct {
	Items []graph.Moment `json:"items"`
	Next  string         `json:"next,omitempty" example:"2026-11-29T14:03:20.5Z" doc:"cursor of the next page"`
}

// NodeTopology is a node in the network's picture.
type NodeTopology struct {
	At    time.Time    `json:"at" doc:"of the picture"`
	Node  graph.Node   `json:"node"`
	Route *graph.Route `json:"route,omitempty" doc:"to the gateway; absent of the gateway itself"`
	Path  []string     `json:"path" doc:"nodes on that way, both ends included, as far as it goes"`
	Links []graph.Link `json:"links" doc:"of the node"`
	Cut   *graph.Cut   `json:"cut,omitempty" doc:"whom its loss would cut off"`
}

// NodeNeighbourhood is what a node reported last of what it sees.
type NodeNeighbourhood struct {
	Heard  time.Time    `json:"heard,omitzero" doc:"when"`
	Report model.Report `json:"report"`
}

// TopologyPiece is a piece of the network's picture, as GET /v1/live tells of it: one of
// its members is there.
type TopologyPiece struct {
	ID       string           `json:"id" doc:"by which the piece is told anew, and told to be gone: network, node ID, link A transport B, route NODE, cut …, conflict ADDRESS"`
	Network  *TopologyNetwork `json:"network,omitempty"`
	Node     *graph.Node      `json:"node,omitempty"`
	Link     *graph.Link      `json:"link,omitempty"`
	Route    *graph.Route     `json:"route,omitempty"`
	Cut      *graph.Cut       `json:"cut,omitempty"`
	Conflict *graph.Conflict  `json:"conflict,omitempty"`
}

// TopologyNetwork is what the picture says of the network as a whole. It is the last piece
// of each picture.
type TopologyNetwork struct {
	Run     uint64         `json:"run" doc:"with seq: the picture that the pieces so far make, as GET /v1/topology has it"`
	Seq     uint64         `json:"seq"`
	At      time.Time      `json:"at"`
	Gateway string         `json:"gateway" doc:"canonical ID"`
	Score   int            `json:"score" minimum:"0" maximum:"100"`
	Reasons []graph.Reason `json:"reasons"`
}
