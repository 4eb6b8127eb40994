package telemetry

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/hal/card/disktest"
	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

// board makes the batches of a node.
type board struct {
	*wiretest.Board
	schema wire.Schema
}

func newBoard(seed uint64) *board { return &board{wiretest.NewBoard(seed), wiretest.Schema()} }

// batch is the next one of that many reports ten seconds apart.
func (d *board) batch(t testing.TB, node string, at time.Time, reports int) Entry {
	return entry(t, node, d.schema, d.Batch(1, at, reports, 10*time.Second))
}

// cpu is the processor time of this process.
func cpu(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// receive does what the gateway does with a batch that came, but for the network.
func (b *bench) receive(group [][]byte, nodes []string) {
	b.t.Helper()
	entries := make([]Entry, len(group))
	for i, data := range group {
		h, err := wire.DecodeHeader(data)
		if err != nil {
			b.t.Fatal(err)
		}
		s, err := b.Schema(h.Schema)
		if err != nil {
			b.t.Fatal(err)
		}
		batch, err := wire.Decode(data, s)
		if err != nil {
			b.t.Fatal(err)
		}
		entries[i] = Entry{Node: nodes[i], Schema: s, Batch: batch, Data: data}
	}
	if slices.ContainsFunc(b.append(entries...), func(o Outcome) bool { return o != Stored }) {
		b.t.Fatal("expected all to be stored")
	}
}

// BenchmarkIngest reports samples per second of processor time: decoded, deduplicated and
// committed with fsync; and with the compaction of all that.
func BenchmarkIngest(b *testing.B) {
	for _, size := range []struct {
		name           string
		reports, group int
	}{{"72", 6, 256}, {"10000", 833, 16}} {
		b.Run(size.name, func(b *testing.B) {
			const nodes, groups = 64, 24
			s := benchIn(b, b.TempDir(), nil)
			boards := make([]*board, nodes)
			for i := range boards {
				boards[i] = newBoard(uint64(i))
			}
			if err := s.PutSchema(b.Context(), "n-a", boards[0].schema); err != nil {
				b.Fatal(err)
			}
			at := make([]time.Time, nodes)
			for i := range at {
				at[i] = epoch.Add(time.Duration(i) * time.Millisecond)
			}
			samples, taking, moving := 0, time.Duration(0), time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				var all [][][]byte
				var whose [][]string
				for g := range groups {
					var group [][]byte
					var names []string
					for i := range size.group {
						n := (g*size.group + i) % nodes
						group = append(group, boards[n].batch(b, fmt.Sprint("n-", n), at[n], size.reports).Data)
						names = append(names, fmt.Sprint("n-", n))
						at[n] = at[n].Add(time.Duration(size.reports) * 10 * time.Second)
						samples += 12 * size.reports
					}
					all, whose = append(all, group), append(whose, names)
				}
				s.at = at[0]
				b.StartTimer()
				begin := cpu(b)
				for i := range all {
					s.receive(all[i], whose[i])
				}
				taking += cpu(b) - begin
				begin = cpu(b)
				s.tend()
				moving += cpu(b) - begin
			}
			b.ReportMetric(float64(samples)/taking.Seconds(), "samples/cpu-s")
			b.ReportMetric(float64(samples)/(taking+moving).Seconds(), "samples/cpu-s-compacted")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkDay is a day of 100 nodes of twelve metrics every ten seconds, which send once a
// minute: what it takes on a card, and how much is written to that, as its disk counts the
// sectors.
func BenchmarkDay(b *testing.B) {
	for _, every := range []time.Duration{10 * time.Second, time.Minute} {
		b.Run("commits every "+every.String(), func(b *testing.B) {
			for b.Loop() {
				day100(b, 100, every)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// flusher is how often a kernel writes what has become dirty: of the time that passes here
// within minutes.
const flusher = 30 * time.Second

func day100(b *testing.B, nodes int, every time.Duration) {
	c := disktest.New(b)
	s := benchIn(b, c.Dir, nil)
	boards := make([]*board, nodes)
	for i := range boards {
		boards[i] = newBoard(uint64(i))
	}
	if err := s.PutSchema(b.Context(), "n-a", boards[0].schema); err != nil {
		b.Fatal(err)
	}
	begin, samples := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), 0
	c.Sync(b)
	before, used := c.Written(b), cpu(b)
	hour, flushed := begin.Hour(), begin
	for at := begin; at.Before(begin.Add(24*time.Hour + 5*time.Minute)); at = at.Add(every) {
		var group []Entry
		for i := range boards { // each at its second of the minute
			if of := begin.Add(time.Duration(i) * time.Minute / time.Duration(nodes)); at.Add(every).Sub(of)/time.Minute > at.Sub(of)/time.Minute && at.After(begin.Add(time.Minute)) {
				group = append(group, boards[i].batch(b, fmt.Sprint("n-", i), at.Add(-time.Minute), 6))
				samples += 72
			}
		}
		s.at = at
		s.append(group...)
		if now := at.Add(-afterHour).Hour(); now != hour {
			hour = now
			s.tend()
		}
		if at.Sub(flushed) >= flusher {
			flushed = at
			c.Sync(b)
		}
	}
	s.tend()
	c.Sync(b)
	b.ReportMetric(float64(c.Written(b)-before)/1e9, "GB-written/day")
	b.ReportMetric(float64(samples)/(cpu(b)-used).Seconds(), "samples/cpu-s-all")
	files := s.Bytes() - s.db.FileBytes()
	b.ReportMetric(float64(files)/float64(samples), "B/sample")
	b.ReportMetric(float64(s.db.FileBytes())/1e6, "journal-MB")
	s.close()
}

// BenchmarkRecorded reports what recorded telemetry takes, rollups included, once it has
// cooled: HALO_RECORDED names a file that haloctl telemetry export has written as CSV. What
// is shorter than a day is also put before itself, in hours of their own, until it is one
// (a-day): files have a size to begin with, and an hour's block knows nothing of the others.
func BenchmarkRecorded(b *testing.B) {
	path := os.Getenv("HALO_RECORDED")
	if path == "" {
		b.Fatal("HALO_RECORDED: expected a file such as haloctl telemetry export --from 24h --out FILE has written")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var all []Imported
	for i, record := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		f := strings.Split(strings.TrimSpace(record), ",")
		if len(f) != 5 {
			b.Fatalf("line %d: expected time,node,metric,unit,value, got %q", i+2, record)
		}
		at, err1 := time.Parse(time.RFC3339Nano, f[0])
		v, err2 := strconv.ParseFloat(f[4], 64)
		if err := errors.Join(err1, err2); err != nil {
			b.Fatalf("line %d: %v", i+2, err)
		}
		all = append(all, Imported{f[1], f[2], f[3], at.UnixMilli(), v})
	}
	byTime := func(x, y Imported) int { return cmp.Compare(x.Time, y.Time) }
	first, last := slices.MinFunc(all, byTime).Time, slices.MaxFunc(all, byTime).Time
	for b.Loop() {
		keeps(b, all, last, "")
		const hour = 3_600_000
		span := (last-first)/hour*hour + hour
		if times := 24 * hour / span; times > 1 {
			day := make([]Imported, 0, len(all)*int(times))
			for i := range times {
				for _, x := range all {
					x.Time -= i * span
					day = append(day, x)
				}
			}
			keeps(b, day, last, "-a-day")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// keeps reports what readings take two days after the last of them.
func keeps(b *testing.B, all []Imported, last int64, suffix string) {
	s := benchIn(b, b.TempDir(), nil)
	defer s.close()
	s.at = time.UnixMilli(last).Add(48 * time.Hour)
	res := s.imports(all)
	s.tend() // the days are over
	if res.Stored < len(all)/2 {
		b.Fatalf("%+v", res)
	}
	b.ReportMetric(float64(s.Bytes()-s.db.FileBytes())/float64(res.Stored), "B/sample"+suffix)
	b.ReportMetric(float64(res.Stored)/1e6, "Msamples"+suffix)
}

// BenchmarkQueries has 250 nodes with a day of telemetry, and as many files as a year has.
func BenchmarkQueries(b *testing.B) {
	s := benchIn(b, b.TempDir(), nil)
	const nodes = 250
	boards := make([]*board, nodes)
	for i := range boards {
		boards[i] = newBoard(uint64(i))
	}
	if err := s.PutSchema(b.Context(), "n-a", boards[0].schema); err != nil {
		b.Fatal(err)
	}
	end := time.Date(2026, 11, 25, 9, 40, 0, 0, time.UTC)
	s.at = end
	for at := end.Add(-52 * 7 * 24 * time.Hour); at.Before(end.Add(-8 * 24 * time.Hour)); at = at.Add(7 * 24 * time.Hour) {
		var group []Entry
		for i := range nodes {
			group = append(group, boards[i].batch(b, fmt.Sprint("n-", i), at, 60))
		}
		s.append(group...)
		s.tend() // a node may have so many weeks in the head
	}
	for h := 25; h >= 0; h-- {
		var group []Entry
		for i := range nodes {
			for m := range 6 {
				if at := end.Add(-time.Duration(h)*time.Hour + time.Duration(m)*10*time.Minute); at.Before(end) {
					group = append(group, boards[i].batch(b, fmt.Sprint("n-", i), at, 60))
				}
			}
		}
		s.append(group...)
		if h > 1 {
			s.tend()
		}
	}
	p99 := func(b *testing.B, f func(i int)) {
		var took []time.Duration
		i := 0
		for b.Loop() {
			begin := cpu(b) // of this process: others share the machine
			f(i)
			took = append(took, cpu(b)-begin)
			i++
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-cpu-ms")
		b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-cpu-ms")
	}
	b.Run("24 h of one metric by 1 min", func(b *testing.B) {
		p99(b, func(i int) {
			points := 0
			q := Query{Nodes: []string{fmt.Sprint("n-", i*7%nodes)}, Metrics: []string{"system.cpu.used_percent"}, From: end.Add(-24 * time.Hour), To: end, Step: time.Minute}
			if _, err := s.Range(b.Context(), q, func(s Series) error { points += len(s.Points); return nil }); err != nil || points < 1400 {
				b.Fatal(points, err)
			}
		})
	})
	b.Run("1 h of one metric of all nodes summed by 1 min", func(b *testing.B) {
		p99(b, func(int) {
			q := Query{Metrics: []string{"system.cpu.used_percent"}, From: end.Add(-time.Hour), To: end, Step: time.Minute, Across: Sum}
			if _, err := s.Range(b.Context(), q, func(Series) error { return nil }); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("a year of one metric by 1 d", func(b *testing.B) {
		p99(b, func(i int) {
			q := Query{Nodes: []string{fmt.Sprint("n-", i*7%nodes)}, Metrics: []string{"system.cpu.used_percent"}, From: end.Add(-365 * 24 * time.Hour), To: end, Step: 24 * time.Hour}
			if _, err := s.Range(b.Context(), q, func(Series) error { return nil }); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("latest of one node", func(b *testing.B) {
		p99(b, func(i int) { s.Latest().Node(fmt.Sprint("n-", i*7%nodes), "") })
	})
	b.Run("start", func(b *testing.B) {
		p99(b, func(int) { s.restart() })
	})
}
