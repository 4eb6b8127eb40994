// Package brain knows the network's neurons: logical units with four components
// (sensor, thought, memory, send), each assigned to any number of devices and of
// their processes, as each of those may be part of any number of components. It keeps
// them, says which devices their names lead to, and judges how they are by their
// parts.
//
// # How a neuron is
//
// A part is live when it is there and does not say that it has failed:
//
//   - a device that was revoked, or is no member, has failed; so has one that is
//     offline, but while gateway-api has just started and has not heard of it since, or
//     has never, it is unknown. Else it is as it says itself: ok, degraded (also while
//     it starts) or failed; one that has said nothing yet is unknown.
//   - a sensor of a device that is live is ok while it is read, degraded while some of its
//     values are missing, and else failed; of one that is not live it is no better.
//   - a process of a device that is not live is no better. halo-agent is ok as soon as
//     its device is online, which means its stream; halo-mesh is as its device, which
//     speaks for it; the gateway's own processes are as gateway-api finds them. Of
//     others nobody tells: unknown.
//
// A component is ok when all its parts are, degraded when some are live, failed when
// none is; but unknown when none is live and some part is unknown.
//
// A neuron is as bad as the worst component that it needs, where unknown is worse than
// degraded, and failed than unknown. It needs the components that were named, or
// without that those that have parts; one that is needed and has none has failed.
// A neuron that needs nothing is unknown.
package brain

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Devices is what is known of the network's nodes: a registry.
type Devices interface {
	// Node finds one by canonical ID or name; an error is for clients.
	Node(ctx context.Context, ref string) (apitype.Node, error)
	// Nodes returns a page of all, those that were revoked included.
	Nodes(ctx context.Context, cursor string, limit int) (apitype.NodeList, error)
}

// Config is what New needs.
type Config struct {
	DB      *store.DB
	Clock   *clock.Clock
	Devices Devices
	// Own tells how a process of the gateway itself is, and what it lacks; false when
	// that is not known.
	Own func(process string) (s health.State, lacks string, known bool)
	// Sensors tells how a sensor of a device is; nil: nobody knows of any.
	Sensors func(key, node string) (s model.SensorChip, known bool)
}

// Brain may be used from any goroutine.
type Brain struct {
	Config
	started time.Time // by the clock, as nodes' last words are
	since   time.Time // the same moment, to measure from

	changes atomic.Uint64 // counts what may have changed neurons

	mu    sync.Mutex // guards names
	names struct {
		list []model.BrainName
		at   uint64 // changes by then; 0: never
	}
}

// New returns the brain of a gateway that starts now.
func New(c Config) *Brain {
	b := &Brain{Config: c, started: c.Clock.Now(), since: time.Now()}
	b.changes.Store(1)
	return b
}

// Names returns the names of all components that something is assigned to, with the
// devices that they lead to. It may be asked often: config.db is read after a change
// alone.
func (b *Brain) Names(ctx context.Context) ([]model.BrainName, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.changes.Load()
	if b.names.at == at {
		return b.names.list, nil
	}
	all, err := b.load(ctx)
	if err != nil {
		return nil, err
	}
	list := []model.BrainName{}
	for _, n := range all {
		for _, c := range n.Components {
			if devices := devicesOf(c.Parts); len(devices) > 0 {
				list = append(list, model.BrainName{Name: c.Name, Nodes: devices})
			}
		}
	}
	b.names.list, b.names.at = list, at
	return list, nil
}

// devicesOf returns the devices of parts, each once, in their order.
func devicesOf(parts []model.Part) (ids []string) {
	seen := map[string]bool{}
	for _, p := range parts {
		if id, _ := p.Device(); !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

func noNeuron(name string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no neuron %.64q", name)
}
