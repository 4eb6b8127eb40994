package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"halo.internal/gateway/store"
	"halo.internal/model/wire"
)

// MaxImport is how many readings one Import takes.
const MaxImport = 1 << 15

// ErrClock is wrapped where the gateway's clock is a guess: whether a reading is too old
// to be kept cannot be told.
var ErrClock = errors.New("the clock is a guess")

// Imported is a reading that comes from elsewhere than its node.
type Imported struct {
	Node   string // canonical ID
	Metric string
	Unit   string
	Time   int64 // Unix milliseconds
	Value  float64
}

// Check tells what is wrong with a reading.
func (r *Imported) Check() error {
	if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) {
		return fmt.Errorf("%s: expected a number, got %v", r.Metric, r.Value)
	}
	return wire.Schema{Metrics: []wire.Metric{wire.NewMetric(r.Metric, r.Unit, wire.ScaleFloat)}}.Check()
}

// ImportResult says what became of imported readings.
type ImportResult struct {
	Stored     int
	Duplicate  int // their series has a reading of that instant
	Summarised int // of their time only minutes, or what is longer, are kept: whether they are in there cannot be told
	Misdated   int // older than is kept, or of the future
	Refused    int // of more metrics than a node may have within a week
	Crowded    int // they would make more within an hour than are kept
}

// Add adds up.
func (r *ImportResult) Add(o ImportResult) {
	r.Stored, r.Duplicate, r.Summarised = r.Stored+o.Stored, r.Duplicate+o.Duplicate, r.Summarised+o.Summarised
	r.Misdated, r.Refused, r.Crowded = r.Misdated+o.Misdated, r.Refused+o.Refused, r.Crowded+o.Crowded
}

// Import commits readings to the week files, past the journal: each week's together. What
// is there already stays as it is, so that the same may be imported again after a failure.
// Readings that Check refuses must not be among them. It makes no room on a full medium:
// what nodes have measured is not given up for this.
func (s *Store) Import(ctx context.Context, readings []Imported) (res ImportResult, err error) {
	if len(readings) > MaxImport {
		return res, fmt.Errorf("import: %w: expected at most %d readings at a time, got %d", ErrTooMuch, MaxImport, len(readings))
	}
	if !s.Sure() {
		return res, fmt.Errorf("import: %w", ErrClock)
	}
	s.tending.Lock()
	defer s.tending.Unlock()
	low, high := s.bounds()
	parts := map[week]map[string][]Imported{}
	nodes := map[string]bool{}
	waits := false
	for _, r := range readings {
		if r.Time < low || r.Time >= high {
			res.Misdated++
			continue
		}
		w := weekOf(r.Time)
		if parts[w] == nil {
			parts[w] = map[string][]Imported{}
		}
		parts[w][r.Node] = append(parts[w][r.Node], r)
		nodes[r.Node] = true
	}
	for node := range nodes {
		_, head := s.headOf(node, low, high)
		waits = waits || len(head) > 0
	}
	if waits { // a reading that is in the journal already is to be found in a file
		if err := s.compact(ctx); err != nil {
			return res, store.Classify(err)
		}
	}
	if err := s.know(ctx, slices.Sorted(maps.Keys(nodes))); err != nil {
		return res, err
	}
	defer s.wake() // days to be rolled up, or too much to be kept
	for _, w := range slices.Sorted(maps.Keys(parts)) {
		did, err := s.importWeek(ctx, w, parts[w])
		if errors.Is(err, store.ErrCorrupt) {
			if err = s.repair(ctx, w, err); err == nil {
				did, err = s.importWeek(ctx, w, parts[w])
			}
		}
		if err != nil {
			return res, fmt.Errorf("import %v: %w", w, err)
		}
		s.touched[w] = true
		res.Add(did)
	}
	return res, nil
}

// know writes down nodes of which nothing ever came.
func (s *Store) know(ctx context.Context, nodes []string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var fresh []*source
	for _, node := range nodes {
		if s.sources[node] == nil {
			fresh = append(fresh, newSource(s.lastSource+int64(len(fresh))+1, node))
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, src := range fresh {
			if _, err := tx.ExecContext(ctx, `INSERT INTO sources (id, node, sum) VALUES (?, ?, ?)`, src.id, src.node, nodeSum(src.id, src.node)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range fresh {
		s.sources[src.node], s.byID[src.id], s.lastSource = src, src, src.id
	}
	return nil
}

func (s *Store) importWeek(ctx context.Context, w week, nodes map[string][]Imported) (res ImportResult, err error) {
	f, err := s.ready(ctx, w)
	if err != nil {
		return res, err
	}
	defer s.weeks.release(f)
	e := newEdit(f)
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		hours := map[int64][]Imported{}
		for _, r := range nodes[node] {
			hour := floor(r.Time, hourMS) / hourMS
			hours[hour] = append(hours[hour], r)
		}
		scales := scalesOf(f, nodes[node])
		for _, hour := range slices.Sorted(maps.Keys(hours)) {
			did, err := s.importHour(ctx, e, node, hour, hours[hour], scales)
			if err != nil {
				return res, fmt.Errorf("%s, hour %d: %w", node, hour, err)
			}
			res.Add(did)
		}
	}
	if len(e.blocks) == 0 {
		return res, nil
	}
	_, err = s.commit(ctx, e, 0)
	return res, err
}

// importHour merges readings with the block of their hour.
func (s *Store) importHour(ctx context.Context, e *edit, node string, hour int64, readings []Imported, scales map[line]int8) (res ImportResult, err error) {
	if hour*hourMS < e.f.from.quarter {
		res.Summarised = len(readings)
		return res, nil
	}
	if minutes, err := s.stored(ctx, e.f, node, minute, hour, nil); err != nil {
		return res, err
	} else if minutes != nil {
		res.Summarised = len(readings)
		return res, nil
	}
	there, err := s.stored(ctx, e.f, node, raw, hour, nil)
	if err != nil {
		return res, err
	}
	type instant struct {
		line
		at int64
	}
	have := map[instant]bool{}
	if there != nil {
		for i := range there.Columns {
			col := &there.Columns[i]
			m := e.f.series[col.Series]
			for row, at := range there.Times {
				if col.Have == nil || col.Have[row] {
					have[instant{line{m.Name, m.Unit}, at}] = true
				}
			}
		}
	}
	id, all := e.node(node), newRows()
	for _, r := range readings {
		k := line{r.Metric, r.Unit}
		if have[instant{k, r.Time}] {
			res.Duplicate++
			continue
		}
		have[instant{k, r.Time}] = true
		n := e.number(id, wire.NewMetric(r.Metric, r.Unit, scales[k]))
		if n < 0 {
			res.Refused++
			continue
		}
		all.add(n, r.Time, bitsOf(r.Value, scales[k]))
		res.Stored++
	}
	if res.Stored == 0 {
		return res, nil
	}
	if there != nil {
		all.addBlock(there, func(n int) int { return n }) // behind: its rows say how good the clock was
	}
	body, left, err := all.encode(about(node, raw, hour))
	if err != nil {
		return res, err
	}
	if left > 0 { // not even of what is there anything would be given up
		res.Crowded, res.Stored = res.Stored, 0
		return res, nil
	}
	e.put(id, raw, hour, body)
	e.stale[nodeDay{id, floor(hour, 24) / 24}] = true
	return res, nil
}

// add takes a reading of one series.
func (r *rows) add(series int, at, bits int64) {
	row := int32(len(r.times))
	r.times, r.quality = append(r.times, at), append(r.quality, clockNumber("")) // nobody knows by which clock
	c := r.of(series)
	c.rows, c.values = append(c.rows, row), append(c.values, bits)
}

// scalesOf returns with how many decimal places the readings of each series are written:
// those of a series that the file has, where they do, so that it goes on; else as few as
// it takes.
func scalesOf(f *weekFile, readings []Imported) map[line]int8 {
	needs := map[line]int8{}
	values := map[line][]float64{}
	for _, r := range readings {
		k := line{r.Metric, r.Unit}
		needs[k] = max(needs[k], placesOf(r.Value)) // ScaleFloat is the highest
		values[k] = append(values[k], r.Value)
	}
	known := map[line][]int8{}
	for _, m := range f.series {
		k := line{m.Name, m.Unit}
		known[k] = append(known[k], m.Scale)
	}
	for k, need := range needs {
		slices.Sort(known[k])
		for _, scale := range known[k] {
			if scale >= need && !slices.ContainsFunc(values[k], func(v float64) bool { return !exact(v, scale) }) {
				needs[k] = scale
				break
			}
		}
		if slices.ContainsFunc(values[k], func(v float64) bool { return !exact(v, needs[k]) }) {
			needs[k] = wire.ScaleFloat
		}
	}
	return needs
}

// placesOf returns how many decimal places a value has; wire.ScaleFloat: more than a
// decimal of 64 bits holds.
func placesOf(v float64) int8 {
	_, places, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
	if len(places) > wire.MaxScale || !exact(v, int8(len(places))) {
		return wire.ScaleFloat
	}
	return int8(len(places))
}

// exact tells whether a value written with that scale is read as it was.
func exact(v float64, scale int8) bool {
	if scale == wire.ScaleFloat {
		return true
	}
	if scaled := v * math.Pow10(int(scale)); math.Abs(scaled) >= 1<<53 {
		return false
	}
	return wire.NewMetric("", "", scale).Number(wire.Int(bitsOf(v, scale))) == v
}

func bitsOf(v float64, scale int8) int64 {
	if scale == wire.ScaleFloat {
		return int64(math.Float64bits(v))
	}
	return int64(math.Round(v * math.Pow10(int(scale))))
}
