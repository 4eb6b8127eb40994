// Command halo-air is the radio hardware of a virtual machine; see package guest.
// Only images for virtual boards hold it, and a machine of theirs that takes part
// in no air does not need it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"halo.internal/hal/sched"
	"halo.internal/lab/air/guest"
	"halo.internal/model/version"
)

// exitUnneeded tells gokrazy that this process is not wanted on this device.
const exitUnneeded = 125

// softLimit makes the runtime give memory back before the machine feels it.
const softLimit = 12 << 20

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "halo-air:", err)
	}
	os.Exit(code)
}

func run() (int, error) {
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println("halo-air", version.Get())
		return 0, nil
	}
	if flag.NArg() > 0 {
		return 2, fmt.Errorf("expected flags only, got %q", flag.Args())
	}
	debug.SetMemoryLimit(softLimit)
	if err := sched.Realtime(); err != nil { // a radio waits for no program
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := guest.Run(ctx)
	switch {
	case errors.Is(err, guest.ErrNoAir):
		return exitUnneeded, nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}
