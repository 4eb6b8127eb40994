package gateway

import (
	"context"
	"fmt"

	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
	"halo.internal/gateway/topology/archive"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

// historyInRAM is how much of the history is kept where the card keeps none, in octets.
const historyInRAM = 4 << 20

// history is where the network's picture is written down.
type history struct {
	topology.Store
	run   func(context.Context) error
	close func() error
}

// openHistory opens the history of the network's picture. A gateway whose card does not
// have it works with what fits into RAM, until it starts again.
func (d *daemon) openHistory(ctx context.Context, log *events.Log) history {
	a, err := archive.Open(ctx, archive.Config{
		Path: d.State.File(paths.TopologyDB),
		Repaired: func(r store.Repair, saved int) {
			log.Add("store.topology.restored", model.Warning, "", fmt.Sprintf("the history of the network's picture was damaged; %d frames of it were saved", saved),
				map[string]string{"reason": r.Reason, "aside": r.Aside})
		},
		Later: func(version int) {
			log.Add("topology.newer", model.Warning, "", "a later release has made the history of the network's picture: it stays as it is, and is there again with that release; what comes is kept beside it",
				map[string]string{"version": fmt.Sprint(version)})
		},
		State: func(err error) {
			tellStore(log, "topology", err)
			d.judgeHistory(err)
		},
	})
	d.judgeHistory(err)
	if err == nil {
		return history{a, a.Run, a.Close}
	}
	d.Log.Error("the history of the network's picture stays in RAM", "err", err)
	return history{topology.NewMemory(historyInRAM), func(ctx context.Context) error { <-ctx.Done(); return nil }, func() error { return nil }}
}

// judgeHistory says in /health whether the history is written: the gateway works without.
func (d *daemon) judgeHistory(err error) {
	if err != nil {
		d.health.Set(checkTopology, health.Degraded, err.Error())
		return
	}
	d.health.Set(checkTopology, health.OK, "")
}

// membersOf lists who belongs to the network, for its picture.
func membersOf(nodes *registry.Registry) func(context.Context) ([]topology.Member, error) {
	const page = 500
	return func(ctx context.Context) (list []topology.Member, err error) {
		for cursor := ""; ; {
			l, err := nodes.Nodes(ctx, cursor, page)
			if err != nil {
				return nil, err
			}
			for _, n := range l.Items {
				if n.Revoked {
					continue
				}
				m := topology.Member{ID: n.ID, Name: n.Name, Gateway: n.Role == model.RoleGateway}
				for _, text := range n.MACs {
					if a, err := dot11.ParseMAC(text); err == nil { // of a node that joined with something else
						m.Addresses = append(m.Addresses, a)
					}
				}
				list = append(list, m)
			}
			if cursor = l.Next; cursor == "" {
				return list, nil
			}
		}
	}
}
