// Command halo-image builds card images, makes network bundles and writes
// cards.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"halo.internal/image/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := cli.New().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "halo-image:", err)
		os.Exit(1)
	}
}
