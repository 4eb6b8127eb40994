package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func sample() Bundle {
	return Bundle{
		Version: Version, Network: "north-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: Gateway{PublicKey: key, Seed: "HR4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=", ClaimCode: "ABCD-EFGH-JKMN-P"},
		Mesh:    Mesh{SSID: "ETHRX0001-8A", PSK: "correct horse battery", Routing: "BATMAN_IV"},
		Join:    Join{Token: "halo-join-abc"},
		Ports:   map[string]string{"eth0": "uplink"},
		Static:  map[string]Static{"eth0": {Address: netip.MustParsePrefix("192.0.2.5/24"), Router: netip.MustParseAddr("192.0.2.1"), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}},
	}
}

func TestRoundTripAndBlank(t *testing.T) {
	b := sample()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("halo.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	if got.Mesh != b.Mesh || got.Gateway != b.Gateway || got.Ports["eth0"] != "uplink" || !reflect.DeepEqual(got.Static, b.Static) {
		t.Errorf("round trip: got %+v", got)
	}
	blank, err := Blank(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(blank) != len(data) {
		t.Errorf("blanking changed the length from %d to %d", len(data), len(blank))
	}
	for _, s := range b.secrets() {
		if bytes.Contains(blank, []byte(s)) {
			t.Errorf("secret %q survived", s)
		}
	}
	if _, err := Parse("halo.toml", blank); !errors.Is(err, ErrBlanked) {
		t.Errorf("blanked bundle: got %v, want ErrBlanked", err)
	}
}

func TestMeshDefaults(t *testing.T) {
	want := Mesh{Channel: 1, Width: 20, MFP: MFPRequired, SAE: HashToElement, BeaconInterval: 1000}
	if got := (Mesh{}).WithDefaults(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	set := Mesh{SSID: "valley", PSK: "correct horse battery", Routing: "BATMAN_V", HopPenalty: 60, Channel: 149, Width: 40, MFP: MFPOff, SAE: HuntingAndPecking, BeaconInterval: 100, HaLowChannel: 44, HaLowScheme: "802.11-2020"}
	if got := set.WithDefaults(); got != set {
		t.Errorf("got %+v, want %+v", got, set)
	}
	b := sample()
	b.Mesh = set
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse("halo.toml", data); err != nil || got.Mesh != set {
		t.Errorf("got %+v, %v", got.Mesh, err)
	}
}

func TestHopPenalty(t *testing.T) {
	for in, want := range map[int]uint8{0: 30, 1: 1, 30: 30, 255: 255} {
		m := Mesh{SSID: "valley", PSK: "correct horse battery", Routing: "BATMAN_V", HopPenalty: in}
		if err := m.Check(); err != nil || m.Penalty() != want {
			t.Errorf("%d: got %d, %v, want %d", in, m.Penalty(), err, want)
		}
	}
	for _, in := range []int{-1, 256} {
		if err := (Mesh{SSID: "valley", PSK: "correct horse battery", Routing: "BATMAN_V", HopPenalty: in}).Check(); err == nil || !strings.Contains(err.Error(), "mesh.hop_penalty: expected 0 to 255") {
			t.Errorf("%d: got %v", in, err)
		}
	}
}

// TestRoutingIntervals: a HaLow channel has room for few messages.
func TestRoutingIntervals(t *testing.T) {
	for name, tc := range map[string]struct {
		mesh     Mesh
		ogm, elp time.Duration
	}{
		"Wi-Fi": {Mesh{Channel: 6}, time.Second, 0},
		"HaLow": {Mesh{HaLowChannel: 44}, 2 * time.Second, 5 * time.Second},
		"both":  {Mesh{Channel: 6, HaLowChannel: 44}, 2 * time.Second, 5 * time.Second},
	} {
		if ogm, elp := tc.mesh.OGMInterval(), tc.mesh.ELPInterval(); ogm != tc.ogm || elp != tc.elp {
			t.Errorf("%s: got %s and %s, want %s and %s", name, ogm, elp, tc.ogm, tc.elp)
		}
	}
}

func TestEveryCutIsNoticed(t *testing.T) {
	data, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(data) - 1 {
		if _, err := Parse("halo.toml", data[:n]); err == nil {
			t.Fatalf("a bundle cut after %d of %d octets was taken", n, len(data))
		}
	}
}

func TestErrorsSayLineAndExpectation(t *testing.T) {
	data, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n") // as written by hand: no checksum
	for _, tc := range []struct{ name, from, to, want string }{
		{"unknown key", "country =", "countri =", `unknown key "countri"`},
		{"bad country", "country = 'DE'", "country = 'Germany'", "two upper-case letters"},
		{"bad routing", "BATMAN_IV'", "OSPF'", "BATMAN_IV or BATMAN_V"},
		{"channel of no band", "[mesh]", "[mesh]\nchannel = 15", `mesh.channel: expected 1 to 14, or one of 5 GHz`},
		{"channel as text", "[mesh]", "[mesh]\nchannel = 'six'", "halo.toml:"},
		{"negative channel", "[mesh]", "[mesh]\nchannel = -1", "mesh.channel"},
		{"width of HaLow", "[mesh]", "[mesh]\nwidth = 8", "mesh.width: expected 20 or 40"},
		{"wide where it is not allowed", "[mesh]", "[mesh]\nchannel = 14\nwidth = 40", "20 on channel 14"},
		{"bad MFP", "[mesh]", "[mesh]\nmfp = 'on'", "required, optional or off"},
		{"bad SAE", "[mesh]", "[mesh]\nsae = 'h2e'", "hash-to-element or hunting-and-pecking"},
		{"bad beacon interval", "[mesh]", "[mesh]\nbeacon_interval = 19", "20 to 10000"},
		{"no S1G number", "[mesh]", "[mesh]\nhalow_channel = 256", "mesh.halow_channel: expected the number of an S1G channel, 1 to 255"},
		{"no such scheme", "[mesh]", "[mesh]\nhalow_channel = 44\nhalow_scheme = '802.11ah'", "mesh.halow_scheme: expected one of 802.11-2020, 802.11-2024, 802.11-REVmf"},
		{"a scheme of nothing", "[mesh]", "[mesh]\nhalow_scheme = '802.11-2020'", "mesh.halow_scheme: expected none without a halow_channel"},
		{"unknown key of the mesh", "[mesh]", "[mesh]\nband = 5", "sae beacon_interval"},
		{"short psk", "'correct horse battery'", "'short'", "12 to 63 characters"},
		{"bad port", "'uplink'", "'wan'", "mesh, uplink, client, bridge, unused"},
		{"fixed settings of a mesh port", "'uplink'", "'mesh'", "static.eth0: expected settings of an uplink alone"},
		{"fixed settings without an address", "[join]", "[static.eth1]\nrouter = '192.0.2.1'\n[join]", "static.eth1.address: expected an IPv4 address"},
		{"an address that is no text of one", "[join]", "[static.eth1]\naddress = '192.0.2.300/24'\n[join]", "halo.toml:"},
		{"a network's address", "[join]", "[static.eth1]\naddress = '255.255.255.255/24'\n[join]", "static.eth1.address"},
		{"an address of this network", "[join]", "[static.eth1]\naddress = '0.168.1.5/24'\n[join]", "static.eth1.address"},
		{"a router of this network", "[join]", "[static.eth1]\naddress = '192.0.2.5/24'\nrouter = '0.0.2.1'\n[join]", "static.eth1.router"},
		{"HALO's own network upstream", "[join]", "[static.eth1]\naddress = '10.41.7.5/24'\n[join]", "outside of HALO's own network 10.41.0.0/16"},
		{"itself as the router", "[join]", "[static.eth1]\naddress = '192.0.2.5/24'\nrouter = '192.0.2.5'\n[join]", "static.eth1.router: expected another host's IPv4 address"},
		{"a name server that is none", "[join]", "[static.eth1]\naddress = '192.0.2.5/24'\ndns = ['0.0.0.0']\n[join]", "static.eth1.dns: expected addresses of hosts"},
		{"an unknown setting of a port", "[join]", "[static.eth1]\naddress = '192.0.2.5/24'\ngateway = '192.0.2.1'\n[join]", "[static.PORT] address router dns"},
		{"a group without a port", "[join]", "[multicast]\ngroups = ['239.2.3.1']\n[join]", "multicast.groups: expected an IPv4 multicast group and its UDP port"},
		{"no multicast group", "[join]", "[multicast]\ngroups = ['192.0.2.1:6969']\n[join]", "multicast.groups: expected an IPv4 multicast group beyond 224.0.0.0/24"},
		{"a group of one link", "[join]", "[multicast]\ngroups = ['224.0.0.251:5353']\n[join]", "beyond 224.0.0.0/24"},
		{"a group twice", "[join]", "[multicast]\ngroups = ['239.2.3.1:6969', '239.2.3.1:6969']\n[join]", "expected each group once"},
		{"none among groups", "[join]", "[multicast]\ngroups = ['none', '239.2.3.1:6969']\n[join]", "or none alone"},
		{"too little multicast", "[join]", "[multicast]\nkbit = 1\n[join]", "multicast.kbit: expected 8 to 1000000"},
		{"not toml", "network =", "network", "halo.toml:4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(body, tc.from, tc.to, 1)
			if text == body {
				t.Fatalf("%q is not in\n%s", tc.from, body)
			}
			_, err := Parse("halo.toml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want mention of %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "correct horse") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}

// TestEditorsOnWindows does what they do to a file that is saved unchanged.
func TestEditorsOnWindows(t *testing.T) {
	plain, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	crlf := bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n"))
	for name, data := range map[string][]byte{
		"line ends":            crlf,
		"byte order mark":      append([]byte(bom), plain...),
		"both":                 append([]byte(bom), crlf...),
		"both, no checksum":    append([]byte(bom), crlf[bytes.IndexByte(crlf, '\n')+1:]...),
		"the first line alone": bytes.Replace(plain, []byte("\n"), []byte("\r\n"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Parse("halo.toml", data)
			if err != nil || b.Network != "north-ridge" {
				t.Fatalf("got %+v, %v", b.Network, err)
			}
			blank, err := Blank(data)
			if err != nil || len(blank) != len(data) {
				t.Fatalf("blanked: %d of %d octets, %v", len(blank), len(data), err)
			}
			if _, err := Parse("halo.toml", blank); !errors.Is(err, ErrBlanked) {
				t.Errorf("blanked bundle: got %v, want ErrBlanked", err)
			}
			for n := range len(data) - 2 { // the last line's end may go
				if _, err := Parse("halo.toml", data[:n]); err == nil && !strings.Contains(name, "no checksum") {
					t.Fatalf("a bundle cut after %d of %d octets was taken", n, len(data))
				}
			}
		})
	}
}

func TestWhatIsNoBundle(t *testing.T) {
	data, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n")
	utf16 := []byte{0xff, 0xfe}
	for _, c := range data {
		utf16 = append(utf16, c, 0)
	}
	half := append(bytes.Clone(data[:len(data)/2]), make([]byte, len(data)-len(data)/2)...)
	for _, tc := range []struct{ name, data, want string }{
		{"empty", "", "halo.toml: expected a network bundle, got an empty file"},
		{"zeros", strings.Repeat("\x00", 512), "got zeros: the file was not written to its end"},
		{"second half zeros", string(half), "halo.toml:1: checksum is"},
		{"UTF-16", string(utf16), "expected UTF-8 text (in an editor on Windows: save as UTF-8)"},
		{"too large", strings.Repeat("#", MaxSize+1), "halo.toml: expected at most 65536 octets, got 65537"},
		{"version as text", strings.Replace(body, "version = 1", "version = 'one'", 1), "halo.toml:2:"},
		{"table as text", strings.Replace(body, "[mesh]", "mesh = 'x'\n[meshes]", 1), "halo.toml:"},
		{"another version", strings.Replace(body, "version = 1", "version = 2", 1), `version: expected 1, got "2"`},
		{"key twice", strings.Replace(body, "version = 1", "version = 1\nversion = 1", 1), "halo.toml:"},
		{"unknown key in a table", strings.Replace(body, "ssid =", "sid =", 1), `unknown key "mesh.sid"; expected one of version`},
		{"an image", "\x89PNG\r\n\x1a\n", "expected UTF-8 text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("halo.toml", []byte(tc.data))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want mention of %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "correct horse") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	data, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse("fuzz", data)
		if err != nil {
			return
		}
		again, err := b.Marshal()
		if err != nil {
			t.Fatalf("parsed but does not marshal: %v", err)
		}
		if _, err := Parse("again", again); err != nil {
			t.Fatalf("marshalled but does not parse: %v\n%s", err, again)
		}
	})
}

func TestMulticast(t *testing.T) {
	for name, tc := range map[string]struct {
		m    Multicast
		want string
	}{
		"TAK's by default":  {Multicast{}, "[224.10.10.1:17012 239.2.3.1:6969]"},
		"nothing":           {Multicast{Groups: []string{"none"}}, "[]"},
		"what is said only": {Multicast{Groups: []string{"239.5.5.55:7171"}, Kbit: 64}, "[239.5.5.55:7171]"},
	} {
		t.Run(name, func(t *testing.T) {
			b := sample()
			b.Multicast = tc.m
			data, err := b.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse("halo.toml", data)
			if err != nil {
				t.Fatal(err)
			}
			list, err := got.Multicast.List()
			if err != nil || fmt.Sprint(list) != tc.want || got.Multicast.Rate() != cmp.Or(tc.m.Kbit, 256) {
				t.Errorf("got %v at %d kbit/s, %v", list, got.Multicast.Rate(), err)
			}
		})
	}
}

func TestCheckChosen(t *testing.T) {
	for _, tc := range []struct {
		m  Mesh
		ok bool
	}{{Mesh{}, true}, {Mesh{BeaconInterval: 100}, true}, {Mesh{HaLowChannel: 1}, true}, {Mesh{HaLowChannel: 1, BeaconInterval: 977}, true}, {Mesh{HaLowChannel: 1, BeaconInterval: 976}, false}} {
		err := tc.m.CheckChosen()
		if (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "977 (a second) to 10000") {
			t.Errorf("%+v: %v", tc.m, err)
		}
	}
}
