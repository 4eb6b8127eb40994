package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

const password = "correct horse battery"

var (
	build   = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	salt    = bytes.Repeat([]byte{5}, claim.SaltSize)
	here    = netip.MustParseAddr("192.0.2.1")
	another = netip.MustParseAddr("192.0.2.2")
)

type fixture struct {
	*Service
	now  time.Time // wall clock
	mono time.Time
	db   *store.DB

	network identity.Key
	epoch   uint64
	offered func(model.TimeOffer)
	at      *time.Time // of a claim
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	storetest.PutConfig(t, filepath.Join(dir, "config.db"))
	db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	box, _, err := seal.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{now: build.Add(24 * time.Hour), mono: time.Now(), db: db}
	c := clock.New(func() time.Time { return f.now }, build)
	f.network, f.epoch = identity.New(), 2
	f.Service, err = New(t.Context(), Config{
		DB: db, Secrets: seal.New(db, box), Clock: c, Events: events.New(db, c, 1, slog.New(slog.DiscardHandler)), Salt: salt, Key: f.network, Epoch: func() uint64 { return f.epoch },
		OfferTime: func(_ context.Context, o model.TimeOffer) {
			if f.offered != nil {
				f.offered(o)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.logins.now = func() time.Time { return f.mono }
	f.claims.now = func() time.Time { return f.mono }
	return f
}

func (f *fixture) addUser(t *testing.T, name, role string) {
	t.Helper()
	if _, err := f.CreateUser(t.Context(), apitype.CreateUser{Username: name, Password: password, Role: role}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) count(t *testing.T, query string) (n int) {
	t.Helper()
	if err := f.db.Read().QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (f *fixture) login(t *testing.T, name string) apitype.Tokens {
	t.Helper()
	tokens, err := f.Login(t.Context(), here, name, password, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// wantProblem checks type and that no secret is repeated.
func wantProblem(t *testing.T, err error, typ string) {
	t.Helper()
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok || p.Type != typ {
		t.Fatalf("got %v, want problem %s", err, typ)
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("the problem repeats the password: %v", err)
	}
}

func (f *fixture) bearer(t *testing.T, token string) (Principal, error) {
	return f.Authenticate(t.Context(), "Bearer "+token)
}

func TestLoginAndRoles(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "vera", apitype.RoleViewer)
	tokens := f.login(t, "vera")
	p, err := f.bearer(t, tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "vera" || p.Has(apitype.ScopeNodesWrite) || !p.Has(apitype.ScopeNodesRead) || p.Has(apitype.ScopeAdmin) {
		t.Errorf("got %+v, want a viewer's rights", p)
	}
	_, err = f.Login(t.Context(), here, "vera", "wrong password", nil)
	wantProblem(t, err, apitype.ProblemLogin)
	_, err = f.Login(t.Context(), here, "nobody", password, nil)
	wantProblem(t, err, apitype.ProblemLogin)

	f.now = f.now.Add(accessLife + time.Minute)
	_, err = f.bearer(t, tokens.AccessToken)
	wantProblem(t, err, "about:blank")
}

func TestForgedTokensAreRefused(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	p, err := f.bearer(t, f.login(t, "root").AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	claims := loginClaims{Role: apitype.RoleAdmin, Generation: 1, Session: p.Session, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Subject: "root", ExpiresAt: jwt.NewNumericDate(f.now.Add(time.Hour)),
	}}
	stranger := ed25519.NewKeyFromSeed(make([]byte, 32))
	sign := func(m jwt.SigningMethod, key any) string {
		s, err := jwt.NewWithClaims(m, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := sign(jwt.SigningMethodEdDSA, f.key)
	if _, err := f.bearer(t, good); err != nil {
		t.Fatalf("the pattern of the forgeries is not accepted itself: %v", err)
	}
	for name, token := range map[string]string{
		"another key":            sign(jwt.SigningMethodEdDSA, stranger),
		"no signature":           sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"public key as a secret": sign(jwt.SigningMethodHS256, []byte(f.key.Public().(ed25519.PublicKey))),
		"cut":                    good[:len(good)-4],
		"nothing":                "",
		"API token of nobody":    tokenStart + "x",
	} {
		if p, err := f.bearer(t, token); err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
}

func TestRefreshRotatesAndReuseEndsTheLogin(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	first := f.login(t, "root")
	second, err := f.Refresh(t.Context(), here, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken {
		t.Error("the refresh token did not change")
	}
	// The answer was lost on the link: the client asks again, and gets the same.
	// So does a thief, who thereby has no login of his own.
	for _, from := range []netip.Addr{here, here, another} {
		again, err := f.Refresh(t.Context(), from, first.RefreshToken)
		if err != nil || again.RefreshToken != second.RefreshToken {
			t.Errorf("a repeated refresh within the grace: got %q, %v; want the same successor", again.RefreshToken, err)
		}
		if _, err := f.bearer(t, again.AccessToken); err != nil {
			t.Errorf("its access token: %v", err)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM refresh_tokens`); n != 2 {
		t.Errorf("%d refresh tokens are stored, want the first and its successor", n)
	}
	// A thief, later.
	f.now = f.now.Add(refreshGrace + time.Minute)
	_, err = f.Refresh(t.Context(), another, first.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
	_, err = f.Refresh(t.Context(), here, second.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := f.events.Run(ended); err != nil { // writes what waits
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT count(*) FROM events WHERE kind = 'auth.refresh.reused'`); n != 1 {
		t.Errorf("%d events of the reuse, want one", n)
	}

	third := f.login(t, "root")
	f.now = f.now.Add(refreshLife + time.Hour)
	_, err = f.Refresh(t.Context(), here, third.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)

	fourth := f.login(t, "root")
	if err := f.Logout(t.Context(), fourth.RefreshToken); err != nil {
		t.Fatal(err)
	}
	_, err = f.Refresh(t.Context(), here, fourth.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
}

// Whose successor was used already cannot have lost the answer with it.
func TestATokenThatComesAfterItsSuccessorEndsTheLogin(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	first := f.login(t, "root")
	second, err := f.Refresh(t.Context(), here, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	third, err := f.Refresh(t.Context(), here, second.RefreshToken)
	if err != nil || third.RefreshToken == second.RefreshToken {
		t.Fatalf("the second refresh: got %q, %v; want another token", third.RefreshToken, err)
	}
	_, err = f.Refresh(t.Context(), another, first.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
	_, err = f.Refresh(t.Context(), here, third.RefreshToken)
	wantProblem(t, err, apitype.ProblemRefresh)
}

// Requests that come at the same time are no second chain either.
func TestRefreshesAtTheSameTime(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	first := f.login(t, "root")
	var g errgroup.Group
	got := make([]string, 8)
	for i := range got {
		g.Go(func() error {
			next, err := f.Refresh(t.Context(), here, first.RefreshToken)
			got[i] = next.RefreshToken
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(got, func(s string) bool { return s != got[0] }) {
		t.Errorf("got different successors: %q", got)
	}
}

func TestGuessingIsSlowedForTheGuesserAlone(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	for range freeFailures {
		_, err := f.Login(t.Context(), another, "root", "wrong password", nil)
		wantProblem(t, err, apitype.ProblemLogin)
	}
	_, err := f.Login(t.Context(), another, "root", password, nil)
	wantProblem(t, err, apitype.ProblemRateLimited)
	p, _ := errors.AsType[*apitype.Problem](err)
	if p.GetHeaders().Get("Retry-After") != "2" {
		t.Errorf("Retry-After is %q, want 2", p.GetHeaders().Get("Retry-After"))
	}
	f.login(t, "root") // from elsewhere
	f.mono = f.mono.Add(firstWait + time.Second)
	if _, err := f.Login(t.Context(), another, "root", password, nil); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// The hosts on a link, and those of the mesh, are in one /64: one of them slows its own
// guesses, and not the admin's.
func TestGuessingIsSlowedForTheGuesserAloneOnALink(t *testing.T) {
	for _, link := range []string{"fe80::", "fd12:3456:789a:1::"} {
		t.Run(link, func(t *testing.T) {
			f := newFixture(t)
			f.addUser(t, "root", apitype.RoleAdmin)
			guesser, admin := netip.MustParseAddr(link+"7"), netip.MustParseAddr(link+"8")
			for range freeFailures {
				_, err := f.Login(t.Context(), guesser, "root", "wrong password", nil)
				wantProblem(t, err, apitype.ProblemLogin)
			}
			_, err := f.Login(t.Context(), guesser, "root", password, nil)
			wantProblem(t, err, apitype.ProblemRateLimited)
			tokens, err := f.Login(t.Context(), admin, "root", password, nil)
			if err != nil {
				t.Fatalf("the admin, beside the guesser: %v", err)
			}
			for range freeFailures {
				_, err := f.Refresh(t.Context(), guesser, "unknown")
				wantProblem(t, err, apitype.ProblemRefresh)
			}
			_, err = f.Refresh(t.Context(), guesser, "unknown")
			wantProblem(t, err, apitype.ProblemRateLimited)
			if _, err := f.Refresh(t.Context(), admin, tokens.RefreshToken); err != nil {
				t.Errorf("the admin's session, beside the guesser: %v", err)
			}
		})
	}
	t.Run("claim", func(t *testing.T) {
		f := newFixture(t)
		_, key := f.codeOf(t)
		guesser, admin := netip.MustParseAddr("fe80::7"), netip.MustParseAddr("fe80::8")
		for range freeFailures {
			nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
			_, err := f.ClaimFinish(t.Context(), guesser, apitype.ClaimRequest{ClientNonce: nonce, ServerNonce: nonce, Proof: nonce, Username: "root", Password: password}, nil)
			wantProblem(t, err, apitype.ProblemClaimProof)
		}
		_, err := f.ClaimStart(t.Context(), guesser, base64.StdEncoding.EncodeToString(claim.NewNonce()), nil)
		wantProblem(t, err, apitype.ProblemRateLimited)
		if err := f.begun(t, admin, key)("root", password, false); err != nil {
			t.Errorf("the admin's claim, beside the guesser: %v", err)
		}
	})
}

// A host that takes ever new addresses of a link is slowed with all on it; one that keeps its
// own never comes to that, however long it goes on.
func TestTheFailuresOfALink(t *testing.T) {
	l := newLimiter()
	now := time.Now()
	l.now = func() time.Time { return now }
	admin := counters("login", netip.MustParseAddr("fe80::8"))
	from := netip.MustParseAddr("fe80::1:0")
	n := 0
	for ; n < 1000; n++ {
		from = from.Next()
		by := counters("login", from)
		if l.allow(by...) != nil {
			break
		}
		l.fail(by...)
	}
	if n != freeOfLink || l.allow(admin...) == nil {
		t.Errorf("from ever new addresses %d guesses were heard, want %d", n, freeOfLink)
	}
	l.succeed(admin...)
	if l.allow(admin...) == nil {
		t.Error("one host's success is another's excuse")
	}
	if err := l.allow(counters("login", netip.MustParseAddr("fd00::1"))...); err != nil {
		t.Errorf("on another link: %v", err)
	}

	now = now.Add(forgetAfter + longestWait)
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Second) {
		if err := l.allow(admin...); err != nil {
			t.Fatalf("one host's guesses keep others out: %v", err)
		}
		if by := counters("login", from); l.allow(by...) == nil {
			l.fail(by...)
		}
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l := newLimiter()
	for i := range maxRemembered + 100 {
		l.fail(counters("login", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))...)
	}
	if n := len(l.seen); n > maxRemembered {
		t.Errorf("%d are remembered, want at most %d", n, maxRemembered)
	}
	a, b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	if RemoteKey(a) != RemoteKey(b) {
		t.Error("a host with a /64 counts as many")
	}
	for address, want := range map[string]string{
		"2001:db8::1": "2001:db8::/64", "fd12:3456:789a:1::7": "fd12:3456:789a:1::7", "fc00::1": "fc00::1", "fe80::1%eth0": "fe80::1", "10.0.0.7": "10.0.0.7", "::ffff:10.0.0.7": "10.0.0.7",
	} {
		if got := ShareKey(netip.MustParseAddr(address)); got != want {
			t.Errorf("the share of %s is that of %s, want %s", address, got, want)
		}
	}
}

func TestPasswordsAndUsers(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	for _, tc := range []struct{ name, username, password, typ, says string }{
		{"short", "a1", "ninechars", apitype.ProblemPassword, "at least 10 characters, got 9"},
		{"long", "a1", strings.Repeat("ab", 200), apitype.ProblemPassword, "at most 256"},
		{"repeated", "a1", strings.Repeat("a", 20), apitype.ProblemPassword, "more than one character"},
		{"the name", "administrator", "administrator1", apitype.ProblemPassword, "besides the user name"},
		{"taken", "root", password, apitype.ProblemNameTaken, "already"},
		{"bad name", "Root!", password, "about:blank", "lower-case"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := f.CreateUser(t.Context(), apitype.CreateUser{Username: tc.username, Password: tc.password, Role: apitype.RoleViewer})
			wantProblem(t, err, tc.typ)
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%q does not say %q", err, tc.says)
			}
		})
	}
}

func TestChangesEndLoginsAndAnAdminRemains(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "vera", apitype.RoleViewer)
	rootLogin, veraLogin := f.login(t, "root"), f.login(t, "vera")
	root, err := f.bearer(t, rootLogin.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	vera, err := f.bearer(t, veraLogin.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	role, fresh, yes := apitype.RoleAdmin, "another long secret", true
	ctx := t.Context()
	_, err = f.UpdateUser(ctx, vera, "vera", etag.Match{}, apitype.UpdateUser{Role: &role})
	wantProblem(t, err, apitype.ProblemScope)
	_, err = f.UpdateUser(ctx, vera, "root", etag.Match{}, apitype.UpdateUser{Password: &fresh})
	wantProblem(t, err, apitype.ProblemScope)
	_, err = f.UpdateUser(ctx, vera, "vera", etag.Match{}, apitype.UpdateUser{Password: &fresh, CurrentPassword: "wrong"})
	wantProblem(t, err, "about:blank")
	if _, err := f.UpdateUser(ctx, vera, "vera", etag.Match{}, apitype.UpdateUser{Password: &fresh, CurrentPassword: password}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.bearer(t, veraLogin.AccessToken); err == nil {
		t.Error("an access token outlived the password")
	}
	if _, err := f.Refresh(ctx, here, veraLogin.RefreshToken); err == nil {
		t.Error("a refresh token outlived the password")
	}
	if _, err := f.Login(ctx, here, "vera", fresh, nil); err != nil {
		t.Errorf("new password: %v", err)
	}
	wantProblem(t, f.DeleteUser(ctx, "root", etag.Match{}), apitype.ProblemLastAdmin)
	_, err = f.UpdateUser(ctx, root, "root", etag.Match{}, apitype.UpdateUser{Disabled: &yes})
	wantProblem(t, err, apitype.ProblemLastAdmin)
	if _, err := f.bearer(t, rootLogin.AccessToken); err != nil {
		t.Errorf("refused changes ended the login: %v", err)
	}
}

// What is restored from a copy may bring back logins that had ended since, and
// a user's generation that had risen.
func TestARestoredDatabaseHasNoLogins(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	kept := f.login(t, "root")
	u, err := f.user(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	u.generation++ // as after a change that the copy lacks
	later, err := f.issue(t.Context(), u, newSession(f.now, here), newSecret(refreshStart), func(*sql.Tx) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := EndLogins(t.Context(), f.db, f.secret); err != nil {
		t.Fatal(err)
	}
	if f.Service, err = New(t.Context(), Config{DB: f.db, Secrets: f.secret, Clock: f.clock, Events: f.events}); err != nil {
		t.Fatal(err)
	}
	for name, tokens := range map[string]apitype.Tokens{"of the copy": kept, "of a change that it lacks": later} {
		if _, err := f.bearer(t, tokens.AccessToken); err == nil {
			t.Errorf("an access token %s is good", name)
		}
		if _, err := f.Refresh(t.Context(), here, tokens.RefreshToken); err == nil {
			t.Errorf("a refresh token %s is good", name)
		}
	}
	if _, err := f.bearer(t, f.login(t, "root").AccessToken); err != nil {
		t.Errorf("a new login: %v", err)
	}
}

func TestAPITokens(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	by := f.present(t, "root")
	tok, err := f.CreateAPIToken(t.Context(), by, apitype.CreateAPIToken{Name: "grafana", Scopes: []string{apitype.ScopeTelemetryRead}, ExpiresS: 3600})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.bearer(t, tok.Token)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Has(apitype.ScopeTelemetryRead) || p.Has(apitype.ScopeNodesRead) {
		t.Errorf("got scopes %v", p.Scopes)
	}
	list, err := f.APITokens(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Token != "" || list.Items[0].LastUsed == nil || list.Items[0].By != "user:root" {
		t.Errorf("got %+v", list.Items)
	}
	_, err = f.CreateAPIToken(t.Context(), by, apitype.CreateAPIToken{Name: "x", Scopes: []string{"everything"}})
	wantProblem(t, err, "about:blank")
	f.now = f.now.Add(2 * time.Hour)
	if _, err := f.bearer(t, tok.Token); err == nil {
		t.Error("an expired API token was accepted")
	}
	f.now = f.now.Add(-2 * time.Hour)
	if err := f.DeleteAPIToken(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.bearer(t, tok.Token); err == nil {
		t.Error("a deleted API token was accepted")
	}
}

func TestClockBeforeTheBuild(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.now = time.Unix(0, 0)
	tokens := f.login(t, "root")
	if _, err := f.bearer(t, tokens.AccessToken); err != nil {
		t.Errorf("a login in 1970: %v", err)
	}
	list, err := f.Users(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if at := list.Items[0].LastLogin; at == nil || at.Before(build) {
		t.Errorf("stamped %v, before the build", at)
	}
}

// TestTheTimeOfALogin is offered by whoever may change things and has proved who he is,
// before his tokens are made: the clock may be another after it.
func TestTheTimeOfALogin(t *testing.T) {
	f := newFixture(t)
	for name, role := range map[string]string{"root": apitype.RoleAdmin, "otto": apitype.RoleOperator, "vera": apitype.RoleViewer} {
		f.addUser(t, name, role)
	}
	var offers []model.TimeOffer
	f.offered = func(o model.TimeOffer) {
		offers = append(offers, o)
		f.now = o.Time
	}
	at := build.AddDate(1, 0, 0)
	for _, tc := range []struct {
		name, user, password string
		at                   *time.Time
		offers               bool
	}{
		{"a wrong password", "root", "wrong password", &at, false},
		{"nobody", "nobody", password, &at, false},
		{"a viewer", "vera", password, &at, false},
		{"who does not say", "root", password, nil, false},
		{"an operator", "otto", password, &at, true},
		{"an admin", "root", password, &at, true},
	} {
		offers, f.now = nil, build.Add(24*time.Hour)
		tokens, err := f.Login(t.Context(), here, tc.user, tc.password, tc.at)
		if (len(offers) == 1) != tc.offers || len(offers) > 1 {
			t.Errorf("%s: offered %+v", tc.name, offers)
		}
		if len(offers) == 0 {
			continue
		}
		if o := offers[0]; o.User != tc.user || o.Remote != here.String() || o.Time.Before(at) || o.Time.Sub(at) > time.Hour {
			t.Errorf("%s: offered %+v, want %s and what the check of the password took", tc.name, o, at)
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if _, err := f.bearer(t, tokens.AccessToken); err != nil {
			t.Errorf("%s: the tokens are not of the time that was offered: %v", tc.name, err)
		}
	}
}

// TestTheTimeOfAClaim is that of its second post, once its proof is right.
func TestTheTimeOfAClaim(t *testing.T) {
	f := newFixture(t)
	code, err := f.PrepareClaim(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	at := build.AddDate(1, 0, 0)
	f.at = &at
	var offers []model.TimeOffer
	f.offered = func(o model.TimeOffer) {
		offers = append(offers, o)
		f.now = o.Time
	}
	nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
	start, err := f.ClaimStart(t.Context(), here, nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.ClaimFinish(t.Context(), here, apitype.ClaimRequest{ClientNonce: nonce, ServerNonce: start.ServerNonce, Proof: nonce, Username: "root", Password: password, Time: &at}, nil)
	if wantProblem(t, err, apitype.ProblemClaimProof); len(offers) != 0 {
		t.Errorf("a wrong proof offered %+v", offers)
	}
	tokens, err := f.claim(t, code, nil, nil, "root", password)
	if err != nil {
		t.Fatal(err)
	}
	if len(offers) != 1 || offers[0].User != "root" || offers[0].Time.Before(at) {
		t.Errorf("offered %+v", offers)
	}
	if _, err := f.bearer(t, tokens.AccessToken); err != nil {
		t.Errorf("the tokens are not of the time that was offered: %v", err)
	}
}

// client runs the client's side of a claim.
func (f *fixture) claim(t *testing.T, code string, seen, sent []byte, username, pass string) (apitype.Tokens, error) {
	t.Helper()
	nonce := claim.NewNonce()
	start, err := f.ClaimStart(t.Context(), here, base64.StdEncoding.EncodeToString(nonce), sent)
	if err != nil {
		return apitype.Tokens{}, err
	}
	decode := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, err := claim.Derive(code, decode(start.Salt))
	if err != nil {
		t.Fatal(err)
	}
	e := claim.Exchange{ClientNonce: nonce, ServerNonce: decode(start.ServerNonce), Binding: seen}
	if !key.VerifyServer(e, decode(start.Proof)) {
		return apitype.Tokens{}, errServerProof
	}
	proof, err := key.ClientProof(e, username, pass)
	if err != nil {
		t.Fatal(err)
	}
	r := apitype.ClaimRequest{ClientNonce: base64.StdEncoding.EncodeToString(nonce), ServerNonce: start.ServerNonce, Proof: base64.StdEncoding.EncodeToString(proof), Username: username, Password: pass, Time: f.at}
	tokens, err := f.ClaimFinish(t.Context(), here, r, sent)
	if err == nil {
		if _, again := f.ClaimFinish(t.Context(), here, r, sent); again == nil {
			t.Error("a claim worked twice")
		}
	}
	return tokens, err
}

var errServerProof = errors.New("the gateway's proof is wrong")

func TestClaim(t *testing.T) {
	f := newFixture(t)
	code, err := f.PrepareClaim(t.Context(), "7K3M-Q0ZT-4WXPB")
	if err != nil || code != "7K3M-Q0ZT-4WXPB" {
		t.Fatalf("got code %q, %v; want the bundle's", code, err)
	}
	if again, err := f.PrepareClaim(t.Context(), ""); err != nil || again != code {
		t.Errorf("after a restart the code is %q, %v; want the same", again, err)
	}
	tls := bytes.Repeat([]byte{1}, 32)
	if _, err := f.claim(t, "AAAA-AAAA-AAAAA", tls, tls, "root", password); !errors.Is(err, errServerProof) {
		t.Errorf("with a wrong code the client must notice first: %v", err)
	}
	if _, err := f.claim(t, code, bytes.Repeat([]byte{2}, 32), tls, "root", password); !errors.Is(err, errServerProof) {
		t.Errorf("with somebody in between the client must notice first: %v", err)
	}
	_, err = f.claim(t, code, tls, tls, "root", "short")
	wantProblem(t, err, apitype.ProblemPassword)

	tokens, err := f.claim(t, code, tls, tls, "root", password)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.bearer(t, tokens.AccessToken)
	if err != nil || !p.Has(apitype.ScopeAdmin) {
		t.Errorf("got %+v, %v; want an admin", p, err)
	}
	_, err = f.claim(t, code, tls, tls, "mallory", password)
	wantProblem(t, err, apitype.ProblemAlreadyClaimed)
	if code, err := f.PrepareClaim(t.Context(), "7K3M-Q0ZT-4WXPB"); err != nil || code != "" {
		t.Errorf("after the claim the code is %q, %v; want none", code, err)
	}
	var left int
	if err := f.db.Read().QueryRow(`SELECT count(*) FROM secrets WHERE name = ?`, secretClaimCode).Scan(&left); err != nil || left != 0 {
		t.Errorf("the code is still stored (%d, %v)", left, err)
	}
}

func TestWrongClaimsAreSlowedAndEnd(t *testing.T) {
	f := newFixture(t)
	if _, err := f.PrepareClaim(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	nonce := base64.StdEncoding.EncodeToString(claim.NewNonce())
	guess := func() error {
		start, err := f.ClaimStart(t.Context(), here, nonce, nil)
		if err != nil {
			return err
		}
		_, err = f.ClaimFinish(t.Context(), here, apitype.ClaimRequest{ClientNonce: nonce, ServerNonce: start.ServerNonce, Proof: nonce, Username: "root", Password: password}, nil)
		return err
	}
	for range freeFailures {
		wantProblem(t, guess(), apitype.ProblemClaimProof)
	}
	wantProblem(t, guess(), apitype.ProblemRateLimited)

	f = newFixture(t)
	code, err := f.PrepareClaim(t.Context(), "too short")
	if err != nil {
		t.Fatal(err)
	}
	if norm, err := claim.Normalise(code); err != nil || len(norm) < 12 {
		t.Errorf("a bad code in the bundle was not replaced: %q, %v", code, err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	s := &Service{key: ed25519.NewKeyFromSeed(make([]byte, 32)), clock: clock.New(time.Now, build)}
	for _, seed := range []string{"", "Bearer", "Bearer a.b.c", "bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", "Basic cm9vdDpyb290"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if strings.Contains(header, tokenStart) {
			return // goes to the database
		}
		if p, err := s.Authenticate(t.Context(), header); err == nil {
			t.Fatalf("%q was accepted as %+v", header, p)
		}
	})
}

// Whoever logged in while the clock was wrong has no login for ever, and those who had one
// before have it still when it is put right.
func TestTheClockIsSetUnderLogins(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "anna", apitype.RoleAdmin)
	f.addUser(t, "olaf", apitype.RoleViewer)
	// What is dropped for its age goes by a horizon, as in gateway-api.
	f.clock.SetQuality(model.ClockLogin)
	ran, sure := time.Duration(0), true
	f.clock.Follow(clock.Span{Aged: f.now, Ahead: f.now}, func() bool { return sure }, func() time.Duration { return ran })
	before := f.login(t, "olaf")
	right := f.now
	f.now = right.AddDate(20, 0, 0)
	if _, err := f.bearer(t, before.AccessToken); err == nil {
		t.Error("an access token of 20 years ago is good")
	}
	if _, err := f.Refresh(t.Context(), here, before.RefreshToken); err == nil {
		t.Error("a refresh token of 20 years ago is good")
	}
	wrong := f.login(t, "anna") // drops what has ended, but not for this clock
	anna, err := f.bearer(t, wrong.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	token, err := f.CreateAPIToken(t.Context(), anna, apitype.CreateAPIToken{Name: "logger", Scopes: []string{apitype.ScopeNodesRead}, ExpiresS: 86400})
	if err != nil {
		t.Fatal(err)
	}
	forever, err := f.CreateAPIToken(t.Context(), anna, apitype.CreateAPIToken{Name: "other", Scopes: []string{apitype.ScopeNodesRead}})
	if err != nil {
		t.Fatal(err)
	}

	f.now = right.Add(time.Minute)
	if _, err := f.bearer(t, before.AccessToken); err != nil {
		t.Errorf("a login of before: %v", err)
	}
	if _, err := f.bearer(t, wrong.AccessToken); err == nil || !strings.Contains(err.Error(), "of another time") {
		t.Errorf("an access token of 20 years ahead: %v", err)
	}
	if _, err := f.bearer(t, token.Token); err != nil {
		t.Errorf("an API token of 20 years ahead: %v", err)
	}
	again, err := f.Refresh(t.Context(), here, wrong.RefreshToken)
	if err != nil {
		t.Fatalf("its login goes on: %v", err)
	}
	if _, err := f.bearer(t, again.AccessToken); err != nil {
		t.Error(err)
	}
	late, err := f.Refresh(t.Context(), here, before.RefreshToken)
	if err != nil {
		t.Fatalf("a login of before: %v", err)
	}
	// Set back by mistake: tokens are not shortened for that.
	f.now = right.AddDate(0, -3, 0)
	if f.login(t, "anna"); f.count(t, `SELECT count(*) FROM api_tokens WHERE created > expires`) != 0 {
		t.Error("an API token ends before it begins")
	}
	if _, err := f.bearer(t, token.Token); err != nil {
		t.Error(err)
	}
	// A guess, as after a start: nor for that, and it drops no login.
	sure, f.now = false, right.AddDate(0, -5, 0)
	if f.login(t, "anna"); f.count(t, `SELECT count(*) FROM api_tokens WHERE created > expires`) != 0 {
		t.Error("an API token ends before it begins, by a guess")
	}
	if _, err := f.bearer(t, token.Token); err != nil {
		t.Error(err)
	}
	sure = true
	f.now = right.Add(2 * time.Minute)
	if late, err = f.Refresh(t.Context(), here, late.RefreshToken); err != nil {
		t.Fatalf("a login of before, after the clock was set back and put right: %v", err)
	}

	// Two days later it is believed.
	f.clock.Aged()
	f.now, ran = f.now.Add(49*time.Hour), 49*time.Hour
	if _, err := f.Refresh(t.Context(), here, late.RefreshToken); err != nil {
		t.Error(err)
	}
	l, err := f.Sessions(t.Context(), anna, "", 10)
	if err != nil || len(l.Items) != 4 {
		t.Fatalf("got %+v, %v", l, err)
	}
	for _, s := range l.Items {
		if s.Expires.After(f.now.Add(refreshLife + clockSlack)) {
			t.Errorf("the login of %s is good until %v", s.Username, s.Expires)
		}
	}
	if _, err := f.bearer(t, token.Token); err != nil {
		t.Error(err)
	}
	f.now = f.now.Add(25 * time.Hour)
	if _, err := f.bearer(t, token.Token); err == nil {
		t.Error("an API token of a day is good for longer than a day from then on")
	}
	if _, err := f.bearer(t, forever.Token); err != nil {
		t.Error(err)
	}
}

// A gateway that nobody tells the time, whose clock runs on as a guess for weeks after the
// one that was kept: tokens end when they should, and reading writes nothing.
func TestTokensUnderAClockThatIsAGuess(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "anna", apitype.RoleAdmin)
	f.addUser(t, "olaf", apitype.RoleViewer)
	ran := time.Duration(0)
	f.clock.Follow(clock.Span{Aged: f.now, Ahead: f.now}, func() bool { return false }, func() time.Duration { return ran })
	pass := func(d time.Duration) { f.now, ran = f.now.Add(d), ran+d }
	pass(10 * 24 * time.Hour)

	anna := Principal{Kind: "user", Name: "anna", Role: apitype.RoleAdmin, Scopes: roleScopes(apitype.RoleAdmin)}
	token, err := f.CreateAPIToken(t.Context(), f.present(t, "anna"), apitype.CreateAPIToken{Name: "logger", Scopes: []string{apitype.ScopeNodesRead}, ExpiresS: 86400})
	if err != nil {
		t.Fatal(err)
	}
	old := f.login(t, "olaf")
	ends := f.now.Add(refreshLife)
	if _, err := f.bearer(t, token.Token); err != nil { // notes that it was used
		t.Fatal(err)
	}
	for range 50 { // within the hour in which that is noted once
		pass(time.Minute)
		before := f.db.Commits()
		if _, err := f.bearer(t, token.Token); err != nil {
			t.Fatal(err)
		}
		if n := f.db.Commits() - before; n != 0 {
			t.Fatalf("a request with an API token wrote %d times", n)
		}
	}
	for range 24 {
		pass(time.Hour)
		_, _ = f.bearer(t, token.Token)
	}
	if _, err := f.bearer(t, token.Token); err == nil {
		t.Error("an API token of a day is good for longer, as it was used")
	}
	// Other logins come and go.
	for f.now.Before(ends.Add(-time.Hour)) {
		pass(24 * time.Hour)
		f.login(t, "anna")
		l, err := f.Sessions(t.Context(), anna, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range l.Items {
			if s.Username == "olaf" && s.Expires.Sub(ends).Abs() > time.Second {
				t.Fatalf("a login that was to end at %v ends at %v", ends, s.Expires)
			}
		}
	}
	f.now = ends.Add(time.Minute)
	if _, err := f.Refresh(t.Context(), here, old.RefreshToken); err == nil {
		t.Error("a login is good for longer, as there were others")
	}
}
