// Command halo-mesh makes a device part of its network: mesh, identity, time,
// membership and overlay. Package mesh is the daemon.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"halo.internal/hal/sched"
	"halo.internal/mesh"
	"halo.internal/model/version"
)

// nice is halo-mesh's: peers and the kernel wait for its answers for a few seconds
// only, and a device without a mesh is lost, whatever its other programs have to do.
const nice = -10

func run(log *slog.Logger) error {
	if err := sched.Nice(nice); err != nil {
		log.Warn("halo-mesh runs as all others do", "err", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c, err := mesh.Machine(ctx, log)
	if err != nil {
		return err
	}
	return mesh.Run(ctx, c)
}

func main() {
	show := flag.Bool("version", false, "print version, commit, build time and Go version")
	flag.Parse()
	if *show {
		fmt.Println("halo-mesh", version.Get())
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("halo-mesh ends", "err", err)
		os.Exit(1)
	}
}
