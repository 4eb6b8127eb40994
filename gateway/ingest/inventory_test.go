package ingest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// stock is what is known of nodes' buses.
type stock struct {
	mu      sync.Mutex // guards what follows
	digests map[string]string
	wrong   bool
}

func (s *stock) Knows(node, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digests[node] == digest
}

func (s *stock) Report(_ context.Context, node, digest string, _ model.Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong {
		return errors.New("two sensors have one place")
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
	s.mu.Lock()
	s.wrong = true
	s.mu.Unlock()
	says("d2")
	n.write(wire.InventoryMessage{Digest: "d2"})
	says("d2")
	if got := inventoriesWanted(n.flush(3)); got != 1 {
		t.Errorf("the node was asked %d times for what was refused, want once", got)
	}
	f.wantEvent("node.inventory.refused", key.ID())
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
