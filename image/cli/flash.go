package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"halo.internal/image/flash"
	"halo.internal/image/network"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

func flashCommand() *cobra.Command {
	var image, bundlePath, name string
	var force bool
	cmd := &cobra.Command{
		Use:   "flash DEVICE",
		Short: "Write an image to a card and verify it",
		Long: `Writes an image to a card, reads it back, and puts a bundle onto it. Refuses a
disk that is mounted or not removable, unless forced. Everything on the card is
lost.`,
		Example: "  halo-image flash --image out/halo-gateway-rpi4b.img --bundle valley/gateway.toml /dev/sdb",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.ErrOrStderr()
			if name != "" && bundlePath == "" {
				return errors.New("--name goes into a bundle: expected --bundle beside it")
			}
			role, err := network.Role(cmd.Context(), image)
			if err != nil {
				return err
			}
			var b bundle.Bundle
			if bundlePath != "" { // before anything is written
				if b, err = readBundle(bundlePath, name); err != nil {
					return err
				}
				if role != "" && role != string(b.Role) {
					return fmt.Errorf("%w: %s is for a %s, %s for a %s", network.ErrRole, bundlePath, b.Role, image, role)
				}
			}
			if err := write(cmd, image, args[0], force, out); err != nil {
				return err
			}
			if bundlePath != "" {
				if err := network.Put(cmd.Context(), b, args[0]); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is written and verified; it can be taken out.\n", args[0])
			switch {
			case bundlePath != "":
				showClaim(cmd.OutOrStdout(), b)
			case role == string(model.RoleGateway):
				fmt.Fprintln(cmd.OutOrStdout(), "Without a bundle the gateway makes its key and claim code at its first start; the code is shown on its console and in claim.txt on the boot partition.")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&image, "image", "", "image file (required)")
	f.StringVar(&bundlePath, "bundle", "", "bundle to put onto the card")
	f.StringVar(&name, "name", "", "name of this device, in the bundle")
	f.BoolVar(&force, "force", false, "write even to a disk that is mounted or not removable")
	if err := cmd.MarkFlagRequired("image"); err != nil {
		panic("halo-image: " + err.Error()) // the flag is defined above
	}
	return cmd
}

// write writes and verifies, with a line for each tenth.
func write(cmd *cobra.Command, image, device string, force bool, out io.Writer) (err error) {
	src, size, err := flash.Image(image)
	if err != nil {
		return err
	}
	defer src.Close()
	card, err := flash.Open(device, force)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	if card.Size < size {
		return fmt.Errorf("%s: expected a card of at least %.1f GB, got %.1f GB", device, float64(size)/1e9, float64(card.Size)/1e9)
	}
	tenth := -1
	err = flash.Write(cmd.Context(), card, src, size, card.Flush, func(share float64) {
		if t := int(share * 10); t != tenth {
			tenth = t
			what := "writing"
			if share > 0.5 {
				what = "verifying"
			}
			fmt.Fprintf(out, "%-10s %3d %%\n", what, t*10)
		}
	})
	if err != nil {
		return err
	}
	if err := card.Reread(); err != nil {
		// The card is written all the same; only this host does not see its partitions yet.
		fmt.Fprintf(out, "note: %v: take the card out and put it in again to look at it\n", err)
	}
	return nil
}
