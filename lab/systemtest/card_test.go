//go:build lab

package systemtest_test

import (
	"errors"
	"path/filepath"
	"testing"

	"halo.internal/ctl/client"
	"halo.internal/hal/card"
	"halo.internal/health"
	"halo.internal/lab/disk"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// damagedCards ruins slot A of both nodes, the modules of one and the root of
// the other, and gives one a bundle that was cut short: each comes up from slot
// B as the node it was.
func damagedCards(t *testing.T, l *lab) {
	before := l.before(t)
	events := l.lastEvent(t)
	modules, root := l.nodes[0], l.nodes[1]
	if err := errors.Join(modules.PowerCut(), root.PowerCut()); err != nil {
		t.Fatal(err)
	}
	if err := modules.EditBoot(func(b disk.Boot) error { return damageFiles(t, b, l) }); err != nil {
		t.Fatal(err)
	}
	if err := damageRoot(root); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.net.PowerOn(modules), l.net.PowerOn(root)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*network.Machine{modules, root} {
		l.eventually(t, m.Name()+" starts from slot b", func() error {
			return expect(m.Status().Slot == "b", "slot b, got %+v", m.Status())
		})
	}
	l.recovered(t, before, modules, root)
	l.eventually(t, "the gateway knows of both slots", func() error {
		for _, m := range []*network.Machine{modules, root} {
			n, err := l.api.Node(t.Context(), m.Name())
			if err != nil {
				return err
			}
			if err := expect(n.Slot == "b", "slot b of %s, got %q", m.Name(), n.Slot); err != nil {
				return err
			}
		}
		return nil
	})
	l.eventually(t, "the damaged bundle is an event", func() error {
		list, err := l.api.EventsSince(t.Context(), eventsOf(modules, "bundle"), events)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Severity != model.Info {
				return nil
			}
		}
		return expect(false, "an event of a kind bundle.… that is no mere information, got %+v", list)
	})
}

// damageFiles changes one octet of slot A's modules and cuts a bundle short.
func damageFiles(t *testing.T, b disk.Boot, l *lab) error {
	const modules = "slot-a/modules.img"
	img, err := b.Read(t.Context(), modules)
	if err != nil {
		return err
	}
	img[len(img)/2] ^= 1
	text, err := l.net.Bundles.Node.Marshal()
	if err != nil {
		return err
	}
	return errors.Join(
		b.Write(t.Context(), modules, img),
		b.Write(t.Context(), filepath.Base(paths.Bundle), text[:len(text)/2]),
	)
}

// damageRoot changes one octet in many blocks of root A, but none of the first,
// so that it mounts.
func damageRoot(m *network.Machine) error {
	table, err := card.ReadTable(m.Disk, m.Disk.Size())
	if err != nil {
		return err
	}
	p, ok := table.Partition(2)
	if !ok {
		return errors.New("no root A on the card")
	}
	const first, last, step = 1 << 20, 64 << 20, 64 << 10
	for off := p.Start + first; off < p.Start+last; off += step {
		octet := make([]byte, 1)
		if _, err := m.Disk.ReadAt(octet, off); err != nil {
			return err
		}
		octet[0] ^= 1
		if _, err := m.Disk.WriteAt(octet, off); err != nil {
			return err
		}
	}
	return nil
}

// fullCards leaves no room on the data partitions of the gateway and of a node.
// Both run, say so, and lose nothing that was acknowledged; the nodes' readings
// come when there is room again.
func fullCards(t *testing.T, l *lab) {
	before := l.before(t)
	events := l.lastEvent(t)
	node := l.nodes[1]
	full := []*network.Machine{l.gateway, node}
	for _, m := range full {
		if err := errors.Join(m.PowerCut(), m.FillPerm(t.Context()), l.net.PowerOn(m)); err != nil {
			t.Fatal(err)
		}
	}
	l.awaitBoot(t, full...)
	l.eventually(t, "the node says that its card is full", func() error {
		d, err := node.Diag(t.Context())
		if err != nil {
			return err
		}
		return expect(d.Boot != nil && d.Boot.Perm.State == model.PermFull && d.Mesh != nil && d.Mesh.Volatile, "a full data partition, got %+v", d.Boot)
	})
	l.eventually(t, "the gateway works on its reserve, and says so", func() error {
		h, err := l.api.Health(t.Context())
		if err != nil {
			return err
		}
		list, err := l.api.EventsSince(t.Context(), client.EventFilter{Kind: "perm.full"}, events)
		if err != nil {
			return err
		}
		return expect(h.State != health.OK && h.Missing == "perm" && len(list) > 0, "a gateway that misses room, and the event, got %+v", h)
	})
	l.eventually(t, "the node's full card is an event", func() error {
		list, err := l.api.EventsSince(t.Context(), eventsOf(node, "perm.failing"), events)
		if err != nil {
			return err
		}
		return expect(len(list) > 0, "an event of the node's")
	})
	for _, m := range full {
		if err := errors.Join(m.PowerCut(), m.EmptyPerm(t.Context()), l.net.PowerOn(m)); err != nil {
			t.Fatal(err)
		}
	}
	l.recovered(t, before, full...)
}

// wornCard has the gateway's card refuse writes while it runs. Nothing is
// acknowledged that is not kept: all that the nodes measured meanwhile comes
// when the card is replaced by one that works.
func wornCard(t *testing.T, l *lab) {
	before := l.before(t)
	l.gateway.Disk.WearOut(true)
	defer l.gateway.Disk.WearOut(false)
	l.eventually(t, "the gateway says that it keeps nothing", func() error {
		h, err := l.api.Health(t.Context())
		if err != nil {
			return err
		}
		return expect(h.State != health.OK && h.Missing != "", "a gateway that names its database or card, got %+v", h)
	})
	last := l.stored(t)
	if err := l.gateway.PowerCut(); err != nil {
		t.Fatal(err)
	}
	l.gateway.Disk.WearOut(false)
	if err := l.net.PowerOn(l.gateway); err != nil {
		t.Fatal(err)
	}
	l.recovered(t, before, l.gateway)
	if err := l.stored(t).Holds(last); err != nil {
		t.Fatal(err)
	}
}
