package collect

import (
	"context"
	"math"

	"github.com/prometheus/procfs"
)

type load struct{ fs procfs.FS }

func newLoad(fs procfs.FS) load { return load{fs} }

func (load) Name() string { return "load" }

func (l load) Collect(context.Context) ([]Reading, error) {
	avg, err := l.fs.LoadAvg()
	if err != nil {
		return nil, err
	}
	hundredths := func(f float64) int64 { return int64(math.Round(f * 100)) }
	return []Reading{
		integer("system.load.avg_1m", "", 2, hundredths(avg.Load1)),
		integer("system.load.avg_5m", "", 2, hundredths(avg.Load5)),
		integer("system.load.avg_15m", "", 2, hundredths(avg.Load15)),
	}, nil
}
