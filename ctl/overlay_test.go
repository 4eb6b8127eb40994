package ctl_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"halo.internal/ctl"
	"halo.internal/model/apitype"
)

// TestALaptopInTheOverlay registers one with a real gateway, renews it and removes it.
func TestALaptopInTheOverlay(t *testing.T) {
	d := newDevice(t)
	d.start(t)
	admin := newUser(t)
	admin.environ["HALO_CLAIM_CODE"], admin.environ["HALO_PASSWORD"] = claimCode, newPassword
	admin.must(t, "claim", "--gateway=https://"+d.tls)
	admin.must(t, "login")
	conf := filepath.Join(t.TempDir(), "halo.conf")
	admin.fails(t, ctl.ExitUsage, "--out", "overlay", "register")
	out := admin.must(t, "overlay", "register", "--out", conf, "--label", "laptop", "--endpoint", "192.0.2.1:51820")
	if !strings.Contains(out, "laptop has the address 10.42.255.1 until") || !strings.Contains(out, "wg-quick up "+conf+" brings it up") || strings.Contains(out, "open uplink") {
		t.Errorf("register: %s", out)
	}
	read := func() string {
		b, err := os.ReadFile(conf)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	text := read()
	for _, want := range []string{
		`(?m)^PrivateKey = [A-Za-z0-9+/]{43}=$`, `(?m)^Address = 10\.42\.255\.1/32$`, `(?m)^DNS = 10\.42\.0\.1, halo$`,
		`(?m)^AllowedIPs = 10\.42\.0\.0/16, 10\.43\.0\.0/16$`, `(?m)^Endpoint = 192\.0\.2\.1:51820$`, `(?m)^PersistentKeepalive = 25$`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the settings lack %s:\n%s", want, text)
		}
	}
	if info, err := os.Stat(conf); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	// Again: the same key and address, and the endpoint that was given.
	admin.must(t, "overlay", "register", "--out", conf, "--label", "laptop")
	if again := read(); again != text {
		t.Errorf("renewed:\n%s\nbefore:\n%s", again, text)
	}
	admin.must(t, "overlay", "register", "--out", conf, "--label", "laptop", "--endpoint", "gw.example:4500", "--no-dns")
	if again := read(); again != strings.NewReplacer("192.0.2.1:51820", "gw.example:4500", "DNS = 10.42.0.1, halo\n", "").Replace(text) {
		t.Errorf("with another endpoint, and without name servers:\n%s\nbefore:\n%s", again, text)
	}
	// What was given for another gateway is not this one's.
	peer := regexp.MustCompile(`(?m)^PublicKey = .*$`)
	if err := os.WriteFile(conf, []byte(peer.ReplaceAllString(text, "PublicKey = "+base64.StdEncoding.EncodeToString(make([]byte, 32)))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := admin.must(t, "overlay", "register", "--out", conf, "--label", "laptop"); !strings.Contains(out, "is left out") {
		t.Errorf("register after another gateway: %s", out)
	}
	if again := read(); strings.Contains(again, "192.0.2.1") || strings.Contains(again, "given") || peer.FindString(again) != peer.FindString(text) {
		t.Errorf("after another gateway's:\n%s\nbefore:\n%s", again, text)
	}
	// One that is the gateway's word is asked for anew.
	if err := os.WriteFile(conf, []byte(strings.Replace(text, "# as given with --endpoint:\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	admin.must(t, "overlay", "register", "--out", conf, "--label", "laptop")
	if again := read(); strings.Contains(again, "192.0.2.1") || !strings.Contains(again, text[:strings.Index(text, "Address")]) {
		t.Errorf("with the gateway's endpoint:\n%s\nbefore:\n%s", again, text)
	}
	var list struct{ Items []apitype.OverlayVisitor }
	if err := json.Unmarshal([]byte(admin.must(t, "overlay", "list", "--json")), &list); err != nil || len(list.Items) != 1 || list.Items[0].Ended {
		t.Fatalf("list: %+v, %v", list, err)
	}
	if out := admin.must(t, "overlay", "list"); !strings.Contains(out, "10.42.255.1") || !strings.Contains(out, " good") {
		t.Errorf("list: %s", out)
	}
	// It ends with the certificate.
	admin.must(t, "operator", "revoke", fmt.Sprint(list.Items[0].Certificate))
	if out := admin.must(t, "overlay", "list"); !strings.Contains(out, "ended") {
		t.Errorf("after the certificate: %s", out)
	}
	admin.must(t, "overlay", "remove", list.Items[0].ID)
	admin.fails(t, ctl.ExitNotFound, "overlay list", "overlay", "remove", list.Items[0].ID)
	other := filepath.Join(t.TempDir(), "notes.conf")
	if err := os.WriteFile(other, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin.fails(t, ctl.ExitError, "name another file", "overlay", "register", "--out", other)
	// wg-quick names the interface by the file.
	for _, name := range []string{"halo.txt", "halo", ".conf", "annas-old-laptop.conf", "a b.conf", "a\nb.conf"} {
		admin.fails(t, ctl.ExitUsage, "letters", "overlay", "register", "--out", filepath.Join(t.TempDir(), name))
	}
}
