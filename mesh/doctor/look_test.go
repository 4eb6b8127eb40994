package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
)

// batman is a batman-adv that does what it is told, or not.
type batman struct {
	flooding bool
	err      error // of being told
	absent   bool
	servers  []Server
	lost     bool // the gateway is not known
}

func (b *batman) Flooding() (bool, error) {
	if b.absent {
		return false, fmt.Errorf("bat0: %w", fs.ErrNotExist)
	}
	return b.flooding, nil
}

func (b *batman) Flood() error {
	if b.err == nil {
		b.flooding = true
	}
	return b.err
}

func (b *batman) Servers() ([]Server, bool, error) { return b.servers, !b.lost, nil }

func newTestDoctor(t *testing.T, b *batman) (*Doctor, *[]model.Event) {
	t.Helper()
	var events []model.Event
	return New(Config{
		Network: identity.New().Public(), Node: identity.New().Public(), Underlay: b, Now: time.Now,
		Notify: func(e model.Event) { events = append(events, e) }, Log: slog.New(slog.DiscardHandler),
		Around: func() (Own, []Peer, bool) { return Own{}, nil, false }, Own: func() (Own, bool) { return Own{}, false },
	}), &events
}

func TestFloodingIsSetAgain(t *testing.T) {
	b := &batman{absent: true}
	d, events := newTestDoctor(t, b)
	d.lookAtFlood()
	if d.Report().Flooding != nil || len(*events) != 0 {
		t.Errorf("without batman-adv: %+v", *events)
	}
	b.absent, b.err = false, errors.New("not permitted")
	d.lookAtFlood()
	if f := d.Report(); *f.Flooding || len(f.Findings) != 1 || f.Findings[0].Mended != nil || !strings.Contains(f.Findings[0].Detail, "not permitted") {
		t.Errorf("it cannot be set: %+v", f)
	}
	b.err = nil
	d.lookAtFlood()
	if f := d.Report(); !*f.Flooding || !b.flooding || f.Findings[0].Mended == nil {
		t.Errorf("it was set: %+v", f)
	}
	d.lookAtFlood()
	if n := len(*events); n != 4 || (*events)[3].Kind != EventMended {
		t.Errorf("got %+v", *events)
	}
}

func TestAnotherServerIsToldOf(t *testing.T) {
	gateway := Server{MAC: "02:00:00:00:00:01", Chosen: true, Ours: true}
	other := Server{MAC: "02:00:00:00:00:09"}
	b := &batman{servers: []Server{gateway, other}}
	d, events := newTestDoctor(t, b)
	since, now := map[string]time.Time{}, time.Unix(1000, 0)
	look := func(after time.Duration) {
		now = now.Add(after)
		d.lookAtServers(now, since)
	}
	look(0)
	look(strangeFor - time.Second) // the gateway may have been called so before its restart
	b.lost = true
	look(time.Hour) // which of them is the gateway cannot be told
	if len(*events) != 0 {
		t.Errorf("got %+v", *events)
	}
	b.lost, b.servers[1].Chosen = false, true
	look(0)
	if e := *events; len(e) != 1 || e[0].Severity != model.Error || e[0].Fields["fault"] != model.FaultServer || !strings.Contains(e[0].Message, other.MAC) || !strings.Contains(e[0].Message, "asks it for addresses") {
		t.Errorf("got %+v", e)
	}
	b.servers = b.servers[:1]
	look(time.Minute)
	if e := *events; len(e) != 2 || e[1].Kind != EventEnded {
		t.Errorf("got %+v", e)
	}
}

// TestWhoIsDue has peers come into use, be examined and go.
func TestWhoIsDue(t *testing.T) {
	d, _ := newTestDoctor(t, &batman{})
	now := time.Now()
	peers := []Peer{
		{Node: "gateway", Gateway: true, Fresh: now.Add(-time.Hour)}, {Node: "used", Fresh: now.Add(-time.Minute)},
		{Node: "idle", Fresh: now.Add(-time.Hour)}, {Node: "never"},
		{Node: "before the clock was set back", Fresh: now.AddDate(1, 0, 0)},
	}
	d.admit(Own{}, peers, now)
	if len(d.patients) != 2 || d.patients["gateway"] == nil || d.patients["used"] == nil {
		t.Fatalf("got %v, want those in use", d.patients)
	}
	if due, all := d.due(now, time.Time{}); len(due) != 0 || all {
		t.Errorf("at once: %v, %v are due", due, all)
	}
	now = now.Add(2 * firstAfter)
	if due, _ := d.due(now, time.Time{}); len(due) != 1 {
		t.Errorf("later: %d are due, want one at a time", len(due))
	}
	if due, _ := d.due(now, now.Add(-spacing/2)); len(due) != 0 {
		t.Errorf("%d are due right after another", len(due))
	}
	d.patients["used"].exam = exam{answers: true}
	d.patients["used"].plan = plan{next: now.Add(time.Hour)}
	d.due(now, time.Time{})
	if _, all := d.due(now.Add(2*allFirst), time.Time{}); !all {
		t.Error("multicast is not due")
	}
	d.wants = true
	if due, all := d.due(now, now); len(due) != 2 || !all {
		t.Errorf("on demand: %d are due, multicast %v, want all", len(due), all)
	}
	d.allAt = now
	if _, all := d.due(now.Add(time.Second), now); all {
		t.Error("multicast has a round each second")
	}
	d.admit(Own{}, peers[:1], now)
	if len(d.patients) != 1 {
		t.Errorf("got %v, want the gateway alone", d.patients)
	}
	if r := d.Report(); len(r.Peers) != 1 || !r.Peers[0].Gateway || r.Peers[0].Examined != nil {
		t.Errorf("got %+v", r.Peers)
	}
}
