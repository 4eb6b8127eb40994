// Command haloctl shows and changes a HALO network from a shell; see package
// ctl.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"halo.internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := ctl.Run(ctx, ctl.Process())
	stop()
	os.Exit(code)
}
