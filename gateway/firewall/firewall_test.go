package firewall

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// haloMesh is what mesh/policy.go does, with a clock that the test turns.
type haloMesh struct {
	err         error
	kept, trial *model.FirewallPolicy
	left        int
	preview     model.FirewallPreview
	orders      int
}

func (m *haloMesh) PutFirewallPolicy(_ context.Context, o model.FirewallOrder) error {
	if m.err != nil {
		return m.err
	}
	m.orders++
	if p := o.Policy.Clone(); o.TrialS > 0 {
		m.trial, m.left = &p, o.TrialS
	} else {
		m.kept, m.trial = &p, nil
	}
	return nil
}

func (m *haloMesh) PreviewFirewall(context.Context, model.FirewallQuestion) (model.FirewallPreview, error) {
	return m.preview, m.err
}

// restart is a crash, or a power cut.
func (m *haloMesh) restart() { m.trial = nil }

func (m *haloMesh) status() *model.FirewallInForce {
	f := &model.FirewallInForce{Kept: m.kept.Digest()}
	if m.trial != nil {
		f.Trial = m.trial.Digest()
	}
	return f
}

func (m *haloMesh) inForce() string {
	if m.trial != nil {
		return m.trial.Digest()
	}
	return m.kept.Digest()
}

type fixture struct {
	*Service
	t      *testing.T
	mesh   *haloMesh
	config Config
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.db")
	storetest.PutConfig(t, path)
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := clock.New(time.Now, time.Time{})
	f := &fixture{t: t, mesh: &haloMesh{kept: &model.FirewallPolicy{}}}
	f.config = Config{DB: db, Clock: c, Events: events.New(db, c, 1, slog.New(slog.DiscardHandler)), Mesh: f.mesh}
	f.start()
	return f
}

// start begins the process anew.
func (f *fixture) start() {
	f.t.Helper()
	s, err := New(f.t.Context(), f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Service = s
}

// follow is a look of meshlink's.
func (f *fixture) follow() {
	f.t.Helper()
	if err := f.Follow(f.t.Context(), time.Now(), f.mesh.status()); err != nil {
		f.t.Fatal(err)
	}
}

var anna = Caller{Actor: "user:anna", Remote: netip.MustParseAddr("192.0.2.7"), Local: netip.MustParseAddrPort("192.0.2.1:8443")}

func (f *fixture) edit(names ...string) model.FirewallPolicy {
	f.t.Helper()
	var p model.FirewallPolicy
	for _, n := range names {
		p.Rules = append(p.Rules, model.FirewallRule{Name: n, Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal})
	}
	if _, err := f.Edit(f.t.Context(), anna.Actor, etag.Match{}, func(q *model.FirewallPolicy) error { *q = p; return nil }); err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) apply(names ...string) model.FirewallPolicy {
	f.t.Helper()
	p := f.edit(names...)
	if _, err := f.Apply(f.t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60}); err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) confirm() error {
	c := anna
	c.Since = time.Now()
	_, err := f.Confirm(f.t.Context(), c)
	return err
}

// holds checks what is in force, what config.db keeps, and how the last trial ended.
func (f *fixture) holds(what string, p model.FirewallPolicy, reverted string) {
	f.t.Helper()
	s, err := f.State(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	got := ""
	if s.Reverted != nil {
		got = s.Reverted.Reason
	}
	if f.mesh.inForce() != p.Digest() || s.Kept.Digest() != p.Digest() || s.Trial != nil || got != reverted {
		f.t.Errorf("%s: %d rules in force, state %+v", what, len(f.mesh.kept.Rules), s)
	}
}

func problem(t *testing.T, err error, typ string) {
	t.Helper()
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Type != typ {
		t.Errorf("got %v, want the problem %s", err, typ)
	}
}

func TestConfirmed(t *testing.T) {
	f := newFixture(t)
	f.follow()
	a := f.apply("a")
	s, err := f.State(t.Context())
	if err != nil || s.Trial == nil || s.Trial.LeftS < 59 || s.Trial.LeftS > 60 || !s.InForce || s.Kept.Digest() == a.Digest() {
		t.Errorf("on trial: got %+v, %v", s, err)
	}
	f.follow()
	if f.mesh.inForce() != a.Digest() {
		t.Error("a look at halo-mesh ended the trial")
	}
	old := anna
	old.Since = time.Now().Add(-time.Minute)
	_, err = f.Confirm(t.Context(), old)
	problem(t, err, apitype.ProblemFirewallConnection)
	if err := f.confirm(); err != nil {
		t.Fatal(err)
	}
	f.holds("confirmed", a, "")
	problem(t, f.confirm(), apitype.ProblemFirewallTrial)
	// Over restarts of both.
	f.mesh.restart()
	f.start()
	f.follow()
	f.holds("after restarts", a, "")

	// An edit during a trial is of the draft alone.
	b := f.apply("a", "b")
	f.edit("a", "b", "c")
	if err := f.confirm(); err != nil {
		t.Fatal(err)
	}
	f.holds("the one on trial", b, "")
	if s, err := f.State(t.Context()); err != nil || !s.Edited || len(s.Draft.Rules) != 3 {
		t.Errorf("the draft: got %+v, %v", s, err)
	}
}

func TestNotConfirmed(t *testing.T) {
	f := newFixture(t)
	none := model.FirewallPolicy{}
	f.apply("a")
	f.trial.until = time.Now() // it passes
	f.mesh.trial = nil         // and for halo-mesh
	problem(t, f.confirm(), apitype.ProblemFirewallTrial)
	f.follow()
	f.holds("its time is over", none, "not-confirmed")

	// halo-mesh is slower.
	f.apply("b")
	f.trial.until = time.Now()
	f.follow()
	f.holds("halo-mesh is told", none, "not-confirmed")

	f.apply("a")
	f.mesh.restart()
	f.follow()
	f.holds("halo-mesh has started again", none, "restarted")
	problem(t, f.confirm(), apitype.ProblemFirewallTrial)

	f.apply("b")
	f.start() // this process has, and halo-mesh goes on with its trial
	problem(t, f.confirm(), apitype.ProblemFirewallTrial)
	f.follow()
	f.holds("gateway-api has started again", none, "restarted")

	f.apply("a")
	f.mesh.restart() // the power was cut
	f.start()
	f.follow()
	f.holds("the power was cut", none, "restarted")

	f.apply("b")
	if _, err := f.Revert(t.Context(), anna); err != nil {
		t.Fatal(err)
	}
	f.holds("reverted", none, "asked")
	if s, err := f.State(t.Context()); err != nil || len(s.Draft.Rules) != 1 {
		t.Errorf("the draft is gone: %+v, %v", s, err)
	}
}

// The moment between config.db and halo-mesh.
func TestConfirmedWhileHaloMeshIsAway(t *testing.T) {
	f := newFixture(t)
	a := f.apply("a")
	f.mesh.err = local.ErrAbsent
	if err := f.confirm(); err != nil {
		t.Fatal(err)
	}
	f.mesh.err = nil
	f.mesh.restart()
	f.start()
	f.follow()
	f.holds("handed over later", a, "")

	f.edit("b")
	f.mesh.err = local.ErrAbsent
	if _, err := f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60}); err == nil {
		t.Error("a trial that halo-mesh has not taken")
	}
	f.mesh.err = nil
	f.follow()
	f.holds("nothing began", a, "")
}

// A status that was asked for before halo-mesh was told something says nothing.
func TestAStatusOfBefore(t *testing.T) {
	f := newFixture(t)
	asked, before := time.Now(), f.mesh.status()
	a := f.apply("a")
	if err := f.Follow(t.Context(), asked, before); err != nil || f.mesh.inForce() != a.Digest() {
		t.Errorf("it ended the trial: %v", err)
	}
	if err := f.confirm(); err != nil {
		t.Fatal(err)
	}
	n := f.mesh.orders
	f.follow()
	f.follow()
	if err := f.Follow(t.Context(), time.Now(), nil); err != nil || f.mesh.orders != n {
		t.Errorf("halo-mesh is told what it has: %d orders, %v", f.mesh.orders-n, err)
	}
}

func TestAppliedByMistake(t *testing.T) {
	f := newFixture(t)
	_, err := f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60})
	problem(t, err, apitype.ProblemFirewallDraft)
	f.edit("a")
	_, err = f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60, Digest: "00"})
	problem(t, err, apitype.ProblemFirewallDraft)
	f.mesh.preview.Breaks = []string{"mesh to the device: wireguard (udp port 51820), by a"}
	_, err = f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60})
	problem(t, err, apitype.ProblemFirewallLocksOut)
	if _, err = f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60, Anyway: true}); err != nil {
		t.Error(err)
	}
	_, err = f.Apply(t.Context(), anna, apitype.ApplyFirewall{ConfirmS: 60})
	problem(t, err, apitype.ProblemFirewallTrial)
}
