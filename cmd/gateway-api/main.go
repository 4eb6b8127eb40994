// Command gateway-api is the control plane of a HALO network. On a gateway's
// board it takes no flags; with --data it runs alone on a laptop.
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
	"time"

	"halo.internal/gateway"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// exitUnneeded tells gokrazy that this process is not wanted on this device.
const exitUnneeded = 125

// softLimit is all but the program's 22 MB: 250 nodes use half, the rest keeps collections rare.
const softLimit = 60 << 20

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway-api:", err)
	}
	os.Exit(code)
}

func run() (int, error) {
	showVersion := flag.Bool("version", false, "print the version and exit")
	data := flag.String("data", "", "run alone, without a mesh, and keep everything in this `directory`")
	listen := flag.String("listen", "127.0.0.1:8080", "with --data: `address` of plain HTTP, on the loopback (or the overlay) only")
	secure := flag.String("listen-tls", "", "with --data: `address` of TLS, e.g. :8443")
	every := flag.Duration("commit-every", time.Second, "with --data: how long readings that are not urgent wait to be written, as a board's wait ten seconds")
	flag.Parse()
	if *showVersion {
		fmt.Println("gateway-api", version.Get())
		return 0, nil
	}
	debug.SetMemoryLimit(softLimit)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := gateway.Board(log)
	if *data != "" {
		c = gateway.Laptop(*data, []string{*listen}, os.Stdout, log)
		if *every <= 0 || *every > time.Minute {
			return 1, fmt.Errorf("--commit-every: expected up to a minute, got %s", *every)
		}
		c.Every = *every
		if *secure != "" {
			c.TLS = []string{*secure}
		}
	} else if role, err := model.ImageRole(paths.ImageInfo); err != nil {
		return 1, fmt.Errorf("%w; on a laptop, use --data", err)
	} else if role != model.RoleGateway {
		return exitUnneeded, nil
	}
	c.Confine = true
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := gateway.Run(ctx, c); err != nil {
		return 1, err
	}
	return 0, nil
}
