package agent

import (
	"path/filepath"

	"halo.internal/agent/signal"
	"halo.internal/hal/led"
	"halo.internal/health"
	"halo.internal/model"
)

// How often the status lamps flash: docs/boards.md has the list for people.
const (
	codeOnline      = 1 + iota // the gateway takes what the device tells
	codeUnreachable            // the gateway is out of reach
	codeOutside                // the gateway has not admitted the device, or nobody has heard of one
	codeBlank                  // the device has no network
	codeVolatile               // the data partition is not there: nothing is kept over a restart
	codeMesh                   // halo-mesh does not answer
)

func (a *agent) newLamps() *signal.Lamps {
	return signal.New(signal.Config{Class: filepath.Join(a.Root, led.Class), Log: a.Log,
		Names: func() []string {
			var names []string
			for _, l := range a.hardware.board().LEDs {
				if l.Status {
					names = append(names, l.Name)
				}
			}
			return names
		},
		Code: func() int {
			mesh, _ := a.seen.last()
			return code(mesh, a.graph.State(checkMesh) == health.OK, a.reached.Load())
		}})
}

// code is how the device is: what is broken first explains the rest.
func code(mesh model.MeshStatus, answers, reached bool) int {
	switch {
	case !answers:
		return codeMesh
	case mesh.Volatile:
		return codeVolatile
	case reached:
		return codeOnline
	case mesh.Network == "":
		return codeBlank
	case !mesh.Joined:
		return codeOutside
	}
	return codeUnreachable
}
