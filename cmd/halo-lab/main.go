// Command halo-lab runs a virtual HALO network on this machine; see package
// lab.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"halo.internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := lab.Run(ctx, lab.Env{Name: os.Args[0], Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(code)
}
