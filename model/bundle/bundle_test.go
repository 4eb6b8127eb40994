package bundle

import (
	"bytes"
	"errors"
	"strings"
	"testing"

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
	if got.Mesh != b.Mesh || got.Gateway != b.Gateway || got.Ports["eth0"] != "uplink" {
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
		{"short psk", "'correct horse battery'", "'short'", "12 to 63 characters"},
		{"bad port", "'uplink'", "'wan'", "mesh, uplink, client, unused"},
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
