package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/image/network"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

func bundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Make networks and put their bundles onto cards",
	}
	cmd.AddCommand(bundleNewCommand(), bundlePutCommand())
	return cmd
}

func bundleNewCommand() *cobra.Command {
	var o network.Options
	var life time.Duration
	var out, pskFile string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a network: gateway.toml with its key and claim code, node.toml for all other cards",
		Long: `Makes a network: draws the gateway's key, the mesh's secret, a claim code and a
join token, and writes gateway.toml and node.toml, both secret, the first above
all: whoever holds it is the gateway.`,
		Example: "  halo-image bundle new --network valley --country DE --uses 12 --out valley",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pskFile != "" {
				b, err := os.ReadFile(pskFile)
				if err != nil {
					return err
				}
				o.PSK = string(trimNewline(b))
			}
			o.Expires = time.Now().Add(life)
			n, err := network.New(o)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			for _, b := range []bundle.Bundle{n.Gateway, n.Node} {
				if err := writeBundle(filepath.Join(out, string(b.Role)+".toml"), b); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", filepath.Join(out, "gateway.toml"), filepath.Join(out, "node.toml"))
			showClaim(cmd.OutOrStdout(), n.Gateway)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "network", "", "name of the network (required)")
	f.StringVar(&o.Country, "country", "", "country of operation, two letters (required)")
	f.StringVar(&o.SSID, "ssid", "", "SSID of the mesh (default: the network's name)")
	f.StringVar(&pskFile, "psk-file", "", "file with the mesh's secret (default: drawn)")
	f.IntVar(&o.Channel, "channel", 0, "Wi-Fi channel of the mesh, 1 to 14 or 36 to 177 (default: 1)")
	f.IntVar(&o.Width, "width", 0, "of the channel in MHz, 20 or 40 (default: 20)")
	f.StringVar(&o.MFP, "mfp", "", "management frame protection: required, optional or off (default: required)")
	f.StringVar(&o.SAE, "sae", "", "hash-to-element or, to mesh with wpa_supplicant, hunting-and-pecking (default: hash-to-element)")
	f.IntVar(&o.BeaconInterval, "beacon-interval", 0, "in time units of 1.024 ms (default: 1000)")
	f.IntVar(&o.HaLowChannel, "halow-channel", 0, "S1G channel of the mesh's HaLow radios, by its number, which fixes the width too (default: none, and they stay off)")
	f.StringVar(&o.HaLowScheme, "halow-scheme", "", "numbering of S1G channels, where the country has several: 802.11-2020, 802.11-2024 or 802.11-REVmf")
	f.StringVar(&o.Routing, "routing", "BATMAN_IV", "BATMAN_IV or BATMAN_V")
	f.IntVar(&o.HopPenalty, "hop-penalty", 0, "what routing takes off a way for each node that passes on, of 255 (default: batman-adv's own, 30)")
	f.Uint32Var(&o.Uses, "uses", 16, "how many nodes may join with node.toml")
	f.DurationVar(&life, "expires", 30*24*time.Hour, "how long they may")
	f.StringVar(&out, "out", ".", "folder for the two files")
	for _, name := range []string{"network", "country"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic("halo-image: " + err.Error()) // the flag is defined above
		}
	}
	return cmd
}

// writeBundle never replaces a file: it may be the only copy of a gateway's
// key.
func writeBundle(path string, b bundle.Bundle) error {
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and may hold a network's only key; choose another --out", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func bundlePutCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "put BUNDLE IMAGE|DEVICE",
		Short: "Put a bundle into the boot partition of an image or of a written card",
		Long: `Puts a bundle (from halo-image bundle new, or exported by haloctl network
export) as halo.toml into the boot partition of an image file or of a card. The
device imports it when it next starts and blanks its secrets there.`,
		Example: "  halo-image bundle put valley/node.toml --name mast-3 /dev/sdb",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0], name)
			if err != nil {
				return err
			}
			if err := network.Put(cmd.Context(), b, args[1]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: bundle of network %s for a %s\n", args[1], b.Network, b.Role)
			showClaim(cmd.OutOrStdout(), b)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of this device")
	return cmd
}

func readBundle(path, name string) (bundle.Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Bundle{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, bundle.MaxSize+1))
	if err != nil {
		return bundle.Bundle{}, err
	}
	b, err := bundle.Parse(path, raw)
	if err == nil {
		err = b.Mesh.CheckChosen()
	}
	if err != nil {
		return bundle.Bundle{}, err
	}
	if name == "" {
		return b, nil
	}
	b.Name = name
	if err := b.Check(); err != nil {
		return bundle.Bundle{}, fmt.Errorf("--name: %w", err)
	}
	return b, nil
}

// showClaim tells the person at the keyboard, who holds the bundle anyway, the
// code that the gateway's first user needs.
func showClaim(w io.Writer, b bundle.Bundle) {
	if b.Role == model.RoleGateway && b.Gateway.ClaimCode != "" {
		fmt.Fprintf(w, "\nClaim code of the gateway (haloctl claim asks for it once): %s\n", b.Gateway.ClaimCode)
	}
}

func trimNewline(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}
