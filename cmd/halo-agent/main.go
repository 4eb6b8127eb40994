// Command halo-agent is the data plane of a node: telemetry, kept until the
// gateway has it. On a board it takes no flags.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"halo.internal/agent"
	"halo.internal/model/version"
)

// softLimit makes the runtime give memory back before the board feels it.
const softLimit = 24 << 20

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "halo-agent:", err)
		os.Exit(1)
	}
}

func run() error {
	var s agent.Settings
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.TextVar(&s.Sample, "sample", s.Sample, "`time` between two samples (10s)")
	flag.TextVar(&s.Send, "send", s.Send, "`time` between two batches (60s)")
	flag.TextVar(&s.SpoolDelay, "spool-delay", s.SpoolDelay, "`time` until an unacknowledged reading is on disk (120s)")
	flag.Int64Var(&s.SpoolBudgetMiB, "spool-budget", 0, "`MiB` of disk for what is not acknowledged (64)")
	flag.StringVar(&s.Gateway, "gateway", "", "`address` of the stream, ws://host:port/path")
	flag.Parse()
	if *showVersion {
		fmt.Println("halo-agent", version.Get())
		return nil
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("expected flags only, got %q", flag.Args())
	}
	debug.SetMemoryLimit(softLimit)
	c, err := agent.Machine(s, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return agent.Run(ctx, c)
}
