package ctl_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/ctl"
	"halo.internal/model/apitype"
	"halo.internal/model/backup"
)

// TestAGatewayGoesToAnotherCard is the way of an operator whose card has died.
func TestAGatewayGoesToAnotherCard(t *testing.T) {
	lost := newDevice(t)
	stop := lost.start(t)
	operator := newUser(t)
	at := "--gateway=https://" + lost.tls
	answers := map[string]string{"Claim code": claimCode, "New password": newPassword, "same again": newPassword}
	operator.terminal = &script{t: t, answers: answers}
	operator.must(t, "claim", at)

	// Another login, of a laptop that is lost.
	laptop := newUser(t)
	laptop.terminal = &script{t: t, answers: map[string]string{"Is this the fingerprint": "yes", "Password of": newPassword}}
	laptop.must(t, "login", at)
	var sessions struct {
		Items []apitype.Session `json:"items"`
	}
	if err := json.Unmarshal([]byte(operator.must(t, "session", "list", "--json")), &sessions); err != nil || len(sessions.Items) != 2 {
		t.Fatalf("got %+v, %v", sessions, err)
	}
	for _, s := range sessions.Items {
		if !s.Current {
			operator.must(t, "session", "end", s.ID)
		}
	}
	laptop.fails(t, ctl.ExitUnauthorised, "", "node", "list")
	operator.fails(t, ctl.ExitNotFound, "there is no session", "session", "end", "00")

	// The CA, for a browser.
	file := filepath.Join(t.TempDir(), "ca.crt")
	operator.must(t, "ca", "export", "--out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !ca.IsCA {
		t.Fatalf("got %s, %v", text, err)
	}
	var shown struct {
		SHA256 string `json:"sha256"`
		Known  bool   `json:"known"`
	}
	if err := json.Unmarshal([]byte(operator.must(t, "ca", "show", "--json")), &shown); err != nil || !shown.Known {
		t.Errorf("got %+v, %v", shown, err)
	}
	stranger := newUser(t)
	if out := stranger.must(t, "ca", "show", at); !strings.Contains(out, shown.SHA256) || !strings.Contains(out, "nothing vouches for it") {
		t.Errorf("a stranger sees %s", out)
	}
	stranger.fails(t, ctl.ExitError, "no CA is known here", "ca", "export", at, "--out", "-")

	saved := filepath.Join(t.TempDir(), "north-ridge.age")
	const phrase = "a phrase of a backup"
	answers["Passphrase"], answers["same again"] = "short", "short"
	operator.fails(t, ctl.ExitError, "at least 12 characters", "backup", "create", saved)
	answers["Passphrase"] = phrase
	operator.fails(t, ctl.ExitError, "the two passphrases differ", "backup", "create", saved)
	answers["same again"] = phrase
	if out := operator.must(t, "backup", "create", saved, "--telemetry"); !strings.Contains(out, "opened it again") {
		t.Errorf("got %s", out)
	}
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if out := operator.must(t, "backup", "status"); !strings.Contains(out, "user:admin") || !strings.Contains(out, "With telemetry  yes") {
		t.Errorf("got %s", out)
	}
	// Who types nothing gets a passphrase made.
	another := filepath.Join(t.TempDir(), "another.age")
	answers["Passphrase"] = ""
	_, _, errs := operator.run(t.Context(), "backup", "create", another)
	_, made, ok := strings.Cut(errs, "Passphrase, shown once: ")
	if !ok || backup.CheckPassphrase(strings.TrimSpace(made)) != nil {
		t.Fatalf("got %q", errs)
	}
	answers["Passphrase"] = strings.TrimSpace(made)
	if out := operator.must(t, "backup", "show", another); !strings.Contains(out, "north-ridge") {
		t.Errorf("got %s", out)
	}
	answers["Passphrase"] = "a phrase of another"
	operator.fails(t, ctl.ExitError, "the passphrase is wrong", "backup", "show", saved)
	stop()

	fresh := newDevice(t)
	fresh.start(t)
	to := "--gateway=https://" + fresh.tls
	other := newUser(t) // another laptop
	other.terminal = &script{t: t, answers: answers}
	answers["every other card"], answers["Claim code"] = "yes", "7K3M-Q0ZT-00000"
	other.fails(t, ctl.ExitError, "the passphrase is wrong", "restore", saved, to)
	answers["Passphrase"] = phrase
	other.fails(t, ctl.ExitError, "did not prove the claim code", "restore", saved, to)
	answers["Claim code"] = claimCode
	cut := filepath.Join(t.TempDir(), "cut.age")
	if b, err := os.ReadFile(saved); err != nil || os.WriteFile(cut, bytes.Clone(b[:len(b)-1]), 0o600) != nil {
		t.Fatal(err)
	}
	other.fails(t, ctl.ExitError, "damaged or cut short", "restore", cut, to)
	// The laptop that knows the network by the lost card's CA is the usual one, and a fresh
	// card mostly has the lost one's address: what it presents is no reason to stop before
	// its claim code proves it.
	files, err := os.ReadDir(string(operator.dir))
	if err != nil || len(files) == 0 {
		t.Fatalf("no profile: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(string(operator.dir), f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte(lost.tls), []byte(fresh.tls))
		if err := os.WriteFile(filepath.Join(string(other.dir), f.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other.fails(t, ctl.ExitError, "not the gateway of this network", "node", "list")
	out := other.must(t, "restore", saved, to)
	if !strings.Contains(out, "It is there.") || !strings.Contains(out, lost.key.ID()) {
		t.Errorf("got %s", out)
	}
	// Without a question which CA that is: it was in the backup.
	answers["Password of"] = newPassword
	other.must(t, "login")
	if out := other.must(t, "ca", "show", "--json"); !strings.Contains(out, shown.SHA256) {
		t.Errorf("the CA is %s, want %s", out, shown.SHA256)
	}
	if out := other.must(t, "status"); !strings.Contains(out, "north-ridge") {
		t.Errorf("got %s", out)
	}
}
