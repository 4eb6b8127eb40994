package benchgateway_test

import (
	"os"
	"testing"
	"time"

	"halo.internal/hal/card/disktest"
	"halo.internal/lab/load"
)

// BenchmarkCard is what all of gateway-api writes to a card in a day: 100 nodes of twelve
// metrics every ten seconds, which send once a minute, and report whom they hear; readings,
// config.db, the picture's history, and the file system's journal, as the disk counts the
// sectors. It is looked at for HALO_CARD (ten minutes). With commits every ten seconds the log
// grows for the first quarter of an hour, by way of the file system's journal, which doubles
// what a commit costs: 25m has that and as much of what comes after it, 65m an hour's
// compaction besides.
func BenchmarkCard(b *testing.B) {
	long := 10 * time.Minute
	if text := os.Getenv("HALO_CARD"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil || long < time.Minute {
			b.Fatalf("HALO_CARD: expected a minute or more, got %q", text)
		}
	}
	for _, every := range []time.Duration{10 * time.Second, time.Minute} {
		b.Run("commits every "+every.String(), func(b *testing.B) {
			for b.Loop() {
				card(b, every, long)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func card(b *testing.B, every, long time.Duration) {
	disk := disktest.New(b)
	const settled = time.Minute // until what joining wrote has been written
	type look struct {
		at      time.Duration
		written int64
	}
	var first, last look
	f, err := load.Run(b.Context(), load.Options{Program: os.Getenv(gatewayProgram), Dir: disk.Dir, Flags: []string{"--commit-every", every.String()},
		Nodes: 100, For: settled + long, Pin: true, Say: func(text string) { b.Log(text) },
		Show: func(r load.Row) {
			if r.Phase != "steady" {
				return
			}
			l := look{r.After, disk.Written(b)}
			if first.at == 0 {
				first = look{at: r.After}
			} else if first.written == 0 && r.After-first.at >= settled {
				disk.Sync(b)
				first = look{r.After, disk.Written(b)}
			}
			last = l
		}})
	if err != nil {
		b.Fatal(err)
	}
	if first.written == 0 || last.at <= first.at {
		b.Fatal("nothing was looked at")
	}
	b.ReportMetric(float64(last.written-first.written)/(last.at-first.at).Hours()*24/1e9, "GB-written/day")
	b.ReportMetric(f.PerSecond, "samples/s")
	b.ReportMetric(float64(f.Errors), "errors")
}
