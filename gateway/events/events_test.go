package events

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model"
)

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, path string, most share) *Log {
	t.Helper()
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l := New(db, clock.New(time.Now, build), 1, slog.New(slog.DiscardHandler))
	l.most = most
	return l
}

// report has a node report n events with that much text.
func report(t *testing.T, l *Log, node string, from, n int, text string) {
	t.Helper()
	for list := range slices.Chunk(make([]model.Event, n), 64) {
		for i := range list {
			list[i] = model.Event{Boot: 1, Seq: uint64(from), Time: build, Kind: "test.event", Message: text}
			from++
		}
		if unfit, err := l.Record(t.Context(), node, list); err != nil || len(unfit) > 0 {
			t.Fatal(unfit, err)
		}
	}
}

// flush writes the gateway's own events.
func flush(t *testing.T, l *Log) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ended); err != nil {
		t.Fatal(err)
	}
}

// have returns who has how many events, and the highest sequence number of each.
func have(t *testing.T, l *Log) (count, last map[string]int) {
	t.Helper()
	count, last = map[string]int{}, map[string]int{}
	for cursor := ""; ; {
		list, next, err := l.List(t.Context(), Query{Severity: model.Info, Cursor: cursor, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			count[e.Source]++
			last[e.Source] = max(last[e.Source], int(e.Seq))
		}
		if cursor = next; cursor == "" {
			return count, last
		}
	}
}

func TestANoisyNodePushesOutItsOwnEvents(t *testing.T) {
	for _, tc := range []struct {
		name string
		most share
		text string
	}{
		{"by count", share{1000, 1 << 30}, ""},
		{"by octets", share{1 << 30, 1 << 20}, strings.Repeat("x", 900)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			l := open(t, path, tc.most)
			report(t, l, "n-quiet", 1, 100, "")
			for range 20 {
				l.Add("auth.claimed", model.Info, "", "the gateway was claimed", nil)
			}
			flush(t, l)
			report(t, l, "n-noisy", 1, 2000, tc.text)
			// After a restart the log knows what it holds.
			if err := l.db.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, path, tc.most)
			report(t, l, "n-noisy", 2001, 1000, tc.text)
			report(t, l, "n-quiet", 101, 50, "")
			flush(t, l)
			count, last := have(t, l)
			if count["n-quiet"] != 150 || count[Source] != 20 {
				t.Errorf("of the others' events %v are left, want 150 and 20", count)
			}
			if all := count["n-quiet"] + count[Source] + count["n-noisy"]; all > 1000 && tc.text == "" || count["n-noisy"] < 400 || last["n-noisy"] != 3000 {
				t.Errorf("of the noisy node %d are left, up to %d; want those that fit, up to 3000", count["n-noisy"], last["n-noisy"])
			}
			var octets int64
			if err := l.db.Read().QueryRow(`SELECT sum(octet_length(body) + ?) FROM events`, rowOctets).Scan(&octets); err != nil || octets > tc.most.octets {
				t.Errorf("%d octets are stored, %v", octets, err)
			}
			if err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
				counted := l.shares
				err := l.count(t.Context(), tx)
				if fmt.Sprint(counted) != fmt.Sprint(l.shares) {
					t.Errorf("counted %v, there are %v", counted, l.shares)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What strangers and flapping nodes make the gateway say must not push out
// what it says of other things.
func TestTheGatewaysOwnEventsAreCountedByWhatTheyAreAbout(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{200, 1 << 30})
	for i := range 1000 {
		if i%100 == 0 {
			l.Add("auth.login", model.Info, "", "a login", nil)
			l.Add("node.joined", model.Info, "n-good", "n-good has joined", nil)
		}
		l.Add("join.refused", model.Warning, fmt.Sprintf("n-%d", i), "a stranger", nil)
		l.Add("node.offline", model.Warning, "n-flap", "the node's stream ended", nil)
		if i%100 == 99 {
			flush(t, l)
		}
	}
	for kind, want := range map[string]int{"auth.login": 10, "node.joined": 10} {
		list, _, err := l.List(t.Context(), Query{Kind: kind, Limit: 500})
		if err != nil || len(list) != want {
			t.Errorf("%d events %s are left, %v; want all %d", len(list), kind, err, want)
		}
	}
	if count, _ := have(t, l); count[Source] > 200 {
		t.Errorf("%d events are left, want 200 at most", count[Source])
	}
}

// One event that the database never takes must not keep the others waiting.
func TestAnEventThatNeverFitsIsLeftOut(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`CREATE TRIGGER no_bad BEFORE INSERT ON events WHEN NEW.kind = 'a.bad' BEGIN SELECT RAISE(ABORT, 'never'); END`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]model.Event, 5)
	for i := range list {
		list[i] = model.Event{Boot: 1, Seq: uint64(i + 1), Time: build, Kind: "a.good"}
	}
	list[1].Kind = "a.bad"
	list[3].Time = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) // JSON cannot say this
	unfit, err := l.Record(t.Context(), "n-a", list)
	if err != nil || !slices.Equal(unfit, []int{1, 3}) {
		t.Errorf("unfit: %v, %v; want 1 and 3", unfit, err)
	}
	l.Add("a.bad", model.Info, "", "", nil)
	l.Add("a.good", model.Info, "", "", nil)
	flush(t, l)
	if count, _ := have(t, l); count["n-a"] != 3 || count[Source] != 1 {
		t.Errorf("got %v, want 3 and 1", count)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) != 0 {
		t.Errorf("%d events still wait", len(l.waiting))
	}
}

// A stored event that cannot be read keeps neither the gateway from starting nor
// the others from being listed.
func TestAnEventThatCannotBeRead(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	l.Add("node.state", model.Info, "n-a", "", map[string]string{"state": "ok"})
	l.Add("node.state", model.Info, "n-b", "", map[string]string{"state": "ok"})
	flush(t, l)
	err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE events SET body = '{"kind":' WHERE node = 'n-a'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	newest, err := l.Newest(t.Context(), "node.state")
	if _, bad := newest["n-a"]; err != nil || bad || newest["n-b"].Fields["state"] != "ok" {
		t.Errorf("newest: %+v, %v; want n-b's alone", newest, err)
	}
	list, _, err := l.List(t.Context(), Query{Limit: 10})
	if err != nil || len(list) != 2 || list[1].Kind != "event.unreadable" {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestWhatANodeMayReport(t *testing.T) {
	for _, tc := range []struct {
		kinds         string
		node, gateway bool // whether they may, the gateway's own device last
	}{
		{"backup.created backup.interrupted seal.lost settings.unfit operator.certified operator.revoked gateway.set-aside bundle.unusable", false, false},
		{"telemetry.crowded telemetry.damaged telemetry.expired telemetry.failing telemetry.misdated telemetry.series telemetry.thinned", false, false},
		{"auth.claimed node.joined gateway.epoch-raised mesh.radio.capture", false, false},
		{"gateway.restored gateway.restored-once gateway.restoring gateway.not-restored gateway.not-restarted gateway.twin-gone", false, true},
		{"firewall.policy firewall.policy-damaged firewall.trial firewall.trial-over", false, true},
		{"mesh.member.left-out mesh.profile.changed mesh.profile.missed mesh.profile.started mesh.profile.undone mesh.secret.due mesh.secret.waits", false, true},
		{"gateway.heard gateway.restarted gateway.epoch-old gateway.twin node.started firewall.failed firewall.recovered", true, true},
		{"bundle.damaged bundle.imported bundle.one-copy bundle.refused mesh.radio.captured", true, true},
		{"mesh.profile.prepared mesh.profile.switched mesh.profile.returned mesh.profile.rejoined mesh.profile.refused mesh.profile.damaged", true, true},
		{"telemetry.spool.damaged telemetry.spool.dropped telemetry.spool.thinned telemetry.spool.aside telemetry.batch.refused agent.command.begun", true, true},
	} {
		for kind := range strings.FieldsSeq(tc.kinds) {
			for _, gateway := range []bool{false, true} {
				want := map[bool]bool{false: tc.node, true: tc.gateway}[gateway]
				err := Check(&model.Event{Boot: 1, Seq: 1, Kind: kind}, "n-x", gateway)
				if (err == nil) != want || err != nil && !errors.Is(err, ErrForeign) {
					t.Errorf("%s, of the gateway's device: %t: got %v, want it let in: %t", kind, gateway, err, want)
				}
			}
		}
	}
}
