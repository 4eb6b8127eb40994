package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/gateway"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// device is a gateway's board as far as gateway-api sees it: its files, and
// the addresses at which it answers.
type device struct {
	state      string
	key        identity.Key
	tls, plain string // host:port
}

const (
	claimCode   = "7K3M-Q0ZT-4WXPB"
	newPassword = "battery staple horse"
)

func newDevice(t *testing.T) device {
	t.Helper()
	d := device{state: t.TempDir(), key: identity.New(), tls: freePort(t), plain: freePort(t)}
	if err := (identity.State{Key: d.key}).Save(filepath.Join(d.state, paths.Identity), nil); err != nil {
		t.Fatal(err)
	}
	b := bundle.Bundle{Network: "north-ridge", Role: model.RoleGateway, Country: "DE", Name: "gw",
		Mesh:    bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"},
		Gateway: bundle.Gateway{PublicKey: d.key.Public().Base64(), Seed: d.key.Public().Base64(), ClaimCode: claimCode}}
	text, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.state, paths.BundleCopy), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the real gateway until stop or the end of the test, and waits
// until it answers.
func (d device) start(t *testing.T) (stop func()) {
	t.Helper()
	c := gateway.Laptop(d.state, []string{d.plain}, io.Discard, slog.New(slog.DiscardHandler))
	c.TLS = []string{d.tls}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gateway.Run(ctx, c) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("gateway: %v", err)
		}
	}
	t.Cleanup(stop)
	u := newUser(t)
	for deadline := time.Now().Add(time.Minute); ; {
		code, _, errs := u.run(t.Context(), "health", "--gateway", "https://"+d.tls)
		if code == ctl.ExitOK {
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway does not come up: %s", errs)
		}
		select {
		case err := <-done:
			t.Fatalf("the gateway ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// script is a person who answers as foreseen.
type script struct {
	t       *testing.T
	answers map[string]string // part of the prompt → answer
	asked   []string
}

func (s *script) Line(_ context.Context, prompt string) (string, error) {
	s.asked = append(s.asked, prompt)
	for part, answer := range s.answers {
		if strings.Contains(prompt, part) {
			return answer, nil
		}
	}
	return "", fmt.Errorf("unexpected question %q", prompt)
}

func (s *script) Secret(ctx context.Context, prompt string) (string, error) {
	return s.Line(ctx, prompt)
}

// fails runs a command that must end with that status, and say that.
func (u *user) fails(t *testing.T, want int, mention string, args ...string) {
	t.Helper()
	code, _, errs := u.run(t.Context(), args...)
	if code != want || !strings.Contains(errs, mention) {
		t.Errorf("haloctl %s: exit status %d, want %d, and mention of %q in: %s", strings.Join(args, " "), code, want, mention, errs)
	}
}

// TestFromClaimToLogout is the way of an operator with a new gateway.
func TestFromClaimToLogout(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	at := "--gateway=https://" + d.tls
	operator := newUser(t)
	ask := func(code, first, second string) {
		operator.terminal = &script{t: t, answers: map[string]string{"Claim code": code, "New password": first, "same again": second}}
	}

	ask("7K3M-Q0ZT-00000", newPassword, newPassword)
	operator.fails(t, ctl.ExitError, "did not prove the claim code, so no password was sent", "claim", at)
	ask(claimCode, newPassword, "another")
	operator.fails(t, ctl.ExitError, "the two passwords differ", "claim", at)
	ask(claimCode, "short", "short")
	operator.fails(t, ctl.ExitError, "10", "claim", at)
	ask(strings.ToLower(claimCode), newPassword, newPassword)
	if out := operator.must(t, "claim", at); !strings.Contains(out, "north-ridge") {
		t.Errorf("claim: %s", out)
	}
	ask(claimCode, newPassword, newPassword)
	operator.fails(t, ctl.ExitError, "haloctl login", "claim", at)

	operator.terminal = nil // from here on nothing asks, and no address is needed
	if out := operator.must(t, "status"); !strings.Contains(out, "degraded: halo-mesh") || !strings.Contains(out, "1 of 1 online") {
		t.Errorf("status:\n%s", out)
	}
	if out := operator.must(t, "node", "list"); !strings.Contains(out, d.key.ID()) {
		t.Errorf("node list:\n%s", out)
	}
	if out := operator.must(t, "node", "show", "gw", "--json"); !strings.Contains(out, d.key.ID()) {
		t.Errorf("node show:\n%s", out)
	}
	operator.must(t, "node", "rename", "gw", "mast")
	if out := operator.must(t, "node", "show", "mast"); !strings.Contains(out, d.key.ID()) {
		t.Errorf("after the rename:\n%s", out)
	}
	operator.fails(t, ctl.ExitNotFound, "haloctl node list", "node", "show", "n99")
	operator.fails(t, ctl.ExitNotFound, "haloctl node list", "telemetry", "show", "n99")
	operator.must(t, "telemetry", "show")
	operator.must(t, "telemetry", "coverage", "mast")
	readings := filepath.Join(t.TempDir(), "readings.csv")
	text := fmt.Sprintf("time,node,metric,unit,value\n%s,mast,test.probe.level,m,3.5\n", time.Now().Add(-time.Minute).UTC().Format(time.RFC3339))
	if err := os.WriteFile(readings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	operator.must(t, "telemetry", "import", readings)
	if out := operator.must(t, "telemetry", "range", "mast", "--step", "1h", "--from", "2h", "-o", "csv"); !strings.Contains(out, ",mast,test.probe.level,3.5,m,1,") {
		t.Errorf("range:\n%s", out)
	}
	if out := operator.must(t, "telemetry", "export", "--format", "openmetrics"); !strings.Contains(out, `metric="test.probe.level"`) || !strings.HasSuffix(out, "# EOF\n") {
		t.Errorf("export:\n%s", out)
	}
	operator.must(t, "telemetry", "marks", "mast")
	operator.must(t, "telemetry", "metrics")
	operator.must(t, "setting", "set", "telemetry.budget_bytes=100MiB", "telemetry.keep_raw_s=30d")
	operator.must(t, "event", "list", "--severity", "info", "--limit", "1000")
	operator.must(t, "registration", "list")
	operator.fails(t, ctl.ExitNotFound, "registration list", "registration", "approve", "n-aaaaaaaaaaaaaaaaaaaa")

	// Another start has another TLS key; the CA vouches for it.
	stop()
	operator.fails(t, ctl.ExitUnreachable, "no answer", "node", "list")
	d.start(t)
	operator.must(t, "node", "list")
	if out := operator.must(t, "setting", "list"); !strings.Contains(out, "100.0 MiB") || !strings.Contains(out, " 30 d ") {
		t.Errorf("settings after a start:\n%s", out)
	}
	if out := operator.must(t, "status"); !strings.Contains(out, "100.0 MiB") {
		t.Errorf("the budget that was set does not hold:\n%s", out)
	}

	operator.must(t, "logout")
	operator.fails(t, ctl.ExitUnauthorised, "haloctl login", "node", "list")
	operator.environ["HALO_PASSWORD"] = newPassword
	operator.must(t, "login")
}

// TestPeopleAndPrograms lets others use a real gateway, each as far as he may.
func TestPeopleAndPrograms(t *testing.T) {
	d := newDevice(t)
	d.start(t)
	at := "--gateway=https://" + d.tls
	admin := newUser(t)
	admin.environ["HALO_CLAIM_CODE"], admin.environ["HALO_PASSWORD"] = claimCode, newPassword
	admin.must(t, "claim", at)
	sum := regexp.MustCompile(`(?m)^CA +([0-9a-f]{64})$`).FindStringSubmatch(admin.must(t, "status"))
	if sum == nil {
		t.Fatal("status shows no CA")
	}
	const given, own = "given at first 1", "chosen by vera 2"
	admin.environ["HALO_NEW_PASSWORD"] = given
	admin.must(t, "user", "add", "vera")
	admin.fails(t, ctl.ExitError, "there is a user vera", "user", "add", "vera")
	admin.fails(t, ctl.ExitError, "last admin", "user", "disable", "admin")

	vera := newUser(t)
	vera.environ["HALO_PASSWORD"], vera.environ["HALO_NEW_PASSWORD"] = given, own
	vera.must(t, "login", at, "--user=vera", "--ca-sha256="+sum[1])
	vera.fails(t, ctl.ExitUnauthorised, "admin", "user", "list")
	vera.must(t, "user", "password")
	vera.fails(t, ctl.ExitUnauthorised, "haloctl login", "node", "list")
	vera.environ["HALO_PASSWORD"] = own
	vera.must(t, "login")
	vera.must(t, "node", "list")
	admin.must(t, "user", "role", "vera", "operator")
	vera.must(t, "login")
	vera.must(t, "node", "rename", "gw", "mast")
	admin.must(t, "user", "disable", "vera")
	vera.fails(t, ctl.ExitUnauthorised, "", "login")
	admin.must(t, "user", "remove", "vera")

	admin.must(t, "trust", "mac", "add", "02-00-00-00-00-01")
	admin.fails(t, ctl.ExitError, "six octets", "trust", "mac", "add", "rubbish")
	secret := strings.TrimSpace(admin.must(t, "api-token", "create", "probe", "--scope=nodes:read"))
	tokens := admin.must(t, "api-token", "list")
	id := regexp.MustCompile(`(?m)^(\S+) +probe +nodes:read`).FindStringSubmatch(tokens)
	if id == nil || secret == "" || strings.Contains(tokens, secret) {
		t.Fatalf("api-token list:\n%s", tokens)
	}
	admin.must(t, "api-token", "revoke", id[1])
	admin.fails(t, ctl.ExitNotFound, "api-token list", "api-token", "revoke", id[1])

	log := admin.must(t, "audit", "list", "--limit", "1000")
	for _, want := range []string{
		"user:admin +create-user +vera .* 201", "user:vera +update-user +vera .* 204", "user:vera +update-node +gw .* 200",
		"user:admin +trust-mac +02:00:00:00:00:01 .* 201", "user:admin +delete-api-token +" + id[1] + " .* 204", "user:admin +delete-user +vera .* 204",
	} {
		if !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("the audit log does not have %q:\n%s", want, log)
		}
	}
}

// TestABundleForNewCards exports what makes new nodes members.
func TestABundleForNewCards(t *testing.T) {
	d := newDevice(t)
	d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)

	out := filepath.Join(t.TempDir(), "node.toml")
	u.must(t, "network", "export", "--out", out, "--cards", "5", "--expires", "24h")
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Parse(out, text)
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseJoinToken(b.Join.Token, d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(token.Expires); token.Uses != 5 || left < 23*time.Hour || left > 25*time.Hour || b.Role != model.RoleNode || b.Gateway.Seed != "" {
		t.Errorf("got %d uses for %s, role %s", token.Uses, left, b.Role)
	}
	list := u.must(t, "join-token", "list")
	id := regexp.MustCompile(`(?m)^([0-9a-f]{20}) +good +0 +5 `).FindStringSubmatch(list)
	if id == nil {
		t.Fatalf("join-token list:\n%s", list)
	}
	u.must(t, "join-token", "revoke", id[1])
	if list := u.must(t, "join-token", "list"); !strings.Contains(list, "revoked") {
		t.Errorf("after the revocation:\n%s", list)
	}
	text2 := u.must(t, "join-token", "create", "--uses", "2")
	if token, err := identity.ParseJoinToken(strings.TrimSpace(text2), d.key.Public()); err != nil || token.Uses != 2 {
		t.Errorf("join-token create: %v, %v", token, err)
	}
}

// TestTheEpochIsRaisedByAnAdminWhoMeansIt, and stays so.
func TestTheEpochIsRaisedByAnAdminWhoMeansIt(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)
	epoch := func() uint64 {
		t.Helper()
		var e apitype.NetworkEpoch
		if err := json.Unmarshal([]byte(u.must(t, "network", "epoch", "show", "--json")), &e); err != nil {
			t.Fatal(err)
		}
		return e.Epoch
	}
	first := epoch()
	u.fails(t, ctl.ExitUsage, "--yes", "network", "epoch", "raise")
	u.terminal = &script{t: t, answers: map[string]string{"for good": "no"}}
	u.fails(t, ctl.ExitError, "not confirmed", "network", "epoch", "raise")
	if got := epoch(); got != first {
		t.Errorf("unconfirmed: the epoch is %d, want %d still", got, first)
	}
	u.terminal = &script{t: t, answers: map[string]string{"for good": "yes"}}
	u.must(t, "network", "epoch", "raise")
	u.terminal = nil
	u.must(t, "network", "epoch", "raise", "--yes")
	if got := epoch(); got != first+2 {
		t.Errorf("raised twice: the epoch is %d, want %d", got, first+2)
	}
	if log := u.must(t, "audit", "list"); strings.Count(log, "raise-network-epoch") != 2 {
		t.Errorf("audit log:\n%s", log)
	}
	stop()
	d.start(t)
	if got := epoch(); got != first+2 {
		t.Errorf("after a restart the epoch is %d, want %d", got, first+2)
	}
	if list := u.must(t, "event", "list", "--kind", "gateway.epoch-raised"); strings.Count(list, "gateway.epoch-raised") != 2 {
		t.Errorf("events:\n%s", list)
	}
}

// TestTheFirstLoginComparesTheCA shows how a second machine learns to trust.
func TestTheFirstLoginComparesTheCA(t *testing.T) {
	d := newDevice(t)
	d.start(t)
	at := "--gateway=https://" + d.tls
	first := newUser(t)
	first.environ["HALO_CLAIM_CODE"], first.environ["HALO_PASSWORD"] = claimCode, newPassword
	first.must(t, "claim", at)
	sum := regexp.MustCompile(`(?m)^CA +([0-9a-f]{64})$`).FindStringSubmatch(first.must(t, "status"))
	if sum == nil {
		t.Fatal("status shows no CA")
	}

	u := newUser(t)
	u.environ["HALO_PASSWORD"] = newPassword
	u.fails(t, ctl.ExitUnauthorised, "not logged in", "node", "list", at)
	u.fails(t, ctl.ExitError, sum[1], "login", at)
	u.fails(t, ctl.ExitUsage, "64 hexadecimal digits", "login", at, "--ca-sha256=abc")
	u.fails(t, ctl.ExitError, "is not the gateway of this network", "login", at, "--ca-sha256="+strings.Repeat("00", 32))
	no := &script{t: t, answers: map[string]string{"fingerprint": "no"}}
	u.terminal = no
	u.fails(t, ctl.ExitError, "not confirmed", "login", at)
	u.terminal = &script{t: t, answers: map[string]string{"fingerprint": "yes"}}
	u.must(t, "login", at)
	u.must(t, "node", "list")

	by := newUser(t)
	by.environ["HALO_PASSWORD"] = newPassword
	by.must(t, "login", at, "--ca-sha256="+strings.ToUpper(sum[1]))
	by.environ["HALO_PASSWORD"] = "wrong password"
	by.fails(t, ctl.ExitUnauthorised, "check user name and password", "login")

	// On the gateway itself plain HTTP will do.
	on := newUser(t)
	on.environ["HALO_PASSWORD"] = newPassword
	on.must(t, "login", "--gateway=http://"+d.plain)
	on.must(t, "node", "list")
}

// TestAnotherGatewayAtTheSameAddress must not be talked to.
func TestAnotherGatewayAtTheSameAddress(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)
	profile, err := os.ReadFile(u.dir.Path("north-ridge"))
	if err != nil {
		t.Fatal(err)
	}
	stop()

	other := newDevice(t)
	other.tls = d.tls
	other.start(t)
	u.fails(t, ctl.ExitError, "is not the gateway of this network", "node", "list")
	u.fails(t, ctl.ExitError, "is not the gateway of this network", "login")
	after, err := os.ReadFile(u.dir.Path("north-ridge"))
	if err != nil || !bytes.Equal(profile, after) {
		t.Errorf("the profile changed, %v", err)
	}
}
