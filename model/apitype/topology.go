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
