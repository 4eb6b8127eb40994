package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"halo.internal/model"
)

// TestListsAreWhole however long they are: a gateway gives them in pages.
func TestListsAreWhole(t *testing.T) {
	const many, most = 7, 3
	c := plain(t, func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if cursor := r.URL.Query().Get("cursor"); cursor != "" {
			if _, err := fmt.Sscanf(cursor, "at %d", &from); err != nil {
				t.Errorf("%s: cursor %q", r.URL.Path, cursor)
			}
		}
		if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err != nil || limit != pageSize {
			t.Errorf("%s: limit %d, %v", r.URL.Path, limit, err)
		}
		items := []map[string]any{}
		for i := from; i < min(from+most, many); i++ {
			items = append(items, map[string]any{"mac": fmt.Sprint(i), "node": fmt.Sprint(i), "iface": []string{"eth0", "eth1"}[i%2]})
		}
		answer := map[string]any{"items": items, "macs": items, "quarantined": []any{}}
		if from == 0 {
			answer["quarantined"] = []any{map[string]any{"id": "n-x"}}
		}
		if from+most < many {
			answer["next"] = fmt.Sprintf("at %d", from+most)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}, bearer{"x"})
	batman := func(table string, count func(model.BatmanTables) int) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			l, err := c.Batman(ctx, table)
			return count(l), err
		}
	}
	for name, count := range map[string]func(context.Context) (int, error){
		"neighbours": func(ctx context.Context) (int, error) { l, err := c.NeighbourTable(ctx); return len(l), err },
		"leases": func(ctx context.Context) (int, error) {
			l, err := c.Leases(ctx)
			return len(l["eth0"]) + len(l["eth1"]), err
		},
		"reservations": func(ctx context.Context) (int, error) { l, err := c.Reservations(ctx); return len(l), err },
		"peers":        func(ctx context.Context) (int, error) { l, err := c.Peers(ctx); return len(l), err },
		"replacements": func(ctx context.Context) (int, error) { l, err := c.Replacements(ctx); return len(l), err },
		"conflicts": func(ctx context.Context) (int, error) {
			l, err := c.ModelConflicts(ctx)
			if len(l.Quarantined) != 1 {
				t.Errorf("quarantined: %+v", l.Quarantined)
			}
			return len(l.MACs), err
		},
		"originators": batman(model.BatmanOriginators, func(b model.BatmanTables) int { return len(b.Originators) }),
		"heard":       batman(model.BatmanNeighbours, func(b model.BatmanTables) int { return len(b.Neighbours) }),
		"local":       batman(model.BatmanLocal, func(b model.BatmanTables) int { return len(b.Local) }),
		"global":      batman(model.BatmanGlobal, func(b model.BatmanTables) int { return len(b.Global) }),
		"gateways":    batman(model.BatmanGateways, func(b model.BatmanTables) int { return len(b.Gateways) }),
	} {
		if n, err := count(t.Context()); err != nil || n != many {
			t.Errorf("%s: got %d, %v, want %d", name, n, err, many)
		}
	}
}
