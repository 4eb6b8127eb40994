// Package topology makes the network's picture out of what its devices report: which
// nodes there are, the links between them with their quality both ways, the routes to
// the gateway, what would be cut off by whose loss, and how healthy each node and the
// whole are, with the reasons. It does no I/O and reads no clock.
//
// The way of a report through the package is one straight line:
//
//	Tracker.Put      checks a report and prepares it (prepare.go, quality.go)
//	Tracker.Update   draws the picture (draw.go): whose addresses those are (claims.go),
//	                 links (links.go), cuts (cuts.go), routes (routes.go), scores
//	                 (score.go), and tells what changed
//	Recorder.Record  writes it down for later (recorder.go, frame.go); Reader reads it
//	WriteNetJSON     exports it
//
// What reports say is hostile until it is bounded, and is never proven: a report counts
// for its sender's end of a link alone. docs/topology.md tells people what follows.
package topology
