package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
	"halo.internal/model/atomicfile"
)

const supportLong = `Support writes one file with all that a device says of itself, for whoever helps
from afar: state and events, health, radios, interfaces, firewall, names, the last
lines that HALO's processes logged, kernel messages, the last crashes. There is no secret in it, but names, addresses and
who speaks with whom.

It asks the gateway, with --node another node, with --local the device that
haloctl runs on.`

func (a *app) supportCommand() *cobra.Command {
	var out string
	c := a.askDevice("support", "one file with all that a device says of itself", cobra.NoArgs, func(ctx context.Context, from air, _ []string) error {
		if a.env.Console != "" {
			return &usageError{errors.New("a console has no place for a file: haloctl support --node, from a laptop")}
		}
		file := out
		if file == "" {
			file = "halo-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
		}
		var b bytes.Buffer // whole, so that what fails leaves no half a file
		if err := from.Support(ctx, &b); err != nil {
			return err
		}
		if file == "-" {
			_, err := a.env.Stdout.Write(b.Bytes())
			return err
		}
		if err := atomicfile.Write(file, b.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(a.env.Stderr, "Wrote %s: %s.\n", file, table.Bytes(int64(b.Len())))
		return nil
	})
	c.Long = supportLong
	c.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output (default: halo-support-TIME.tar.gz here)")
	return c
}
