package guard

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestCopiesOfTheDiskAreToldOnceWhileTheyAreThere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan diskChange)
	var told []diskChange
	done := make(chan struct{})
	go func() {
		defer close(done)
		alike := func(name string) bool { return strings.HasPrefix(name, "sd") || name == "mmcblk0" }
		twins(ctx, "mmcblk0", []string{"mmcblk0", "sda", "vda"}, changes, alike, func(c diskChange) { told = append(told, c) })
	}()
	in, out := func(name string) diskChange { return diskChange{name: name} }, func(name string) diskChange { return diskChange{name, true} }
	for _, c := range []diskChange{in("sda"), in("vdb"), in("sdb"), in("mmcblk0"), in("sdb"), out("vdb"), out("sdb"), out("sdb"), out("mmcblk0"), in("mmcblk0"), in("sdb")} {
		changes <- c
	}
	cancel()
	<-done
	if want := []diskChange{in("sda"), in("sdb"), out("sdb"), in("sdb")}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

func TestTheReportForgetsACopyThatIsGone(t *testing.T) {
	g := &Guard{log: slog.New(slog.DiscardHandler), order: Order{Disk: "mmcblk0"}}
	g.report.Problems = []string{"early"}
	const sda, sdb = "two disks are alike: sda is a copy of mmcblk0, which runs: remove it, or write it anew", "two disks are alike: sdb is a copy of mmcblk0, which runs: remove it, or write it anew"
	for _, step := range []struct {
		change diskChange
		want   []string
	}{
		{diskChange{"sda", false}, []string{"early", sda}},
		{diskChange{"sdb", false}, []string{"early", sda, sdb}},
		{diskChange{"sda", true}, []string{"early", sdb}},
		{diskChange{"sda", false}, []string{"early", sdb, sda}},
	} {
		if g.tellTwin(step.change); !slices.Equal(g.report.Problems, step.want) {
			t.Errorf("after %+v: %q, want %q", step.change, g.report.Problems, step.want)
		}
	}
}
