package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

const (
	seenEvery     = 15 * time.Minute // how often "last seen" is written: it is for people
	maxInterfaces = 64
	maxText       = 128
)

// Online notes that a node's stream opened; the function returned notes that
// it ended.
func (r *Registry) Online(id string, boot uint64) (offline func()) {
	r.mu.Lock()
	l := r.entry(id)
	l.online++
	first, reboot := l.online == 1, boot > l.boot && l.boot != 0
	l.boot = max(l.boot, boot)
	l.seen = r.clock.Now()
	r.mu.Unlock()
	switch {
	case reboot:
		r.events.Add("node.rebooted", model.Info, id, "the node has started again", map[string]string{"boot": fmt.Sprint(boot)})
	case first:
		r.events.Add("node.online", model.Info, id, "the node is there", nil)
	}
	return func() {
		r.mu.Lock()
		l.online--
		last := l.online == 0
		l.seen = r.clock.Now()
		r.mu.Unlock()
		if last {
			r.events.Add("node.offline", model.Warning, id, "the node's stream ended", nil)
		}
	}
}

// Seen notes that something came from a node.
func (r *Registry) Seen(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entry(id).seen = r.clock.Now()
}

// entry returns the live state of a node; mu is held.
func (r *Registry) entry(id string) *live {
	l := r.live[id]
	if l == nil {
		l = &live{}
		r.live[id] = l
	}
	return l
}

// Status takes a node's heartbeat. Only what changed in kind is written to
// the card: counters and uptime stay in RAM.
func (r *Registry) Status(ctx context.Context, id string, s model.NodeStatus) error {
	trim(&s)
	interfaces := s.Interfaces
	s.Interfaces = nil
	now := r.clock.Now()

	r.mu.Lock()
	l := r.entry(id)
	old, before := l.status, l.present
	present := map[string]model.Interface{}
	for _, i := range interfaces {
		present[i.Name] = i
	}
	l.status, l.present, l.seen = s, present, now
	boot := l.boot
	due := now.Sub(l.seenSaved).Abs() >= seenEvery
	r.mu.Unlock()

	if old.State != s.State && old.State != "" {
		severity := model.Info
		if s.State == "failed" || s.State == "degraded" {
			severity = model.Warning
		}
		r.events.Add("node.state", severity, id, fmt.Sprintf("the node went from %s to %s", old.State, s.State), map[string]string{"missing": s.Missing})
	}
	same := before != nil && maps.EqualFunc(before, present, sameShape)
	old.UptimeS, s.UptimeS = 0, 0
	if same && reflect.DeepEqual(old, s) && !due {
		return nil
	}
	err := r.save(ctx, id, boot, s, interfaces, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		l.present = nil // so that the next heartbeat writes it
		return err
	}
	l.seenSaved = now
	return nil
}

func (r *Registry) save(ctx context.Context, id string, boot uint64, s model.NodeStatus, interfaces []model.Interface, now time.Time) error {
	status, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("status of %s: %w", id, err)
	}
	at := store.Millis(now)
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET status = ?, last_seen = ?, boot = max(boot, ?),
			board = CASE WHEN ? = '' THEN board ELSE ? END, version = CASE WHEN ? = '' THEN version ELSE ? END WHERE id = ?`,
			string(status), at, int64(boot), s.Board, s.Board, s.Version, s.Version, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE interfaces SET present = 0 WHERE node = ?`, id); err != nil {
			return err
		}
		for _, i := range interfaces {
			i.RxBytes, i.TxBytes = 0, 0
			body, err := json.Marshal(i)
			if err != nil {
				return fmt.Errorf("interface %s: %w", i.Name, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO interfaces (node, name, body, present, first_seen, last_seen) VALUES (?, ?, ?, 1, ?, ?)
				ON CONFLICT (node, name) DO UPDATE SET body = excluded.body, present = 1, last_seen = excluded.last_seen`,
				id, i.Name, string(body), at, at); err != nil {
				return err
			}
		}
		// Names are the node's to choose: those of long ago make room.
		_, err := tx.ExecContext(ctx, `DELETE FROM interfaces WHERE node = ? AND NOT present AND name NOT IN
			(SELECT name FROM interfaces WHERE node = ? ORDER BY last_seen DESC LIMIT ?)`, id, id, maxInterfaces)
		return err
	})
}

// sameShape compares interfaces without their counters.
func sameShape(a, b model.Interface) bool {
	a.RxBytes, a.TxBytes, b.RxBytes, b.TxBytes = 0, 0, 0, 0
	return reflect.DeepEqual(a, b)
}

// trim bounds what a node says of itself.
func trim(s *model.NodeStatus) {
	for _, t := range []*string{&s.Name, (*string)(&s.Role), &s.Board, &s.Kernel, &s.Version, &s.Commit, &s.Slot, &s.State, &s.Missing} {
		*t = clip(*t, maxText)
	}
	if len(s.Interfaces) > maxInterfaces {
		s.Interfaces = s.Interfaces[:maxInterfaces]
	}
	for k := range s.Interfaces {
		i := &s.Interfaces[k]
		i.Name, i.Kind, i.MAC, i.PortRole = clip(i.Name, 32), clip(i.Kind, 16), clip(i.MAC, 32), clip(i.PortRole, 16)
		i.Addresses = i.Addresses[:min(len(i.Addresses), 32)]
	}
}
