package ctl

import (
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
	"path/filepath"
	"regexp"
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
the same key and address, and with the endpoint that was given for this gateway, if
one was. From the
uplink, the gateway's firewall has to let WireGuard in: haloctl firewall open uplink
wireguard.

While it is up, the gateway is asked for all names, and asks its own name servers for
those that are not below .halo. wg-quick sets that by resolvconf, without which it
ends: on Debian, openresolv or systemd-resolved has it. With --no-dns the device's name
servers stay as they are, and names below .halo are not found.`

func (a *app) overlayCommand() *cobra.Command {
	var out, label, endpoint string
	var noDNS bool
	register := a.call("register", "give a device a place in the overlay, and write its WireGuard settings", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if out == "" {
			return &usageError{errors.New("--out: expected a file for the WireGuard settings, such as halo.conf")}
		}
		// wg-quick names the interface by it, apps the tunnel.
		if !tunnelName.MatchString(filepath.Base(out)) {
			return &usageError{fmt.Errorf("--out: expected a name of 1 to 15 letters, digits and _=+.-, then .conf, which wg-quick takes; got %q", filepath.Base(out))}
		}
		return a.overlayRegister(ctx, c, out, cmp.Or(label, hostname()), endpoint, noDNS)
	})
	register.Flags().StringVar(&out, "out", "", "`file` of wg-quick to write, readable by you alone; the key of one that is there is kept")
	register.Flags().StringVar(&label, "label", "", "what the device is called; this machine's `name`, if left out")
	register.Flags().StringVar(&endpoint, "endpoint", "", "`address:port` at which the device reaches the gateway's WireGuard; if left out, the one given before for this gateway, or that of the gateway's address by which it is asked now, or the first that is open")
	register.Flags().BoolVar(&noDNS, "no-dns", false, "leave the device's name servers as they are")
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

// tunnelName is what wg-quick(8) and WireGuard's apps take for a file.
var tunnelName = regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}\.conf$`)

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name[:min(len(name), 63)]
}

func (a *app) overlayRegister(ctx context.Context, c *client.Client, out, label, endpoint string, noDNS bool) error {
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
	private, former, err := formerSettings(out)
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
	given := cmp.Or(endpoint, former[r.Gateway])
	place := wgQuick{OverlayRegistration: r, private: private, endpoint: given, given: given != "", noDNS: noDNS}
	if given == "" && len(r.Endpoints) > 0 {
		place.endpoint = r.Endpoints[0].Address.String()
	}
	if out, err = filepath.Abs(out); err != nil { // wg-quick looks in its own folder for a bare name
		return err
	}
	if err := atomicfile.Write(out, place.marshal(), 0o600); err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) error {
		fmt.Fprintf(w, "%s has the address %s until %s. Its settings are a secret: wg-quick up %s brings it up, as root.\n", table.Clean(cmp.Or(r.Label, r.ID)), r.OverlayV4, r.Expires.UTC().Format("2006-01-02"), out)
		if given == "" && len(former) > 0 {
			fmt.Fprintln(w, "The endpoint that was given before is left out: it is of another gateway, or of this one before it changed its key.")
		}
		switch {
		case place.endpoint == "":
			fmt.Fprintln(w, "The gateway does not say where its WireGuard is reached: give --endpoint.")
		case place.given:
			fmt.Fprintf(w, "It reaches the gateway at %s, as given with --endpoint.\n", place.endpoint)
		case !r.Endpoints[0].Open:
			fmt.Fprintf(w, "The firewall shuts WireGuard off from the zone %s: haloctl firewall open %[1]s wireguard, then apply and confirm.\n", r.Endpoints[0].Zone)
		}
		return nil
	})
}

// endpointGiven is the line before an endpoint that a person gave, which a renewal keeps.
// wg(8) takes comments on lines of their own alone.
const endpointGiven = "# as given with --endpoint:"

// formerSettings returns the private key of a file of wg-quick's that is there, or a fresh
// one, and the endpoints that people gave, by the public key of the peer that is reached there.
func formerSettings(path string) (private *ecdh.PrivateKey, given map[string]string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		private, err = ecdh.X25519().GenerateKey(rand.Reader)
		return private, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	given = map[string]string{}
	before, peer := "", ""
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "PrivateKey"):
			raw, err := base64.StdEncoding.DecodeString(value)
			if err != nil || len(raw) != 32 {
				return nil, nil, fmt.Errorf("%s: PrivateKey: expected 32 octets in base64", path)
			}
			if private, err = ecdh.X25519().NewPrivateKey(raw); err != nil {
				return nil, nil, err
			}
		case strings.EqualFold(name, "PublicKey"):
			peer = value // marshal writes it before the endpoint
		case strings.EqualFold(name, "Endpoint") && before == endpointGiven:
			given[peer] = value
		}
		before = strings.TrimSpace(line)
	}
	if private == nil {
		return nil, nil, fmt.Errorf("%s: expected WireGuard settings with a PrivateKey; name another file", path)
	}
	return private, given, nil
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

// wgQuick is what wg-quick is to be told.
type wgQuick struct {
	apitype.OverlayRegistration
	private  *ecdh.PrivateKey
	endpoint string // empty: none is known
	given    bool   // a person gave it
	noDNS    bool
}

// marshal writes it in the form of wg-quick(8).
func (q wgQuick) marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s in the overlay; renew with haloctl overlay register before %s.\n[Interface]\nPrivateKey = %s\nAddress = %s/32\n",
		table.Clean(cmp.Or(q.Label, q.ID)), q.Expires.UTC().Format("2006-01-02"), base64.StdEncoding.EncodeToString(q.private.Bytes()), q.OverlayV4)
	if !q.noDNS {
		fmt.Fprintf(&b, "DNS = %s, halo\n", q.DNS)
	}
	fmt.Fprintf(&b, "MTU = %d\n\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\nPersistentKeepalive = %d\n",
		q.MTU, q.Gateway, strings.ReplaceAll(words(q.AllowedIPs), " ", ", "), q.KeepaliveS)
	if q.given {
		fmt.Fprintln(&b, endpointGiven)
	}
	if q.endpoint != "" {
		fmt.Fprintf(&b, "Endpoint = %s\n", q.endpoint)
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
