package doorway

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model/apitype"
)

var now = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

func TestCredential(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "x.operator")
	if _, err := LoadCredential(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	c := NewCredential()
	if !c.Due(now, "anna", "viewer") {
		t.Error("without a certificate none is due")
	}
	c.Take(apitype.OperatorCertificate{Serial: 7, Username: "anna", Role: "viewer", Certificate: "AAAA", Issued: now.Add(-time.Hour), Expires: now.Add(59 * time.Hour)}, now)
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadCredential(path)
	if err != nil || got.Certificate != "AAAA" || string(got.Seed) != string(c.Seed) || !got.Renew.Equal(now.Add(10*time.Hour)) {
		t.Errorf("got %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info, err)
	}
	for _, tc := range []struct {
		at         time.Time
		name, role string
		due        bool
	}{
		{now, "anna", "viewer", false},
		{now.Add(9 * time.Hour), "anna", "viewer", false},
		{now.Add(11 * time.Hour), "anna", "viewer", true},
		{now.Add(-time.Minute), "anna", "viewer", true}, // the clock was set
		{now, "bert", "viewer", true},
		{now, "anna", "admin", true},
	} {
		if due := got.Due(tc.at, tc.name, tc.role); due != tc.due {
			t.Errorf("%+v: %v", tc, due)
		}
	}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c)} {
		if strings.Contains(text, fmt.Sprint(c.Seed)) || !strings.Contains(text, "certificate 7 of anna") {
			t.Errorf("it prints as %s", text)
		}
	}
	for _, bad := range []string{"", "{", `{"seed":"AAAA"}`, strings.Repeat(" ", maxFile+1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadCredential(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.nodes")
	if k, err := LoadKnown(path); err != nil || len(k.Nodes) != 0 {
		t.Errorf("without a file: %+v, %v", k, err)
	}
	v4, v6 := netip.MustParseAddr("10.42.1.2"), netip.MustParseAddr("fd00::2")
	if err := KnownOf([]apitype.Node{
		{ID: "n-aaaaaaaaaaaaaaaaaaaa", Name: "n-bbbbbbbbbbbbbbbbbbbb", OverlayV4: v4, OverlayV6: v6},
		{ID: "n-bbbbbbbbbbbbbbbbbbbb", Name: "mast"},
		{ID: "n-cccccccccccccccccccc", Name: "stolen", Revoked: true},
	}, now).Save(path); err != nil {
		t.Fatal(err)
	}
	k, err := LoadKnown(path)
	if err != nil || !k.Updated.Equal(now) || len(k.Nodes) != 2 || k.Names()["n-bbbbbbbbbbbbbbbbbbbb"] != "mast" {
		t.Errorf("got %+v, %v", k, err)
	}
	for who, want := range map[string]string{
		"mast": "n-bbbbbbbbbbbbbbbbbbbb", "10.42.1.2": "n-aaaaaaaaaaaaaaaaaaaa", "fd00::2": "n-aaaaaaaaaaaaaaaaaaaa",
		"n-bbbbbbbbbbbbbbbbbbbb": "n-bbbbbbbbbbbbbbbbbbbb", // an ID before a name that looks like it
		"stolen":                 "", "": "", "10.42.1.9": "", "invalid IP": "",
	} {
		if n, ok := k.Find(who); n.ID != want || ok != (want != "") {
			t.Errorf("%q: got %+v", who, n)
		}
	}
}

func TestParse(t *testing.T) {
	for arg, want := range map[string][2]string{
		"mast": {"mast", ""}, "mast@10.43.7.1": {"mast", "10.43.7.1"}, "n-x@[fd00::1]:4256": {"n-x", "[fd00::1]:4256"},
		"fe80::1%eth0": {"fe80::1%eth0", ""}, "10.42.0.9": {"10.42.0.9", ""},
	} {
		if who, at, err := Parse(arg); err != nil || who != want[0] || at != want[1] {
			t.Errorf("%q: got %q, %q, %v", arg, who, at, err)
		}
	}
	for _, bad := range []string{"", "@", "@10.0.0.1", "mast@", "a@b@c", "a b", "a/b", "a\nb", strings.Repeat("x", 256)} {
		if who, at, err := Parse(bad); err == nil {
			t.Errorf("%q: got %q, %q", bad, who, at)
		}
	}
}

func TestIsAddress(t *testing.T) {
	for s, want := range map[string]bool{"10.42.0.9": true, "fd00::1": true, "10.42.0.9:4256": true, "[fd00::1]:1": true, "mast": false, "mast.halo": false, "n-aaaaaaaaaaaaaaaaaaaa": false, "": false} {
		if IsAddress(s) != want {
			t.Errorf("%q: want %v", s, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("mast@10.43.7.1")
	f.Fuzz(func(t *testing.T, s string) {
		who, at, err := Parse(s)
		if err != nil {
			return
		}
		again := who
		if at != "" {
			again += "@" + at
		}
		if w, a, err := Parse(again); err != nil || w != who || a != at {
			t.Fatalf("%q does not survive: %q, %q, %v", s, w, a, err)
		}
		_ = IsAddress(who)
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"seed":"AAAA","nodes":[{"id":"n-x","overlay_v4":"10.42.0.9"}]}`))
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := LoadKnown(path); err == nil {
			k.Find("mast")
			k.Names()
		}
		if c, err := LoadCredential(path); err == nil {
			_, _ = c.Key()
		}
	})
}
