package telemetry

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// What a question costs is counted in blocks that have to be read, without a look at the
// files: an hour of a node's readings is one, and so is a day of its rollups.
const (
	openWeekly = 16 // what opening a week's file takes

	// MostCost is what Range reads for one answer at most.
	MostCost = 100_000
)

// More is the error of Range where an answer that goes on behind what was given would cost
// too much, or take too long: the rest is another question, whose After is that.
type More struct{ After SeriesKey }

func (m *More) Error() string { return fmt.Sprintf("there is more from node %s on", m.After.Node) }

// halfway returns what tells whether half of the time is over that there is: a page then ends
// where it is, and the next goes on from there.
func halfway(ctx context.Context) func() bool {
	end, ok := ctx.Deadline()
	if !ok {
		return func() bool { return false }
	}
	half := time.Now().Add(time.Until(end) / 2)
	return func() bool { return time.Now().After(half) }
}

// Cost tells what Range would read for one answer.
func (s *Store) Cost(q Query) (cost int) {
	g, err := q.grid()
	if err != nil {
		return 0 // it is refused at once
	}
	for _, node := range s.nodesOf(&q) {
		cost += s.costOf(node, g)
	}
	return min(cost, MostCost)
}

// costOf tells what it takes to read one node.
func (s *Store) costOf(node string, g grid) int {
	to := g.from + int64(g.n)*g.step
	all := s.extent(g.from, to)
	blocks := all.days
	if g.step%(quarter*minuteMS) != 0 {
		// Of what is older there are rollups alone.
		old := s.extent(g.from, min(to, s.Aged().Add(-s.Retention().Keep.Minute).UnixMilli()))
		blocks = old.days + all.hours - old.hours
	}
	if all.weeks > maxOpen { // for each node anew
		blocks += openWeekly * all.weeks
	}
	return len(s.identities(node)) * max(blocks, 1)
}

// nodesOf returns those that a query has to read, in order.
func (s *Store) nodesOf(q *Query) []string {
	nodes := slices.Compact(slices.Sorted(slices.Values(q.Nodes)))
	if len(nodes) == 0 {
		nodes = s.Nodes()
	}
	return slices.DeleteFunc(s.once(nodes), func(node string) bool {
		return q.Across == "" && q.After != nil && node < q.After.Node
	})
}

// extent is of how many hours, days and weeks there may be something in the files.
type extent struct{ hours, days, weeks int }

// extent returns that of [from, to).
func (s *Store) extent(from, to int64) (e extent) {
	parts := func(low, high, width int64) int { return int((high - floor(low, width) + width - 1) / width) }
	for _, w := range s.weeks.list() {
		if low, high := max(from, w.begin()), min(to, w.end()); low < high {
			e.hours, e.days, e.weeks = e.hours+parts(low, high, hourMS), e.days+parts(low, high, dayMS), e.weeks+1
		}
	}
	return e
}

// CostOfSamples tells what Samples would read, if all it asks for were on one page.
func (s *Store) CostOfSamples(q SampleQuery) int {
	from, to, err := since(q.Cursor, q.From.UnixMilli(), q.To.UnixMilli()+1)
	if err != nil {
		return 0
	}
	e := s.extent(from, to)
	return len(s.identities(q.Node)) * (e.hours + openWeekly*e.weeks)
}

// CostOfWeeks tells what it takes to look into the files of a time, as Marks and Metrics do.
func (s *Store) CostOfWeeks(from, to time.Time) int {
	return openWeekly * s.extent(from.UnixMilli(), to.UnixMilli()+1).weeks
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
