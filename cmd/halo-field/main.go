// Command halo-field serves a node's status page. A gateway does not need it.
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

	"halo.internal/field"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// exitUnneeded tells gokrazy that this process is not wanted on this device.
const exitUnneeded = 125

// softLimit makes the runtime give memory back before the board feels it.
const softLimit = 16 << 20

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "halo-field:", err)
	}
	os.Exit(code)
}

func run() (int, error) {
	showVersion := flag.Bool("version", false, "print the version and exit")
	listen := flag.String("listen", fmt.Sprintf(":%d", paths.FieldPort), "`address` of the page")
	flag.Parse()
	if *showVersion {
		fmt.Println("halo-field", version.Get())
		return 0, nil
	}
	if flag.NArg() > 0 {
		return 2, fmt.Errorf("expected flags only, got %q", flag.Args())
	}
	role, err := model.ImageRole(paths.ImageInfo)
	if err != nil {
		return 1, err
	}
	if role == model.RoleGateway {
		return exitUnneeded, nil
	}
	debug.SetMemoryLimit(softLimit)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := field.Run(ctx, field.Config{Listen: *listen, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}); err != nil {
		return 1, err
	}
	return 0, nil
}
