package load

import (
	"fmt"
	"slices"

	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

// boards say what a node of so many metrics measures: as much as it takes of boards of twelve.
type boards struct {
	schema wire.Schema
	seed   uint64
	of     []*wiretest.Board
}

// schemaOf is of so many metrics, of which those after the first twelve have numbers.
func schemaOf(metrics int) (s wire.Schema) {
	for i := range metrics {
		m := wiretest.Schema().Metrics[i%wiretest.Metrics]
		if n := i / wiretest.Metrics; n > 0 {
			m.Name = fmt.Sprintf("%s_%d", m.Name, n+1)
		}
		s.Metrics = append(s.Metrics, m)
	}
	return s
}

// newBoards returns some that measure the same for the same seed.
func newBoards(s wire.Schema, seed uint64) *boards {
	b := &boards{schema: s, seed: seed}
	for i := 0; i < len(s.Metrics); i += wiretest.Metrics {
		b.of = append(b.of, wiretest.NewBoard(seed<<8|uint64(i/wiretest.Metrics)))
	}
	return b
}

// batch is the one that was sent.
func (b *boards) batch(boot uint64, s sent) wire.Batch {
	var all wire.Batch
	for i, board := range b.of {
		one := board.Batch(boot, s.begins, s.reports, s.step)
		if i == 0 {
			all = one
			continue
		}
		for k := range all.Reports {
			all.Reports[k].Values = append(all.Reports[k].Values, one.Reports[k].Values...)
		}
	}
	for k := range all.Reports {
		all.Reports[k].Values = slices.Clip(all.Reports[k].Values[:len(b.schema.Metrics)])
	}
	all.BatchID, all.Urgent = wire.ID(boot, s.seq), s.urgent
	return all
}
