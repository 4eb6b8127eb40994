package audit

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"halo.internal/gateway/events"
	"halo.internal/model"
)

// What the gateway changes by itself is in the chain, and what a request has changed is
// there by that request alone.
func TestAutomaticChanges(t *testing.T) {
	l := newLedger(t, 100, 2)
	log := events.New(l.db, l.clock, 1, slog.New(slog.DiscardHandler))
	log.Witness = l.Log
	add := func(kind, node string, fields map[string]string) {
		log.Add(kind, model.Info, node, kind, fields)
	}
	add("node.joined", "n-a", map[string]string{"by": "token:0102"})
	add("node.joined", "n-b", map[string]string{"by": "mac:02:00:00:00:00:01"})
	add("node.joined", "n-c", map[string]string{"by": "user:anna"})
	add("node.online", "n-a", nil)
	add("gateway.epoch-raised", "", map[string]string{"by": "user:anna"})
	add("gateway.epoch-raised", "", nil)
	add("firewall.reverted", "", map[string]string{"by": "user:anna", "reason": "not-confirmed"})
	add("firewall.reverted", "", map[string]string{"by": "user:anna", "reason": "asked"})
	add("node.cloned", "n-b", nil)
	add(SecretShown, "", map[string]string{"by": "user:root"})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Run(ended); err != nil { // writes what waits
		t.Fatal(err)
	}
	list, err := l.List(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list.Items {
		got = append(got, e.Actor+" "+e.Action+" "+e.Target)
	}
	slices.Reverse(got)
	want := []string{"gateway node.joined n-a token:0102", "gateway node.joined n-b mac:02:00:00:00:00:01", "gateway gateway.epoch-raised ", "gateway firewall.reverted user:anna", "gateway node.cloned n-b", "user:root " + SecretShown + " "}
	if !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
	v, err := l.Verify(t.Context())
	if err != nil || !v.Intact {
		t.Errorf("the chain: %+v, %v", v, err)
	}
	if stored, _, err := log.List(t.Context(), events.Query{Limit: 100}); err != nil || len(stored) != 10 {
		t.Errorf("%d events are stored, %v", len(stored), err)
	}
}
