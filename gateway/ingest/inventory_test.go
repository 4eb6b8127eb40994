package ingest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// stock is what is known of nodes' buses.
type stock struct {
	mu      sync.Mutex // guards what follows
	digests map[string]string
	busy    bool
}

func (s *stock) Knows(node, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digests[node] == digest
}

func (s *stock) Report(_ context.Context, node, digest string, v model.Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return fmt.Errorf("%w: it is locked", store.ErrUnavailable)
	}
	if err := v.Check(); err != nil {
		return err
	}
	s.digests[node] = digest
	return nil
}

func inventoriesWanted(before []wire.Message) int {
	return len(slices.DeleteFunc(slices.Clone(before), func(m wire.Message) bool { _, ok := m.(wire.InventoryWanted); return !ok }))
}

func TestAnInventoryIsAskedForUntilItIsKnown(t *testing.T) {
	f := newFixture(t)
	s := &stock{digests: map[string]string{}}
	f.Hardware = s
	key := identity.New()
	n := f.stream(key, f.admit(key))
	says := func(digest string) { n.write(wire.StatusMessage{Status: model.NodeStatus{Inventory: digest}}) }

	n.write(wire.InventoryMessage{Digest: "d0"}) // nobody has asked
	says("d1")
	says("d1") // before it has answered
	if got := inventoriesWanted(n.flush(1)); got != 1 || s.Knows(key.ID(), "d0") {
		t.Fatalf("the node was asked %d times for its inventory, want once", got)
	}
	n.write(wire.InventoryMessage{Digest: "d1"})
	says("d1")
	if got := inventoriesWanted(n.flush(2)); got != 0 || !s.Knows(key.ID(), "d1") {
		t.Error("it is asked for what it has told")
	}
	// What is wrong is asked for no more until it is another.
	says("d2")
	n.write(wire.InventoryMessage{Digest: "d2", Inventory: model.Inventory{Sensors: make([]model.SensorChip, 2*model.MaxSensors)}})
	says("d2")
	if got := inventoriesWanted(n.flush(3)); got != 1 {
		t.Errorf("the node was asked %d times for what was refused, want once", got)
	}
	f.wantEvent("node.inventory.refused", key.ID())
}

// TestAnInventoryThatCouldNotBeKeptIsAskedForAgain: that is not the node's fault.
func TestAnInventoryThatCouldNotBeKeptIsAskedForAgain(t *testing.T) {
	f := newFixture(t)
	s := &stock{digests: map[string]string{}, busy: true}
	f.Hardware = s
	key := identity.New()
	n := f.stream(key, f.admit(key))
	says := func(digest string) { n.write(wire.StatusMessage{Status: model.NodeStatus{Inventory: digest}}) }
	says("d1")
	n.write(wire.InventoryMessage{Digest: "d1"})
	says("d1")
	if got := inventoriesWanted(n.flush(1)); got != 2 {
		t.Errorf("the node was asked %d times, want once more than at first", got)
	}
	s.mu.Lock()
	s.busy = false
	s.mu.Unlock()
	n.write(wire.InventoryMessage{Digest: "d1"})
	says("d1")
	if got := inventoriesWanted(n.flush(2)); got != 0 || !s.Knows(key.ID(), "d1") {
		t.Error("what it told when there was room is not known")
	}
	if list, _, err := f.Events.List(t.Context(), events.Query{Kind: "node.inventory.refused", Limit: 1}); err != nil || len(list) > 0 {
		t.Errorf("the node is blamed: %v, %v", list, err)
	}
}

// TestInventoriesHaveAPace: each is a write to the card.
func TestInventoriesHaveAPace(t *testing.T) {
	f := newFixture(t)
	s := &stock{digests: map[string]string{}}
	f.Hardware = s
	key := identity.New()
	n := f.stream(key, f.admit(key))
	asked := 0
	for i := range 2 * nodeInventories.burst {
		digest := string(rune('A' + i))
		n.write(wire.StatusMessage{Status: model.NodeStatus{Inventory: digest}})
		asked += inventoriesWanted(n.flush(uint64(i + 1)))
		n.write(wire.InventoryMessage{Digest: digest})
	}
	if asked < nodeInventories.burst || asked > nodeInventories.burst+1 {
		t.Errorf("the node was asked %d times, want %d", asked, nodeInventories.burst)
	}
	f.wantEvent("stream.held-back", key.ID())
}
