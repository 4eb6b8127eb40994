package scenarios

import (
	"context"

	"halo.internal/model/apitype"
)

// Stored is which batches the gateway has committed, and so acknowledged: by node
// and boot.
type Stored map[string]map[uint64]apitype.BootCoverage

// Stored asks the gateway what it has of the members.
func (w *World) Stored(ctx context.Context) (Stored, error) {
	s := Stored{}
	for _, m := range w.Members {
		c, err := w.Admin.Coverage(ctx, m.Name())
		if err != nil {
			return nil, err
		}
		s[m.Name()] = map[uint64]apitype.BootCoverage{}
		for _, b := range c.Boots {
			s[m.Name()][b.Boot] = b
		}
	}
	return s, nil
}

// Newest returns the coverage of a node's last boot.
func (s Stored) Newest(node string) (b apitype.BootCoverage) {
	for _, c := range s[node] {
		if c.Boot >= b.Boot {
			b = c
		}
	}
	return b
}

// Whole checks that no batch of a node is missing and none is there twice.
func (s Stored) Whole(node string) error {
	for _, b := range s[node] {
		if err := expect(b.First == 1 && len(b.Missing) == 0 && b.Dropped == 0 && b.Count == b.Last,
			"each batch of %s from 1 to the last once, got %+v", node, b); err != nil {
			return err
		}
	}
	return nil
}

// Holds checks that everything of before is still there.
func (s Stored) Holds(before Stored) error {
	for node := range before {
		if err := s.holds(before, node); err != nil {
			return err
		}
	}
	return nil
}

func (s Stored) holds(before Stored, node string) error {
	for boot, b := range before[node] {
		now := s[node][boot]
		if err := expect(now.Count >= b.Count && now.Last >= b.Last, "batches 1 to %d of boot %d of %s, which were acknowledged; got %+v", b.Last, boot, node, now); err != nil {
			return err
		}
	}
	return nil
}
