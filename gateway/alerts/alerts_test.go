package alerts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

type fixture struct {
	*Book
	t      *testing.T
	now    time.Time // of the wall
	mono   time.Time
	is     []Condition
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
	f := &fixture{t: t, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), mono: time.Now()}
	c := clock.New(func() time.Time { return f.now }, f.now.Add(-time.Hour))
	log := slog.New(slog.DiscardHandler)
	f.config = Config{DB: db, Clock: c, Events: events.New(db, c, 1, log), Log: log, Look: func(context.Context, func(Key) bool) ([]Condition, error) { return f.is, nil }}
	f.start()
	return f
}

func (f *fixture) start() {
	f.t.Helper()
	b, err := New(f.t.Context(), f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Book = b
}

// after lets time pass in looks.
func (f *fixture) after(d time.Duration, is ...Condition) {
	f.t.Helper()
	f.is = is
	for end := f.mono.Add(d); f.mono.Before(end); {
		f.mono, f.now = f.mono.Add(lookEvery), f.now.Add(lookEvery)
		if err := f.look(f.t.Context(), f.mono); err != nil {
			f.t.Fatal(err)
		}
	}
}

// states are the alerts, newest first, as kind/severity/state.
func (f *fixture) states() string {
	f.t.Helper()
	l, err := f.List(f.t.Context(), Query{Severity: model.Info, Limit: 100})
	if err != nil {
		f.t.Fatal(err)
	}
	var out []string
	for _, a := range l.Items {
		state := "open"
		if a.Closed != nil {
			state = "closed"
		}
		if a.Acknowledged != nil {
			state += ", acknowledged"
		}
		out = append(out, a.Kind+" "+string(a.Severity)+" "+state)
	}
	return strings.Join(out, "; ")
}

func (f *fixture) want(states string) {
	f.t.Helper()
	if got := f.states(); got != states {
		f.t.Errorf("got  %q\nwant %q", got, states)
	}
}

func offline(severity model.Severity) Condition {
	return Condition{Key: Key{Kind: KindOffline, Node: "n-x"}, Severity: severity, Message: "mast is offline", After: offlineAfter}
}

func TestAnAlertOpensAndCloses(t *testing.T) {
	f := newFixture(t)
	f.after(offlineAfter, offline(model.Warning))
	f.want("")
	f.after(lookEvery) // it was there for a moment
	f.after(offlineAfter, offline(model.Warning))
	f.want("")
	f.after(lookEvery, offline(model.Warning))
	f.want("node.offline warning open")
	f.after(lookEvery) // it is gone for a moment
	f.after(time.Minute, offline(model.Warning))
	f.want("node.offline warning open")

	l, err := f.List(t.Context(), Query{State: "open", Severity: model.Warning, Nodes: []string{"n-w", "n-x"}, Kind: "node.", Limit: 1})
	if err != nil || len(l.Items) != 1 || l.Items[0].Message != "mast is offline" {
		t.Fatalf("got %+v, %v", l, err)
	}
	id := l.Items[0].ID
	if a, err := f.Acknowledge(t.Context(), id, "user:anna", "on my way"); err != nil || a.Acknowledged.By != "user:anna" || a.Acknowledged.Note != "on my way" || a.Closed != nil {
		t.Errorf("got %+v, %v", a, err)
	}
	f.want("node.offline warning open, acknowledged")
	// It becomes worse: that has to be seen, and known of again. Better, and it stays known.
	f.after(lookEvery, offline(model.Error))
	f.want("node.offline error open")
	if _, err := f.Acknowledge(t.Context(), id, "user:olaf", ""); err != nil {
		t.Error(err)
	}
	f.after(lookEvery, offline(model.Warning))
	f.want("node.offline warning open, acknowledged")

	// Over a restart: it goes on, whatever was missed.
	f.start()
	f.after(lookEvery, offline(model.Warning))
	f.want("node.offline warning open, acknowledged")
	f.after(lookEvery, Condition{Key: Key{Kind: KindOffline, Node: "n-x"}, Unknown: true})
	f.after(time.Hour, Condition{Key: Key{Kind: KindOffline, Node: "n-x"}, Unknown: true})
	f.want("node.offline warning open, acknowledged")
	f.after(goneFor + lookEvery)
	f.want("node.offline warning closed, acknowledged")
	f.after(offlineAfter+lookEvery, offline(model.Warning))
	f.want("node.offline warning open; node.offline warning closed, acknowledged")
	// One that ended while nobody looked.
	f.start()
	f.after(goneFor + lookEvery)
	f.want("node.offline warning closed; node.offline warning closed, acknowledged")
	if l, err := f.List(t.Context(), Query{State: "open", Limit: 10}); err != nil || len(l.Items) != 0 {
		t.Errorf("open: got %+v, %v", l, err)
	}
	if _, err := f.Acknowledge(t.Context(), id+100, "user:anna", ""); err == nil {
		t.Error("an alert that is not there is acknowledged")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.config.Events.Run(ended); err != nil {
		t.Fatal(err)
	}
	list, _, err := f.config.Events.List(t.Context(), events.Query{Kind: "alert.", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, e.Kind+" "+string(e.Severity))
	}
	want := []string{"alert.closed info", "alert.opened warning", "alert.closed info", "alert.opened warning", "alert.opened error", "alert.opened warning"}
	if !slices.Equal(kinds, want) {
		t.Errorf("events %q, want %q", kinds, want)
	}
}

// A disk that is about as full as an error takes is one alert, known of, until it is clearly less
// full; and what becomes worse again and again has to be seen anew once an hour.
func TestAnAlertThatIsKnownOfStaysSo(t *testing.T) {
	f := newFixture(t)
	disk := func(percent float64) []Condition {
		return Conditions(Snapshot{Now: f.now, Mapped: true, Nodes: []apitype.Node{{ID: "n-x", Name: "mast", Online: true, State: "ok"}},
			Readings: map[string][]apitype.Reading{"n-x": {{Metric: "storage.perm.used_percent", Value: percent, Time: f.now, Clock: model.ClockGPS}}}}, f.isOpen)
	}
	acknowledge := func() {
		t.Helper()
		l, err := f.List(t.Context(), Query{State: "open", Limit: 1})
		if err != nil || len(l.Items) != 1 {
			t.Fatalf("got %+v, %v", l, err)
		}
		if _, err := f.Acknowledge(t.Context(), l.Items[0].ID, "user:anna", ""); err != nil {
			t.Fatal(err)
		}
	}
	f.after(time.Minute, disk(97)...)
	f.want("disk.full error open")
	acknowledge()
	for range 30 {
		f.after(lookEvery, disk(96.9)...)
		f.want("disk.full error open, acknowledged")
		f.after(lookEvery, disk(97.1)...)
		f.want("disk.full error open, acknowledged")
	}
	f.after(lookEvery, disk(94)...)
	f.want("disk.full warning open, acknowledged")
	f.after(time.Minute, disk(96)...)
	f.want("disk.full warning open, acknowledged")
	f.after(lookEvery, disk(98)...)
	f.want("disk.full error open")
	acknowledge()
	f.after(lookEvery, disk(94)...)
	f.after(lookEvery, disk(98)...)
	f.want("disk.full error open, acknowledged")
	for range 3 {
		f.after(rouseEvery, disk(94)...)
		f.after(lookEvery, disk(98)...)
		f.want("disk.full error open")
		acknowledge()
	}
	f.after(time.Minute, disk(84)...)
	f.want("disk.full error closed, acknowledged")
}

func TestPagesOfAlerts(t *testing.T) {
	f := newFixture(t)
	var is []Condition
	for _, disk := range []string{"a", "b", "c", "d", "e"} {
		is = append(is, Condition{Key: Key{KindDisk, "n-x", disk}, Severity: model.Error, Message: disk})
	}
	f.after(lookEvery, append(is, is[0])...) // said twice is once
	var seen string
	for cursor := ""; ; {
		l, err := f.List(t.Context(), Query{Cursor: cursor, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range l.Items {
			seen += a.Subject
		}
		if cursor = l.Next; cursor == "" {
			break
		}
	}
	if seen != "edcba" {
		t.Errorf("got %q", seen)
	}
	if _, err := f.List(t.Context(), Query{Cursor: "x", Limit: 2}); err == nil {
		t.Error("a cursor that is none is taken")
	}
}

// A database that takes nothing keeps nothing back: the next look tries again.
func TestADatabaseThatIsAway(t *testing.T) {
	f := newFixture(t)
	f.is = []Condition{{Key: Key{Kind: KindTwin}, Severity: model.Error, Message: "two"}}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.look(gone, f.mono); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.want("")
	f.after(lookEvery, f.is...)
	f.want("gateway.twin error open")
}

func TestConditions(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	seen := now.Add(-time.Hour)
	on := apitype.Node{ID: "n-x", Name: "mast", Online: true, State: "ok", LastSeen: &seen}
	with := func(change func(*apitype.Node)) []apitype.Node {
		n := on
		change(&n)
		return []apitype.Node{n}
	}
	disk := func(value float64, age time.Duration) map[string][]apitype.Reading {
		return map[string][]apitype.Reading{"n-x": {{Metric: "storage.perm.used_percent", Value: value, Time: now.Add(-age), Clock: model.ClockGPS}, {Metric: "storage.perm.free_bytes", Value: 1, Time: now}}}
	}
	perm := Key{KindDisk, "n-x", "perm"}
	for _, tc := range []struct {
		name string
		s    Snapshot
		open []Key
		want string // kind subject severity, or unknown
	}{
		{"all is well", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(50, time.Minute)}, nil, ""},
		{"offline", Snapshot{Nodes: with(func(n *apitype.Node) { n.Online = false })}, nil, "node.offline  warning; node.state  unknown; node.volatile  unknown; clock.unset  unknown"},
		{"cut off", Snapshot{Nodes: with(func(n *apitype.Node) { n.Online = false }), Unreachable: []string{"n-w", "n-x"}}, nil, "node.unreachable  error; node.offline  unknown; node.state  unknown; node.volatile  unknown; clock.unset  unknown"},
		{"cut off, and its stream is not missed yet", Snapshot{Nodes: []apitype.Node{on}, Unreachable: []string{"n-x"}}, nil, "node.unreachable  error"},
		{"another one is cut off", Snapshot{Nodes: []apitype.Node{on}, Unreachable: []string{"n-w", "n-y"}}, nil, ""},
		{"cut off and revoked", Snapshot{Nodes: with(func(n *apitype.Node) { n.Revoked = true }), Unreachable: []string{"n-x"}}, nil, ""},
		{"revoked and offline", Snapshot{Nodes: with(func(n *apitype.Node) { n.Online, n.Revoked = false, true })}, nil, ""},
		{"quarantined", Snapshot{Nodes: with(func(n *apitype.Node) {
			n.Online, n.Quarantined = false, &apitype.Quarantine{Reason: "two"}
		})}, nil, "node.quarantined  error"},
		{"failed", Snapshot{Nodes: with(func(n *apitype.Node) { n.State, n.Missing = "failed", "radio" })}, nil, "node.state  error"},
		{"degraded", Snapshot{Nodes: with(func(n *apitype.Node) { n.State = "degraded" })}, nil, "node.state  warning"},
		{"keeps nothing", Snapshot{Nodes: with(func(n *apitype.Node) { n.Volatile = true })}, nil, "node.volatile  warning"},
		{"disk at 89", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(89, 0)}, nil, ""},
		{"disk at 89, and it was more", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(89, 0)}, []Key{perm}, "disk.full perm warning"},
		{"disk at 84, and it was more", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(84, 0)}, []Key{perm}, ""},
		{"disk at 90", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(90, 0)}, nil, "disk.full perm warning"},
		{"disk at 97", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(97, 0)}, nil, "disk.full perm error"},
		{"disk at 97 long ago", Snapshot{Nodes: []apitype.Node{on}, Readings: disk(97, time.Hour)}, nil, "disk.full perm unknown"},
		{"no clock", Snapshot{Nodes: []apitype.Node{on}, Readings: map[string][]apitype.Reading{"n-x": {{Metric: "storage.perm.free_bytes", Time: now, Clock: model.ClockNone}}}}, nil, "clock.unset  warning"},
		{"the gateway's own checks", Snapshot{Health: health.Report{Checks: []health.Check{
			{Name: "perm", State: health.OK}, {Name: "halo-mesh", State: health.Failed, Detail: "gone"}, {Name: "overlay", State: health.Failed, Needs: []string{"halo-mesh"}},
			{Name: "epoch", State: health.Degraded, Needs: []string{"perm"}}, {Name: "listeners", State: health.Starting},
		}}}, nil, "gateway.health halo-mesh error; gateway.health epoch warning; gateway.health listeners warning"},
		{"another gateway", Snapshot{Mesh: &model.MeshStatus{Twin: &model.GatewayTwin{StandsDown: true}}}, nil, "gateway.twin  error"},
		{"a recovery that lasts", Snapshot{Timeline: []model.Recovery{{State: model.RecoveryOver}, {State: model.RecoveryLasts, Missing: "peer"}}}, nil, "recovery.lasting  warning"},
		{"a recovery that is over", Snapshot{Timeline: []model.Recovery{{State: model.RecoveryLasts}, {State: model.RecoveryOver}}}, nil, ""},
		{"a policy that came back", Snapshot{Firewall: apitype.Firewall{Reverted: &apitype.FirewallReverted{Reason: "not-confirmed"}}}, nil, "firewall.reverted  warning"},
		{"a policy that was taken back", Snapshot{Firewall: apitype.Firewall{Reverted: &apitype.FirewallReverted{Reason: "asked"}}}, nil, ""},
		{"a policy that does not fit", Snapshot{Firewall: apitype.Firewall{Problem: "no service telnet"}}, nil, "firewall.unfit  error"},
		{"a card that was written anew", Snapshot{Replacements: []apitype.Replacement{{Node: "n-y", OldName: "mast"}}}, nil, "node.replacement  info"},
		{"an address that two have", Snapshot{Conflicts: []apitype.MACConflict{{MAC: "00:c0:ca:00:00:01", Nodes: []string{"n-x", "n-y"}}}}, nil, "model.mac-conflict 00:c0:ca:00:00:01 warning"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.s.Now, tc.s.Mapped = now, true
			var got []string
			for _, c := range Conditions(tc.s, func(k Key) bool { return slices.Contains(tc.open, k) }) {
				what := string(c.Severity)
				if c.Unknown {
					what = "unknown"
				} else if c.Message == "" {
					t.Errorf("%+v has no words", c)
				}
				got = append(got, c.Kind+" "+c.Subject+" "+what)
			}
			if text := strings.Join(got, "; "); text != tc.want {
				t.Errorf("got  %q\nwant %q", text, tc.want)
			}
		})
	}
}

// A board that loses its power, is switched on again and loses it for good while the
// gateway starts anew: one alert at a time says so, and it ends by itself.
func TestANodeThatIsCutOff(t *testing.T) {
	f := newFixture(t)
	n := apitype.Node{ID: "n-x", Name: "mast", Online: true, State: "ok"}
	s := Snapshot{Nodes: []apitype.Node{n}, Mapped: true}
	look := func(online, lost, mapped bool) []Condition {
		s.Nodes[0].Online, s.Unreachable, s.Mapped = online, nil, mapped
		if lost {
			s.Unreachable = []string{"n-x"}
		}
		return Conditions(s, f.isOpen)
	}
	f.after(time.Minute, look(true, false, true)...)
	f.want("")
	f.after(time.Minute, look(false, false, true)...) // the stream has ended
	f.want("")
	f.after(lookEvery, look(false, true, true)...) // nor do others hear it
	f.want("node.unreachable error open")
	f.after(time.Hour, look(false, true, true)...)
	f.want("node.unreachable error open")
	f.after(goneFor+lookEvery, look(true, false, true)...)
	f.want("node.unreachable error closed")
	f.after(time.Hour, look(true, false, true)...)
	f.want("node.unreachable error closed")

	// Its agent fails first: the alert about that stays, and says no more than it did.
	f.after(offlineAfter+lookEvery, look(false, false, true)...)
	f.want("node.offline warning open; node.unreachable error closed")
	f.after(time.Minute, look(false, true, true)...)
	f.want("node.unreachable error open; node.offline warning open; node.unreachable error closed")
	// The gateway starts anew, and does not know at first whom it can reach.
	f.start()
	f.after(time.Minute, look(false, false, false)...)
	f.want("node.unreachable error open; node.offline warning open; node.unreachable error closed")
	f.after(time.Minute, look(false, true, true)...)
	f.want("node.unreachable error open; node.offline warning open; node.unreachable error closed")
	f.after(goneFor+lookEvery, look(true, false, true)...)
	f.want("node.unreachable error closed; node.offline warning closed; node.unreachable error closed")
}

func TestANodeThatMakesUpDisks(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	s := Snapshot{Now: now, Mapped: true, Nodes: []apitype.Node{{ID: "n-x", Name: "mast", Online: true, State: "ok"}}, Readings: map[string][]apitype.Reading{}}
	for i := range 2048 {
		s.Readings["n-x"] = append(s.Readings["n-x"], apitype.Reading{Metric: fmt.Sprintf("storage.d%04d.used_percent", 2047-i), Value: 99, Time: now, Clock: model.ClockGPS})
	}
	list := Conditions(s, func(Key) bool { return false })
	if len(list) != maxDisks || list[0].Subject != "d0000" || list[maxDisks-1].Subject != "d0015" {
		t.Errorf("%d conditions: %+v", len(list), list)
	}
}

func TestANodesAlertsAreBounded(t *testing.T) {
	f := newFixture(t)
	var is []Condition
	for i := range 2 * maxOfNode {
		is = append(is, Condition{Key: Key{KindDisk, "n-x", fmt.Sprint(i)}, Severity: model.Error, Message: "full"},
			Condition{Key: Key{KindHealth, "", fmt.Sprint(i)}, Severity: model.Error, Message: "fails"})
	}
	is = append(is, Condition{Key: Key{KindDisk, "n-y", "perm"}, Severity: model.Error, Message: "full"})
	f.after(time.Minute, is...)
	of := map[string]int{}
	for k := range f.open {
		of[k.Node]++
	}
	if of["n-x"] != maxOfNode || of["n-y"] != 1 || of[""] != 2*maxOfNode {
		t.Errorf("open: %v", of)
	}
	f.after(time.Minute, is[4]) // all but one of them are over
	f.after(time.Minute, is...)
	of = map[string]int{}
	for k := range f.open {
		of[k.Node]++
	}
	if of["n-x"] != maxOfNode {
		t.Errorf("open again: %v", of)
	}
}
