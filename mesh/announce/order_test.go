package announce

import (
	"errors"
	"testing"
	"time"

	"halo.internal/identity"
)

func TestOrders(t *testing.T) {
	network, node := identity.New(), identity.New()
	c := Codec{network.Public()}
	want := Order{Epoch: 40_000, Serial: 1<<42 | 5, InMS: 4750}
	b, err := c.EncodeOrder(network, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decode(b); err != nil || got != any(want) || want.In() != 4750*time.Millisecond {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		key   identity.Key
		order Order
		want  error
	}{
		"signed by a node":  {node, want, identity.ErrSignature},
		"too far in future": {network, Order{InMS: 60_001}, ErrForm},
	} {
		b, err := c.EncodeOrder(tc.key, tc.order)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Decode(b); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if _, err := c.GatewayEpoch(b); !errors.Is(err, ErrForm) {
		t.Errorf("an order as evidence of an epoch: %v", err)
	}
}
