// Package bundle reads and writes halo.toml, the network bundle: what a card
// must know to become part of a network, small enough to be written by any
// computer onto the card's boot partition. It is imported once; then its
// secrets are overwritten in place.
package bundle

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"halo.internal/model"
	"halo.internal/model/paths"
)

// MaxSize is the most octets a bundle may have.
const MaxSize = 64 << 10

// Bundle is the content of halo.toml.
type Bundle struct {
	Version int               `toml:"version" comment:"format of this file"`
	Network string            `toml:"network" comment:"name of the HALO network"`
	Role    model.Role        `toml:"role" comment:"gateway or node"`
	Name    string            `toml:"name,omitempty" comment:"name of this device; made from its key when left out"`
	Country string            `toml:"country" comment:"ISO 3166 code of two letters: which radio channels are legal"`
	Gateway Gateway           `toml:"gateway"`
	Mesh    Mesh              `toml:"mesh"`
	Join    Join              `toml:"join,omitempty"`
	Ports   map[string]string `toml:"ports,omitempty" comment:"pins Ethernet ports: mesh, uplink, client, bridge (into the mesh) or unused"`

	// Static are fixed settings, by port, of uplinks in whose network nobody gives any.
	Static map[string]Static `toml:"static,omitempty" comment:"settings of uplinks in whose network no DHCP server gives any"`

	Firewall  Firewall  `toml:"firewall,omitempty"`
	Multicast Multicast `toml:"multicast,omitempty"`
}

// Static is the settings of an uplink without a DHCP server.
type Static struct {
	Address netip.Prefix `toml:"address" comment:"this device's, with the length of the network's prefix: 192.0.2.5/24"`
	Router  netip.Addr   `toml:"router,omitzero" comment:"the way to the Internet; left out: there is none"`
	DNS     []netip.Addr `toml:"dns,omitempty" comment:"name servers"`
}

// maxDNS bounds the name servers of an uplink.
const maxDNS = 3

// check tells what is wrong with the settings of a port that is pinned as role, or not.
func (s Static) check(port, role string, bad func(key, expected string, got any)) {
	key := "static." + port
	if role != "" && role != "uplink" {
		bad(key, "settings of an uplink alone", "a port that is pinned as "+role)
	}
	if a := s.Address; !a.IsValid() || !host(a.Addr()) || a.Bits() < 8 {
		bad(key+".address", "an IPv4 address of a host with a prefix of 8 to 32 bits, such as 192.0.2.5/24", a)
	} else if s.Router.IsValid() && (!host(s.Router) || s.Router == a.Addr()) {
		bad(key+".router", "another host's IPv4 address", s.Router)
	}
	for _, own := range []netip.Prefix{paths.UnderlayNet, paths.OverlayNet, paths.ClientsNet} {
		if s.Address.IsValid() && own.Overlaps(s.Address) {
			bad(key+".address", "one outside of HALO's own network "+own.String(), s.Address)
		}
	}
	if len(s.DNS) > maxDNS {
		bad(key+".dns", fmt.Sprintf("at most %d name servers", maxDNS), len(s.DNS))
	}
	for _, d := range s.DNS {
		if !d.IsValid() || d.IsUnspecified() || d.IsMulticast() || d.IsLoopback() {
			bad(key+".dns", "addresses of hosts", d)
		}
	}
}

// host tells whether an address is that of a single IPv4 host.
func host(a netip.Addr) bool { return a.Is4() && a.IsGlobalUnicast() && a.As4()[0] != 0 }

// Firewall opens what is shut otherwise.
type Firewall struct {
	Uplink []string `toml:"uplink,omitempty" comment:"services of this device that are reached from its uplinks too: field, door"`
}

// UplinkServices may be opened to uplinks.
var UplinkServices = []string{"field", "door"}

// Multicast says what is carried between the clients of all members.
type Multicast struct {
	Groups []string `toml:"groups,omitempty" comment:"IPv4 groups and their UDP ports; TAK's when left out, none to carry nothing"`
	Kbit   int      `toml:"kbit,omitempty" comment:"kbit/s that this device sends of it to others at most"`
}

// Bounds and default of Multicast.Kbit. What goes to several members counts as often.
const (
	DefaultMulticastKbit = 256
	minMulticastKbit     = 8
	maxMulticastKbit     = 1000000
)

// noMulticast as the only group has nothing carried.
const noMulticast = "none"

// List returns the groups that are carried, those that are if nothing was said
// included.
func (m Multicast) List() ([]netip.AddrPort, error) {
	switch {
	case len(m.Groups) == 0:
		return model.MulticastGroups(), nil
	case len(m.Groups) == 1 && m.Groups[0] == noMulticast:
		return nil, nil
	case len(m.Groups) > model.MaxMulticastGroups:
		return nil, fmt.Errorf("expected at most %d groups, got %d", model.MaxMulticastGroups, len(m.Groups))
	}
	var list []netip.AddrPort
	for _, text := range m.Groups {
		g, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("expected an IPv4 multicast group and its UDP port, such as 239.2.3.1:6969, or none alone; got %.60q", text)
		}
		if err := model.CheckMulticastGroup(g); err != nil {
			return nil, err
		}
		if slices.Contains(list, g) {
			return nil, fmt.Errorf("expected each group once, got %s twice", g)
		}
		list = append(list, g)
	}
	return list, nil
}

// Rate is Kbit, or its default.
func (m Multicast) Rate() int { return cmp.Or(m.Kbit, DefaultMulticastKbit) }

// Gateway names the network's trust anchor.
type Gateway struct {
	PublicKey string `toml:"public_key" comment:"Ed25519, base64"`
	Seed      string `toml:"seed,omitempty" comment:"secret; in the gateway's own bundle only"`
	ClaimCode string `toml:"claim_code,omitempty" comment:"secret; in the gateway's own bundle only"`
}

// Join admits this card without a person.
type Join struct {
	Token string `toml:"token,omitempty" comment:"secret"`
}

// Version is the format this package writes.
const Version = 1

// UnknownCountry is ISO 3166's code for the user's own use: nobody has said yet
// where the device stands, and its radios keep to what is allowed everywhere.
const UnknownCountry = "ZZ"

// Ports' values.
var PortRoles = []string{"mesh", "uplink", "client", RoleBridge, "unused"}

// RoleBridge of a port makes the hosts behind it guests of the mesh itself.
const RoleBridge = "bridge"

// Bridged counts the ports that are pinned to be bridged into the mesh.
func (b Bundle) Bridged() (n int) {
	for _, role := range b.Ports {
		if role == RoleBridge {
			n++
		}
	}
	return n
}

const header = "# HALO network bundle. checksum = "

// bom is what editors on Windows put before UTF-8.
const bom = "\ufeff"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBlanked is returned by Parse for a bundle whose secrets were overwritten
// after its import.
var ErrBlanked = errors.New("bundle was imported already: its secrets are blanked")

// Marshal returns the file: a comment line with a checksum over all that
// follows it, then the TOML.
func (b Bundle) Marshal() ([]byte, error) {
	b.Version = Version
	if err := b.Check(); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	e := toml.NewEncoder(&body)
	if err := e.Encode(b); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return append(fmt.Appendf(nil, "%s%08x\n", header, crc32.Checksum(body.Bytes(), castagnoli)), body.Bytes()...), nil
}

// Parse reads a bundle strictly. name is used in errors, which give the line
// and what was expected. A file written by hand may lack the checksum line.
func Parse(name string, data []byte) (Bundle, error) {
	if len(data) > MaxSize {
		return Bundle{}, fmt.Errorf("%s: expected at most %d octets, got %d", name, MaxSize, len(data))
	}
	if len(data) == 0 {
		return Bundle{}, fmt.Errorf("%s: expected a network bundle, got an empty file", name)
	}
	if len(bytes.Trim(data, "\x00")) == 0 { // what a power cut leaves of a file on a FAT
		return Bundle{}, fmt.Errorf("%s: expected a network bundle, got zeros: the file was not written to its end", name)
	}
	if !utf8.Valid(data) {
		return Bundle{}, fmt.Errorf("%s: expected UTF-8 text (in an editor on Windows: save as UTF-8)", name)
	}
	data = bytes.TrimPrefix(data, []byte(bom))
	var b Bundle
	checksum := error(nil)
	if rest, ok := bytes.CutPrefix(data, []byte(header)); ok {
		line, body, _ := bytes.Cut(rest, []byte("\n"))
		body = bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")) // no change that matters
		want := fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli))
		if got := strings.TrimSpace(string(line)); got != want && got != blankSum {
			checksum = fmt.Errorf("%s:1: checksum is %s, the text below has %s: the file was cut short or edited (after an edit, delete line 1)", name, got, want)
		}
	}
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return Bundle{}, errors.Join(checksum, explain(name, err))
	}
	if checksum != nil {
		return Bundle{}, checksum
	}
	if b.blanked() {
		return Bundle{}, fmt.Errorf("%s: %w", name, ErrBlanked)
	}
	if err := b.Check(); err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

func explain(name string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("%s:%d: unknown key %q; expected one of version, network, role, name, country, [gateway] public_key seed claim_code, [mesh] ssid psk routing hop_penalty channel width mfp sae beacon_interval halow_channel halow_scheme, [join] token, [ports], [static.PORT] address router dns, [firewall] uplink, [multicast] groups kbit", name, row, strings.Join(strict.Errors[0].Key(), "."))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := bad.Position()
		return fmt.Errorf("%s:%d:%d: %s", name, row, col, bad.Error())
	}
	return fmt.Errorf("%s: %w", name, err)
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	countryForm = regexp.MustCompile(`^[A-Z]{2}$`)
	portForm    = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,15}$`)
)

// Check tells all that is wrong with the values, each with its key, what was
// expected and what came; secrets are not repeated.
func (b Bundle) Check() error {
	var errs []error
	bad := func(key, expected string, got any) {
		errs = append(errs, fmt.Errorf("%s: expected %s, got %q", key, expected, fmt.Sprint(got)))
	}
	if b.Version != Version {
		bad("version", fmt.Sprint(Version), b.Version)
	}
	if b.Network == "" || len(b.Network) > 63 {
		bad("network", "a name of 1 to 63 characters", b.Network)
	}
	if b.Role != model.RoleGateway && b.Role != model.RoleNode {
		bad("role", "gateway or node", b.Role)
	}
	if b.Name != "" && !nameForm.MatchString(b.Name) {
		bad("name", "lower-case letters, digits and hyphens (a DNS label)", b.Name)
	}
	if !countryForm.MatchString(b.Country) {
		bad("country", "two upper-case letters, e.g. DE", b.Country)
	}
	key := func(name, v string) {
		if raw, err := base64.StdEncoding.DecodeString(v); err != nil || len(raw) != 32 {
			bad(name, "32 octets in base64 (44 characters)", fmt.Sprintf("%d characters", len(v)))
		}
	}
	key("gateway.public_key", b.Gateway.PublicKey)
	switch {
	case b.Role == model.RoleGateway:
		key("gateway.seed", b.Gateway.Seed)
	case b.Gateway.Seed != "" || b.Gateway.ClaimCode != "":
		bad("gateway.seed, gateway.claim_code", "neither in a node's bundle", "both or one")
	}
	b.Mesh.check(bad)
	for port, role := range b.Ports {
		if !portForm.MatchString(port) || port == "lo" {
			bad("ports", "interface names such as eth0", port)
		}
		if !slices.Contains(PortRoles, role) {
			bad("ports."+port, strings.Join(PortRoles, ", "), role)
		}
	}
	if len(b.Static) > 0 && b.Role != model.RoleGateway {
		bad("static", "nothing in a node's bundle: uplinks are the gateway's", fmt.Sprintf("settings of %d ports", len(b.Static)))
	}
	for port, s := range b.Static {
		if !portForm.MatchString(port) || port == "lo" {
			bad("static", "interface names such as eth0", port)
		}
		s.check(port, b.Ports[port], bad)
	}
	for _, s := range b.Firewall.Uplink {
		if !slices.Contains(UplinkServices, s) {
			bad("firewall.uplink", strings.Join(UplinkServices, ", "), s)
		}
	}
	if _, err := b.Multicast.List(); err != nil {
		errs = append(errs, fmt.Errorf("multicast.groups: %w", err))
	}
	if k := b.Multicast.Rate(); k < minMulticastKbit || k > maxMulticastKbit {
		bad("multicast.kbit", fmt.Sprintf("%d to %d", minMulticastKbit, maxMulticastKbit), k)
	}
	return errors.Join(errs...)
}

const (
	blankRune = '*'
	blankSum  = "blanked0"
)

func (b Bundle) secrets() []string {
	return slices.DeleteFunc([]string{b.Gateway.Seed, b.Gateway.ClaimCode, b.Mesh.PSK, b.Join.Token}, func(s string) bool { return s == "" })
}

func (b Bundle) blanked() bool {
	s := b.secrets()
	return len(s) > 0 && !slices.ContainsFunc(s, func(v string) bool { return strings.Trim(v, string(blankRune)) != "" })
}

// Blank returns data, a valid bundle, with every secret overwritten by as many
// asterisks: a file of the same length, to be written in place.
func Blank(data []byte) ([]byte, error) {
	b, err := Parse("bundle", data)
	if err != nil {
		return nil, err
	}
	out, found := b.Scrub(data)
	if found < len(b.secrets()) {
		return nil, errors.New("bundle: a secret is spelled with escapes; write it plainly")
	}
	return out, nil
}

// Scrub returns data, whatever it is, with b's secrets overwritten wherever
// they stand, and how many of them it found. It finishes a blanking that was
// interrupted and left a file that is no bundle any more.
func (b Bundle) Scrub(data []byte) ([]byte, int) {
	out := slices.Clone(data)
	found := 0
	for _, s := range b.secrets() {
		forms := []string{s}
		// A secret is spelled without escapes: Check allows no character that needs one
		// in keys and tokens, and a PSK that has one is found by its encoded form.
		if enc, err := toml.Marshal(map[string]string{"k": s}); err == nil {
			quoted := strings.TrimSuffix(strings.TrimPrefix(string(enc), "k = "), "\n")
			forms = append(forms, quoted[1:len(quoted)-1])
		}
		hit := false
		for _, form := range forms {
			if bytes.Contains(out, []byte(form)) {
				out = bytes.ReplaceAll(out, []byte(form), bytes.Repeat([]byte{blankRune}, len(form)))
				hit = true
			}
		}
		if hit {
			found++
		}
	}
	text := bytes.TrimPrefix(out, []byte(bom))
	if found > 0 && bytes.HasPrefix(text, []byte(header)) && len(text) >= len(header)+len(blankSum) {
		copy(text[len(header):], blankSum)
	}
	return out, found
}
