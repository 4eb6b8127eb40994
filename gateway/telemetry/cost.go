package telemetry

import (
	"fmt"
	"slices"
	"time"
)

// What a question costs is counted in blocks that have to be read, without a look at the
// files: an hour of a node's readings is one, and so is a day of its rollups.
const (
	hoursOfDay = 24
	openWeekly = 8 // as much as opening a week's file takes

	// MostCost is what Range reads for one answer at most: a year of 250 nodes by quarters of
	// an hour, or a week of them by readings, is less.
	MostCost = 100_000
)

// Cost tells what Range would read.
func (s *Store) Cost(q Query) int {
	g, err := q.grid()
	if err != nil {
		return 0 // it is refused at once
	}
	return s.cost(&q, g)
}

func (s *Store) cost(q *Query, g grid) (cost int) {
	nodes := 0
	for _, node := range s.nodesOf(q) {
		if q.Across != "" || q.After == nil || node >= q.After.Node {
			nodes += len(s.identities(node))
		}
	}
	to := g.from + int64(g.n)*g.step
	if g.step%(quarter*minuteMS) == 0 {
		return nodes * s.days(g.from, to)
	}
	// Of what is older there are rollups alone.
	fine := max(g.from, min(to, s.Aged().Add(-s.Retention().Keep.Minute).UnixMilli()))
	return nodes * (s.days(g.from, fine) + hoursOfDay*s.days(fine, to))
}

// nodesOf returns those that a query is about.
func (s *Store) nodesOf(q *Query) []string {
	nodes := slices.Compact(slices.Sorted(slices.Values(q.Nodes)))
	if len(nodes) == 0 {
		nodes = s.Nodes()
	}
	return s.once(nodes)
}

// days returns of how many days in [from, to) there may be something in the files, or in
// the head.
func (s *Store) days(from, to int64) (n int) {
	if from >= to {
		return 0
	}
	for _, w := range s.weeks.list() {
		if low, high := max(from, w.begin()), min(to, w.end()); low < high {
			n += int((high - floor(low, dayMS) + dayMS - 1) / dayMS)
		}
	}
	return max(n, 1)
}

// CostOfSamples tells what Samples would read, if all it asks for were on one page.
func (s *Store) CostOfSamples(q SampleQuery) int {
	from, to, err := since(q.Cursor, q.From.UnixMilli(), q.To.UnixMilli()+1)
	if err != nil {
		return 0
	}
	return len(s.identities(q.Node)) * hoursOfDay * s.days(from, to)
}

// CostOfWeeks tells what it takes to look into the files of a time, as Marks and Metrics do.
func (s *Store) CostOfWeeks(from, to time.Time) (n int) {
	for _, w := range s.weeks.list() {
		if w.begin() < to.UnixMilli() && w.end() > from.UnixMilli() {
			n += openWeekly
		}
	}
	return max(n, 1)
}

// tooMuch says what is wrong with a query that costs too much, and what would not be.
func (q *Query) tooMuch(cost int, g grid) error {
	step, width := time.Duration(g.step)*time.Millisecond, quarter*time.Minute
	advice := "ask for fewer nodes, or for a shorter time"
	if step%width != 0 {
		advice = fmt.Sprintf("take a step that is a multiple of %d s, which is answered from rollups and costs a twentieth, or %s", int(width.Seconds()), advice)
	}
	return fmt.Errorf("%w: at a step of %g s it takes %d blocks of readings and rollups, and at most %d are read for one answer: %s", ErrTooMuch, step.Seconds(), cost, MostCost, advice)
}
