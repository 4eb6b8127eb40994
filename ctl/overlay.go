package ctl

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/doorway"
	"halo.internal/ctl/table"
	"halo.internal/identity"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

const overlayLong = `Overlay gives this machine, or another of your devices, a place in the encrypted
network of the nodes, by WireGuard: it reaches the gateway's API at 10.42.0.1, names
below .halo, the doors of nodes and their clients. It is no member of the mesh.

The place holds as long as the operator's certificate that it was registered with
(haloctl operator show). Register with the same file again, and it is renewed under
the same key and address. From the uplink, the gateway's firewall has to let
WireGuard in: haloctl firewall open uplink wireguard.`

func (a *app) overlayCommand() *cobra.Command {
	var out, label, endpoint string
	register := a.call("register", "give a device a place in the overlay, and write its WireGuard settings", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if out == "" {
			return &usageError{errors.New("--out: expected a file for the WireGuard settings, such as halo.conf")}
		}
		return a.overlayRegister(ctx, c, out, cmp.Or(label, hostname()), endpoint)
	})
	register.Flags().StringVar(&out, "out", "", "`file` of wg-quick to write, readable by you alone; the key of one that is there is kept")
	register.Flags().StringVar(&label, "label", "", "what the device is called; this machine's `name`, if left out")
	register.Flags().StringVar(&endpoint, "endpoint", "", "`address:port` at which the device reaches the gateway's WireGuard; the first that is open, if left out")
	g := group("overlay", "devices of people's in the encrypted network", register,
		a.call("list", "devices: all for an admin, else the own", cobra.NoArgs, a.overlayList),
		a.completes(a.call("remove ID", "take a device's place away", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RemoveOverlayVisitor(ctx, args[0]); err != nil {
				return notFound(err, "haloctl overlay list shows the devices")
			}
			a.say("%s has no place in the overlay any more.", args[0])
			return nil
		}), func(ctx context.Context, c *client.Client) ([]string, error) {
			return names(ctx, c.OverlayVisitors, func(v apitype.OverlayVisitor) (string, string) { return v.ID, v.Label })
		}),
	)
	g.Long = overlayLong
	return g
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name[:min(len(name), 63)]
}

func (a *app) overlayRegister(ctx context.Context, c *client.Client, out, label, endpoint string) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	network, err := identity.ParsePublicKey(t.prof.NetworkKey)
	if err != nil {
		return fmt.Errorf("%s: network_key: %w", t.path, err)
	}
	cred, err := doorway.LoadCredential(besides(t.path, operatorSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return errNoCertificate
	}
	if err != nil {
		return err
	}
	owner, err := cred.Key()
	if err != nil {
		return err
	}
	private, err := wireGuardKey(out)
	if err != nil {
		return err
	}
	proof, err := identity.ProvePossession(network, owner.Public(), [32]byte(private.Bytes()))
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	r, err := c.RegisterOverlay(ctx, apitype.RegisterOverlay{PublicKey: encode(private.PublicKey().Bytes()), Possession: encode(proof), Certificate: cred.Serial, Label: label})
	if err != nil {
		return err
	}
	if err := plainSettings(r); err != nil {
		return fmt.Errorf("%s is left as it is: %w", out, err)
	}
	open := endpoint != ""
	if len(r.Endpoints) > 0 && endpoint == "" {
		endpoint, open = r.Endpoints[0].Address.String(), r.Endpoints[0].Open
	}
	if err := atomicfile.Write(out, wgQuick(private, r, endpoint), 0o600); err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) error {
		fmt.Fprintf(w, "%s has the address %s until %s. Wrote %s: a secret; wg-quick up takes it.\n", table.Clean(cmp.Or(r.Label, r.ID)), r.OverlayV4, r.Expires.UTC().Format("2006-01-02"), out)
		switch {
		case endpoint == "":
			fmt.Fprintln(w, "The gateway does not say where its WireGuard is reached: give --endpoint.")
		case !open:
			fmt.Fprintf(w, "The firewall shuts WireGuard off from the zone %s: haloctl firewall open %[1]s wireguard, then apply and confirm.\n", r.Endpoints[0].Zone)
		}
		return nil
	})
}

// wireGuardKey returns the private key of a file of wg-quick's that is there, or a fresh
// one.
func wireGuardKey(path string) (*ecdh.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ecdh.X25519().GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "PrivateKey") {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		if err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("%s: PrivateKey: expected 32 octets in base64", path)
		}
		return ecdh.X25519().NewPrivateKey(raw)
	}
	return nil, fmt.Errorf("%s: expected WireGuard settings with a PrivateKey; name another file", path)
}

// plainSettings tells whether what the gateway says is keys and addresses and nothing else:
// wg-quick, which is root, carries out whatever lines its file has.
func plainSettings(r apitype.OverlayRegistration) error {
	if key, err := base64.StdEncoding.DecodeString(r.Gateway); err != nil || len(key) != 32 || base64.StdEncoding.EncodeToString(key) != r.Gateway {
		return fmt.Errorf("expected the gateway's WireGuard key, 32 octets in base64, got %.60q; try again when its halo-mesh answers", r.Gateway)
	}
	zones := r.OverlayV4.Zone() + r.DNS.Zone()
	for _, e := range r.Endpoints {
		zones += e.Address.Addr().Zone()
	}
	if zones != "" || !r.OverlayV4.Is4() || !r.DNS.IsValid() {
		return fmt.Errorf("expected addresses without zones, got %.200q", fmt.Sprint(r.OverlayV4, r.DNS, r.Endpoints))
	}
	return nil
}

// wgQuick is what wg-quick reads.
func wgQuick(private *ecdh.PrivateKey, r apitype.OverlayRegistration, endpoint string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s in the overlay; renew with haloctl overlay register before %s.\n[Interface]\nPrivateKey = %s\nAddress = %s/32\n",
		table.Clean(cmp.Or(r.Label, r.ID)), r.Expires.UTC().Format("2006-01-02"), base64.StdEncoding.EncodeToString(private.Bytes()), r.OverlayV4)
	fmt.Fprintf(&b, "DNS = %s, halo\nMTU = %d\n\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\nPersistentKeepalive = %d\n",
		r.DNS, r.MTU, r.Gateway, strings.ReplaceAll(words(r.AllowedIPs), " ", ", "), r.KeepaliveS)
	if endpoint != "" {
		fmt.Fprintf(&b, "Endpoint = %s\n", endpoint)
	}
	return b.Bytes()
}

func (a *app) overlayList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.OverlayVisitors(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.OverlayVisitor]{list}, func(w io.Writer) error {
		t := table.New("ID", "USER", "LABEL", "ADDRESS", "STATE", "ENDS", "HANDSHAKE", "FROM")
		for _, v := range list {
			state, shaken := "good", table.Cell{}
			if v.Ended {
				state = "ended"
			}
			if v.LastHandshake != nil {
				shaken = table.Age(c.Now(), *v.LastHandshake)
			}
			t.Row(v.ID, v.Username, v.Label, v.OverlayV4, state, table.Age(c.Now(), v.Expires), shaken, v.Endpoint)
		}
		return t.Write(w)
	})
}
