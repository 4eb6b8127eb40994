package ingest

import (
	"context"
	"testing"

	"halo.internal/identity"
	"halo.internal/model/wire"
)

// Two devices with one node's card: each ends the other's stream, until the one that was
// there first comes back. Then both are out, and an event says so.
func TestTwoDevicesWithOneIdentity(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	at := f.admit(key)
	f.life = []byte("the first")
	f.stream(key, at)
	f.stream(key, at) // it has reconnected
	f.life = []byte("the second")
	second := f.stream(key, at)
	f.life = []byte("the first")
	_, m := f.dial(at, key, key.Public())
	if r, ok := m.(wire.Refuse); !ok || r.Code != wire.RefuseQuarantined {
		t.Fatalf("the first, back again: got %+v", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := second.conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the second is there still: %v", err)
	}
	f.wantEvent("node.cloned", key.ID())
	for _, life := range []string{"the first", "the second", "a third", ""} {
		f.life = []byte(life)
		if _, m := f.dial(at, key, key.Public()); m.(wire.Refuse).Code != wire.RefuseQuarantined {
			t.Errorf("%q: got %+v", life, m)
		}
	}
	if _, err := f.registry.Release(t.Context(), key.ID(), "user:anna"); err != nil {
		t.Fatal(err)
	}
	f.life = []byte("the second")
	f.stream(key, at)
}
