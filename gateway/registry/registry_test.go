package registry

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

var (
	build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	here  = netip.MustParseAddr("fd00::7")
)

type fixture struct {
	*Registry
	path   string
	db     *store.DB
	events *events.Log
	key    identity.Key
	now    time.Time
	begin  time.Time // when now was; zero: it stands still
	mono   time.Time
}

func (f *fixture) wall() time.Time {
	if f.begin.IsZero() {
		return f.now
	}
	return f.now.Add(time.Since(f.begin))
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{path: filepath.Join(t.TempDir(), "config.db"), key: identity.New(), now: build.Add(time.Hour), mono: time.Now()}
	f.open(t)
	return f
}

// open starts the registry, as after a restart.
func (f *fixture) open(t *testing.T) {
	t.Helper()
	if f.db != nil {
		if err := f.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if f.db, _, err = store.OpenConfig(t.Context(), f.path); err != nil {
		t.Fatal(err)
	}
	db := f.db
	t.Cleanup(func() { db.Close() })
	c := clock.New(f.wall, build)
	f.events = events.New(f.db, c, 1, slog.New(slog.DiscardHandler))
	f.Registry, err = New(t.Context(), Config{DB: f.db, Clock: c, Events: f.events, Key: f.key, Name: "base", CA: "PEM", Boot: 3, Epoch: func() uint64 { return 5 }})
	if err != nil {
		t.Fatal(err)
	}
	f.nonces.now = func() time.Time { return f.mono }
}

// kinds writes the waiting events and returns the kinds of all.
func (f *fixture) kinds(t *testing.T) []string {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.events.Run(ended); err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	list, _, err := f.events.List(t.Context(), events.Query{Since: &zero, Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// flush writes down what Run would at its end.
func (f *fixture) flush(t *testing.T) {
	t.Helper()
	if err := f.save(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) request(node identity.Key, token string) model.JoinRequest {
	r := model.JoinRequest{Network: f.key.Public().Base64(), IdentityKey: node.Public().Base64(), Token: token, Boot: 1}
	return f.withKey(r, node, node)
}

// withKey has a node's request name the overlay key of wg, and prove that it has it.
func (f *fixture) withKey(r model.JoinRequest, node, wg identity.Key) model.JoinRequest {
	public := wg.WireGuardPublic()
	proof, err := identity.ProvePossession(f.key.Public(), node.Public(), wg.WireGuard())
	if err != nil {
		panic(err) // the network's key is one
	}
	r.WireGuardKey, r.Possession = base64.StdEncoding.EncodeToString(public[:]), base64.StdEncoding.EncodeToString(proof)
	return r
}

func sign(node identity.Key, r model.JoinRequest) model.JoinRequest {
	r.Signature = base64.StdEncoding.EncodeToString(node.Sign(model.JoinContext, r.SignedBytes()))
	return r
}

// join runs both steps.
func (f *fixture) join(t *testing.T, node identity.Key, r model.JoinRequest) (model.Membership, error) {
	t.Helper()
	return f.joinFrom(t, here, node, r)
}

func (f *fixture) joinFrom(t *testing.T, from netip.Addr, node identity.Key, r model.JoinRequest) (model.Membership, error) {
	t.Helper()
	_, err := f.Join(t.Context(), from, r)
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok || p.Type != apitype.ProblemJoinNonce || p.Nonce == "" {
		t.Fatalf("without a nonce: got %v, want the problem join-nonce", err)
	}
	r.Nonce = p.Nonce
	return f.Join(t.Context(), from, sign(node, r))
}

func (f *fixture) token(uses uint32) string {
	return identity.NewJoinToken(uses, f.now.Add(time.Hour)).Text(f.key)
}

func wantType(t *testing.T, err error, typ string) {
	t.Helper()
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != typ {
		t.Fatalf("got %v, want problem %s", err, typ)
	}
}

func TestJoinWithTokenIsIdempotentAndPersists(t *testing.T) {
	f := newFixture(t)
	changes := f.Changes()
	node := identity.New()
	token := f.token(1)
	r := f.request(node, token)
	r.Name, r.MACs = "mast-1", []string{"02:00:00:00:00:01", "rubbish"}
	m, err := f.join(t, node, r)
	if err != nil {
		t.Fatal(err)
	}
	if m.Node != node.ID() || m.Name != "mast-1" || m.OverlayV4 != netip.MustParseAddr("10.42.0.10") || m.OverlayV6 != identity.Overlay(f.key.Public(), node.Public()) || m.CA != "PEM" || m.Epoch != 5 {
		t.Errorf("got membership %+v", m)
	}
	select {
	case <-changes:
	default:
		t.Error("the link to halo-mesh was not told of a new peer")
	}
	again, err := f.join(t, node, r) // its token is used up, but it is known
	if err != nil || again != m {
		t.Errorf("joining again: got %+v, %v; want the same membership", again, err)
	}
	f.open(t)
	again, err = f.join(t, node, r)
	if err != nil || again != m {
		t.Errorf("after a restart: got %+v, %v; want the same membership", again, err)
	}
	peers, err := f.Peers(t.Context())
	if err != nil || len(peers) != 1 || peers[0].Node != node.ID() || peers[0].OverlayV4 != m.OverlayV4 {
		t.Errorf("got peers %+v, %v", peers, err)
	}
	n, err := f.Node(t.Context(), "mast-1")
	if err != nil || !slices.Equal(n.MACs, []string{"02:00:00:00:00:01"}) || !strings.HasPrefix(n.AdmittedBy, "token:") {
		t.Errorf("got node %+v, %v", n, err)
	}
}

func TestJoinRefusals(t *testing.T) {
	f := newFixture(t)
	other := identity.New() // another network's gateway
	foreign := identity.NewJoinToken(1, f.now.Add(time.Hour)).Text(other)
	spent := f.token(1)
	first := identity.New()
	if _, err := f.join(t, first, f.request(first, spent)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, token, typ string
		change           func(*model.JoinRequest, identity.Key)
		event            bool
	}{
		{"another network's token", foreign, apitype.ProblemTokenInvalid, nil, true},
		{"no token at all", "halo-join-rubbish", apitype.ProblemTokenInvalid, nil, true},
		{"another node's overlay key", f.token(1), apitype.ProblemJoinKey, func(r *model.JoinRequest, node identity.Key) {
			*r = f.withKey(*r, node, first)
		}, true},
		{"an overlay key that it does not prove to have", f.token(1), apitype.ProblemJoinKey, func(r *model.JoinRequest, _ identity.Key) {
			key := identity.New().WireGuardPublic()
			r.WireGuardKey = base64.StdEncoding.EncodeToString(key[:])
		}, true},
		{"no proof", f.token(1), apitype.ProblemJoinKey, func(r *model.JoinRequest, _ identity.Key) { r.Possession = "" }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := identity.New()
			r := f.request(node, tc.token)
			if tc.change != nil {
				tc.change(&r, node)
			}
			before := len(f.kinds(t))
			_, err := f.join(t, node, r)
			wantType(t, err, tc.typ)
			if after := f.kinds(t); tc.event && (len(after) != before+1 || after[before] != "join.refused") {
				t.Errorf("events since: %v, want join.refused", after[before:])
			}
			if strings.Contains(err.Error(), tc.token) {
				t.Errorf("the error repeats the token: %v", err)
			}
			if _, err := f.Node(t.Context(), node.ID()); err == nil {
				t.Error("the node was admitted")
			}
		})
	}
	t.Run("another network", func(t *testing.T) {
		r := f.request(identity.New(), "")
		r.Network = other.Public().Base64()
		_, err := f.Join(t.Context(), here, r)
		wantType(t, err, apitype.ProblemJoinNetwork)
	})
}

func TestJoinProvesTheKeyAndCannotBeReplayed(t *testing.T) {
	f := newFixture(t)
	node, thief := identity.New(), identity.New()
	r := f.request(node, f.token(5))
	_, err := f.Join(t.Context(), here, r)
	p, _ := errors.AsType[*apitype.Problem](err)
	r.Nonce = p.Nonce

	_, err = f.Join(t.Context(), here, sign(thief, r))
	wantType(t, err, apitype.ProblemJoinSignature)

	changed := sign(node, r)
	changed.Name = "changed-afterwards"
	_, err = f.Join(t.Context(), here, changed)
	wantType(t, err, apitype.ProblemJoinSignature)

	stolen := f.request(thief, r.Token) // with a nonce that was given to another node
	stolen.Nonce = r.Nonce
	_, err = f.Join(t.Context(), here, sign(thief, stolen))
	wantType(t, err, apitype.ProblemJoinNonce)

	if _, err = f.Join(t.Context(), here, sign(node, r)); err != nil {
		t.Fatal(err)
	}
	_, err = f.Join(t.Context(), here, sign(node, r))
	wantType(t, err, apitype.ProblemJoinNonce)
	if !slices.Contains(f.kinds(t), "join.refused") {
		t.Error("the replay made no event")
	}

	_, err = f.Join(t.Context(), here, f.request(node, ""))
	p, _ = errors.AsType[*apitype.Problem](err)
	late := f.request(node, "")
	late.Nonce = p.Nonce
	f.mono = f.mono.Add(nonceLife + time.Second)
	_, err = f.Join(t.Context(), here, sign(node, late))
	wantType(t, err, apitype.ProblemJoinNonce)
}

func TestApproveAndReject(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	r := f.request(node, "")
	r.Name, r.Board = "mast-2", "QEMU"
	_, err := f.join(t, node, r)
	wantType(t, err, apitype.ProblemJoinPending)
	list, err := f.Registrations(t.Context(), "", 10)
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != node.ID() || list.Items[0].Name != "mast-2" || list.Items[0].State != "pending" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if err := f.Reject(t.Context(), node.ID()); err != nil {
		t.Fatal(err)
	}
	_, err = f.join(t, node, r)
	wantType(t, err, apitype.ProblemJoinRejected)
	for range 2 { // the admin's client may retry
		if n, err := f.Approve(t.Context(), node.ID(), "user:root"); err != nil || n.Name != "mast-2" || n.AdmittedBy != "user:root" {
			t.Fatalf("got %+v, %v", n, err)
		}
	}
	if _, err := f.join(t, node, r); err != nil {
		t.Errorf("after approval: %v", err)
	}
	if list, err := f.Registrations(t.Context(), "", 10); err != nil || len(list.Items) != 0 {
		t.Errorf("still listed: %+v, %v", list, err)
	}
	_, err = f.Approve(t.Context(), identity.New().ID(), "user:root")
	wantType(t, err, "about:blank")
}

// A token that was this network's shows that the card was meant for it, so an
// admin is asked; the node hears why it waits.
func TestANodeWhoseTokenIsNoUseWaitsForAnAdmin(t *testing.T) {
	f := newFixture(t)
	tomorrow := f.now.Add(24 * time.Hour)
	spent, revoked := identity.NewJoinToken(1, tomorrow).Text(f.key), identity.NewJoinToken(1, tomorrow).Text(f.key)
	first := identity.New()
	if _, err := f.join(t, first, f.request(first, spent)); err != nil {
		t.Fatal(err)
	}
	parsed, err := identity.ParseJoinToken(revoked, f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RevokeJoinToken(t.Context(), hex.EncodeToString(parsed.ID[:])); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, token, reason, mention string }{
		{"no token", "", apitype.ProblemTokenNone, "no join token"},
		{"expired", identity.NewJoinToken(1, f.now.Add(-time.Minute)).Text(f.key), apitype.ProblemTokenExpired, "expired at 2026-11-01T00:59:00Z"},
		{"used up", spent, apitype.ProblemTokenUsedUp, "used up: it was good for 1"},
		{"revoked", revoked, apitype.ProblemTokenRevoked, "was revoked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := identity.New()
			r := f.request(node, tc.token)
			before := len(f.kinds(t))
			var details []string
			for range 3 { // it asks again and again
				_, err := f.join(t, node, r)
				wantType(t, err, apitype.ProblemJoinPending)
				details = append(details, err.Error())
				f.now, f.mono = f.now.Add(time.Hour), f.mono.Add(time.Hour)
			}
			if !strings.Contains(details[0], tc.mention) || !strings.Contains(details[0], "admin has to approve") || tc.token != "" && strings.Contains(details[0], tc.token) {
				t.Errorf("the node hears %q, want mention of %q", details[0], tc.mention)
			}
			if details[1] != details[0] || details[2] != details[0] {
				t.Errorf("the same reason in other words, which would be an event of the node's each time: %q", details)
			}
			if since := f.kinds(t)[before:]; !slices.Equal(since, []string{"join.pending"}) {
				t.Errorf("events since: %v, want join.pending once", since)
			}
			list, err := f.Registrations(t.Context(), "", 10)
			if err != nil || len(list.Items) != 1 || list.Items[0].ID != node.ID() || list.Items[0].Reason != tc.reason {
				t.Fatalf("registrations: %+v, %v; want one for %s", list.Items, err, tc.reason)
			}
			if _, err := f.Approve(t.Context(), node.ID(), "user:root"); err != nil {
				t.Fatal(err)
			}
			if m, err := f.join(t, node, r); err != nil || m.Node != node.ID() {
				t.Errorf("after approval: %+v, %v", m, err)
			}
		})
	}
}

// Where the list of those who wait is full, a node still hears what is wrong
// with its token.
func TestAFullListTellsOfTheToken(t *testing.T) {
	f := newFixture(t)
	fill(t, f)
	node := identity.New()
	_, err := f.join(t, node, f.request(node, identity.NewJoinToken(1, f.now.Add(-time.Minute)).Text(f.key)))
	wantType(t, err, apitype.ProblemTokenExpired)
}

func TestNamesAndAddresses(t *testing.T) {
	f := newFixture(t)
	token := f.token(100)
	join := func(name string) model.Membership {
		node := identity.New()
		r := f.request(node, token)
		r.Name = name
		m, err := f.join(t, node, r)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	long := strings.Repeat("a", 63)
	for _, tc := range []struct{ asked, want string }{
		{"mast", "mast"}, {"mast", "mast-2"}, {"mast", "mast-3"}, {"base", "base-2"}, {long, long}, {long, strings.Repeat("a", 61) + "-2"},
	} {
		if got := join(tc.asked).Name; got != tc.want {
			t.Errorf("asked for %s: got %s, want %s", tc.asked, got, tc.want)
		}
	}
	for _, asked := range []string{"", "Mast 1", "stream", "gateway-api", "brain-send-n01", "brain-sensor", "n-aaaaaaaaaaaaaaaaaaaa", "../../etc"} {
		if m := join(asked); m.Name != "node-"+m.Node[2:8] {
			t.Errorf("asked for %q: got %s, want one made of the ID", asked, m.Name)
		}
	}
	if !slices.Contains(f.kinds(t), "node.name.conflict") {
		t.Error("the conflict made no event")
	}
	changes := f.Changes()
	if n, err := f.Rename(t.Context(), "mast-2", etag.Match{}, "hill"); err != nil || n.Name != "hill" {
		t.Errorf("rename: %+v, %v", n, err)
	}
	select {
	case <-changes:
	default:
		t.Error("the link to halo-mesh was not told of another name, which DNS, the signed list and the node itself go by")
	}
	if _, err := f.Rename(t.Context(), "hill", etag.Match{}, "hill"); err != nil {
		t.Error(err)
	}
	select {
	case <-changes:
		t.Error("the same name once more has all members told anew")
	default:
	}
	_, err := f.Rename(t.Context(), "hill", etag.Match{}, "mast")
	wantType(t, err, apitype.ProblemNameTaken)
	for _, bad := range []string{"No Name", "brain-sensor-n01"} {
		_, err = f.Rename(t.Context(), "hill", etag.Match{}, bad)
		wantType(t, err, "about:blank")
	}
	nodes, err := f.Nodes(t.Context(), "", 500)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for _, n := range nodes.Items {
		if seen[n.OverlayV4] {
			t.Errorf("%s was given twice", n.OverlayV4)
		}
		seen[n.OverlayV4] = true
	}
}

func TestRevokedNodesStayOut(t *testing.T) {
	f := newFixture(t)
	node, next := identity.New(), identity.New()
	m, err := f.join(t, node, f.request(node, f.token(1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Revoke(t.Context(), m.Name, etag.Match{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.join(t, node, f.request(node, f.token(1)))
	wantType(t, err, apitype.ProblemJoinRevoked)
	if peers, err := f.Peers(t.Context()); err != nil || len(peers) != 0 {
		t.Errorf("a revoked node is a peer: %+v, %v", peers, err)
	}
	after, err := f.join(t, next, f.request(next, f.token(1)))
	if err != nil || after.OverlayV4 == m.OverlayV4 {
		t.Errorf("the revoked node's address %s was given again (%v)", after.OverlayV4, err)
	}
	_, err = f.Revoke(t.Context(), f.key.ID(), etag.Match{})
	wantType(t, err, apitype.ProblemGatewayItself)
}

func TestARegistryIsFreshUntilTheFirstNodeForGood(t *testing.T) {
	f := newFixture(t)
	fresh := func() bool {
		t.Helper()
		is, err := f.Fresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	node := identity.New()
	_, err := f.join(t, node, f.request(node, ""))
	wantType(t, err, apitype.ProblemJoinPending)
	if !fresh() {
		t.Error("with the gateway alone, and a node that waits, it is not fresh")
	}
	if _, err := f.join(t, node, f.request(node, f.token(1))); err != nil {
		t.Fatal(err)
	}
	if fresh() {
		t.Error("it is fresh with a node")
	}
	if _, err := f.Revoke(t.Context(), node.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if fresh() {
		t.Error("it is fresh again after the node was revoked")
	}
}

func TestRevokedTokens(t *testing.T) {
	f := newFixture(t)
	made, err := f.CreateJoinToken(t.Context(), apitype.CreateJoinToken{Uses: 3, ExpiresS: 3600, Note: "box 7"})
	if err != nil {
		t.Fatal(err)
	}
	lost := identity.NewJoinToken(1, f.now.Add(time.Hour)) // on a card that was never used
	for _, id := range []string{made.ID, fmt.Sprintf("%x", lost.ID)} {
		if err := f.RevokeJoinToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	f.now = f.now.Add(time.Minute)
	if _, err := f.CreateJoinToken(t.Context(), apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600}); err != nil { // clears up old ones
		t.Fatal(err)
	}
	for _, token := range []string{made.Token, lost.Text(f.key)} {
		node := identity.New()
		_, err := f.join(t, node, f.request(node, token))
		wantType(t, err, apitype.ProblemJoinPending)
	}
}

// A clock that is late admits a token that may have expired, but never refuses
// one that has not.
func TestTokensInNineteenSeventy(t *testing.T) {
	f := newFixture(t)
	f.now = time.Unix(0, 0)
	good := identity.NewJoinToken(1, build.Add(time.Hour)).Text(f.key)
	old := identity.NewJoinToken(1, build.Add(-time.Hour)).Text(f.key)
	a, b := identity.New(), identity.New()
	if _, err := f.join(t, a, f.request(a, good)); err != nil {
		t.Errorf("a token that is valid at the time of the build: %v", err)
	}
	_, err := f.join(t, b, f.request(b, old))
	wantType(t, err, apitype.ProblemJoinPending)
	n, err := f.Node(t.Context(), a.ID())
	if err != nil || n.Joined.Before(build) {
		t.Errorf("joined at %v, before the build (%v)", n.Joined, err)
	}
}

func TestANewRadioIsNoNewNode(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	if _, err := f.join(t, node, f.request(node, f.token(1))); err != nil {
		t.Fatal(err)
	}
	id := node.ID()
	heartbeat := func(names ...string) {
		s := model.NodeStatus{State: "ok", Board: "QEMU", Kernel: "6.12"}
		for _, n := range names {
			s.Interfaces = append(s.Interfaces, model.Interface{Name: n, Kind: "ethernet", Up: true, RxBytes: 7})
		}
		f.Status(id, s)
	}
	heartbeat("eth0", "wlan0")
	heartbeat("eth0", "wlan1")
	list, err := f.Interfaces(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, i := range list {
		got[i.Name] = i.Present
	}
	if len(got) != 3 || !got["eth0"] || got["wlan0"] || !got["wlan1"] {
		t.Errorf("got %v, want eth0 and wlan1 there, wlan0 gone", got)
	}
	if list[0].RxBytes != 7 {
		t.Error("the counters of the last report are missing")
	}
	f.flush(t)
	f.open(t)
	n, err := f.Node(t.Context(), id)
	if err != nil || n.State != "ok" || n.Kernel != "6.12" || n.LastSeen == nil || n.Online {
		t.Errorf("after a restart: %+v, %v", n, err)
	}
	for i := range 200 {
		heartbeat(fmt.Sprintf("usb%d", i))
		if i%10 == 0 {
			f.flush(t)
		}
	}
	f.flush(t)
	if list, err := f.Interfaces(t.Context(), id); err != nil || len(list) > maxInterfaces+1 {
		t.Errorf("a node that renames its interfaces fills the database: %d, %v", len(list), err)
	}
}

func TestHeartbeatsSpareTheCard(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	if _, err := f.join(t, node, f.request(node, f.token(1))); err != nil {
		t.Fatal(err)
	}
	writes := func() (n int64) {
		if err := f.db.Read().QueryRow(`SELECT last_seen FROM nodes WHERE id = ?`, node.ID()).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	beat := func(uptime int64) {
		s := model.NodeStatus{State: "ok", UptimeS: uptime, Interfaces: []model.Interface{{Name: "eth0", RxBytes: uint64(uptime)}}}
		f.Status(node.ID(), s)
		if err := f.save(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	beat(1)
	first := writes()
	f.now = f.now.Add(5 * time.Minute)
	beat(300)
	if writes() != first {
		t.Error("a heartbeat without news was written")
	}
	f.now = f.now.Add(seenEvery)
	beat(1200)
	if writes() == first {
		t.Error("last seen was never written")
	}
}

func TestDatabaseOfAnotherNetworkIsNotTaken(t *testing.T) {
	f := newFixture(t)
	c := clock.New(time.Now, build)
	_, err := New(t.Context(), Config{DB: f.db, Clock: c, Events: f.events, Key: identity.New()})
	if !errors.Is(err, ErrOtherNetwork) {
		t.Errorf("got %v, want ErrOtherNetwork", err)
	}
}

func FuzzNonce(f *testing.F) {
	n := newNonces()
	key := identity.New().Public()
	f.Add(n.make(identity.New().Public()))
	f.Add("")
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, nonceSize)))
	f.Fuzz(func(t *testing.T, text string) {
		if err := n.use(key, text); err == nil {
			t.Fatalf("%q was never given to this node", text)
		}
	})
}

// Base64 may be written with line ends in it, and with any bits behind the last
// octet.
func TestAnotherNodesKeyInOtherLettersIsThatKey(t *testing.T) {
	f := newFixture(t)
	victim := identity.New()
	if _, err := f.join(t, victim, f.request(victim, f.token(1))); err != nil {
		t.Fatal(err)
	}
	key := f.request(victim, "").WireGuardKey
	last := len(key) - 2 // before the padding; its lowest two bits mean nothing
	at := strings.IndexByte(base64Letters, key[last])
	for name, text := range map[string]string{
		"line end":   key[:10] + "\n" + key[10:],
		"spare bits": key[:last] + string(base64Letters[at^1]) + key[last+1:],
	} {
		node := identity.New()
		r := f.withKey(f.request(node, f.token(1)), node, victim)
		r.WireGuardKey = text
		_, err := f.join(t, node, r)
		if wantType(t, err, apitype.ProblemJoinKey); err == nil {
			t.Errorf("%s: it joined with another's key", name)
		}
	}
	if peers, err := f.Peers(t.Context()); err != nil || len(peers) != 1 {
		t.Errorf("peers: %+v, %v, want the victim alone", peers, err)
	}
}

const base64Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func TestEachNodeHasANetworkForItsClients(t *testing.T) {
	f := newFixture(t)
	token := f.token(300)
	join := func() model.Membership {
		t.Helper()
		node := identity.New()
		m, err := f.join(t, node, f.request(node, token))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, second := join(), join()
	if first.Clients.String() != "10.43.1.0/24" || second.Clients.String() != "10.43.2.0/24" {
		t.Errorf("expected the first two networks, got %s and %s", first.Clients, second.Clients)
	}
	peers, err := f.Peers(t.Context())
	if err != nil || len(peers) != 2 {
		t.Fatalf("peers: %+v, %v", peers, err)
	}
	for _, p := range peers {
		if m := map[string]model.Membership{first.Node: first, second.Node: second}[p.Node]; p.Clients != m.Clients || p.Name != m.Name {
			t.Errorf("expected clients %s of %s, got %s of %s", m.Clients, m.Name, p.Clients, p.Name)
		}
	}
	if _, err := f.Revoke(t.Context(), first.Node, etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if m := join(); m.Clients.String() != "10.43.3.0/24" {
		t.Errorf("expected a network that nobody had while there are some, got %s", m.Clients)
	}
	f.exec(t, `WITH RECURSIVE i(n) AS (SELECT 4 UNION ALL SELECT n + 1 FROM i WHERE n < 254)
		INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, clients, admitted_by, joined)
		SELECT 'n-' || n, 'x' || n, 'node', 'k' || n, 'w' || n, '10.42.100.' || n, n, 'test', n FROM i`)
	if m := join(); m.Clients != first.Clients {
		t.Errorf("expected the network %s of the revoked node, got %s", first.Clients, m.Clients)
	}
	last := join()
	if last.Clients.IsValid() || !last.OverlayV4.IsValid() {
		t.Errorf("expected a member without a network for clients, got %+v", last)
	}
	if n, err := f.Node(t.Context(), last.Node); err != nil || n.Clients.IsValid() {
		t.Errorf("node: %+v, %v", n, err)
	}
}
