package telemetry

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"halo.internal/model/order"
)

// A node whose card was written anew has another key, and so another ID; what came before is
// stored under the former one, and is found under both. Each former node's batches have
// boots and numbers of their own, so Coverage, and what is the latest, stay each one's own.

// Succeed has the readings and marks of former nodes, and of those whose place these have
// taken, be found under the node that has taken their place too. Whoever asks for all nodes
// does not get the former ones.
func (s *Store) Succeed(node string, former ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chain := slices.Clone(s.former[node])
	add := func(id string) {
		if id != node && !slices.Contains(chain, id) {
			chain = append(chain, id)
		}
	}
	for _, id := range former {
		add(id)
		for _, before := range s.former[id] {
			add(before)
		}
	}
	s.former[node] = chain
	now := cmp.Or(s.present[node], node)
	for _, id := range chain {
		s.present[id] = now
	}
}

// identities returns a node and those whose place it has taken.
func (s *Store) identities(node string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]string{node}, s.former[node]...)
}

// once leaves out former nodes whose successor is there too.
func (s *Store) once(nodes []string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(nodes), func(id string) bool {
		now, former := s.present[id]
		return former && slices.Contains(nodes, now)
	})
}

// page is a part of an answer in the order of time; next is its last instant where more
// follows, or "".
type page[T any] struct {
	items []T
	next  string
}

// together makes one page of two of one query. What follows where either ends, or behind
// the instant that reaches the limit, is the next one's.
func together[T any](a, b page[T], at func(T) int64, limit int) page[T] {
	end := int64(math.MaxInt64)
	for _, p := range []page[T]{a, b} {
		if t, err := strconv.ParseInt(p.next, 10, 64); err == nil {
			end = min(end, t)
		}
	}
	all := slices.Concat(a.items, b.items)
	order.By(all, func(x, y T) int { return cmp.Compare(at(x), at(y)) })
	if n := max(limit, 1); len(all) > n {
		end = min(end, at(all[n-1]))
	}
	kept := len(all)
	for kept > 0 && at(all[kept-1]) > end {
		kept--
	}
	out := page[T]{items: all[:kept]}
	if kept < len(all) || a.next != "" || b.next != "" {
		out.next = strconv.FormatInt(end, 10)
	}
	return out
}
