package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

const (
	saveEvery = time.Minute     // between what is written of the nodes' status, for the card's sake
	lastSave  = 5 * time.Second // for the one at the end
)

// unsaved is what config.db lacks of a node.
type unsaved struct {
	changes   uint64              // counted
	saved     uint64              // how many of them are in config.db
	prompt    time.Time           // when one was last due at once
	fresh     map[string]reported // interfaces of the heartbeats since; nil: none to be written
	seenSaved time.Time
}

// reported is an interface as it was reported last.
type reported struct {
	model.Interface
	first, last time.Time
}

// report notes the interfaces of a heartbeat.
func (u *unsaved) report(present map[string]model.Interface, now time.Time) {
	if u.fresh == nil {
		u.fresh = map[string]reported{}
	}
	for name, i := range present {
		first := now
		if f, ok := u.fresh[name]; ok {
			first = f.first
		}
		u.fresh[name] = reported{i, first, now}
	}
	if len(u.fresh) > maxInterfaces { // names are the node's to choose
		maps.DeleteFunc(u.fresh, func(name string, _ reported) bool { _, ok := present[name]; return !ok })
	}
}

// mark notes that config.db lacks something of a node; mu is held. What the
// node is (release, slot, boot) is due at once, unless that happens over and
// over; the rest within a minute, together with what others have.
func (r *Registry) mark(l *live, identity bool) {
	l.changes++
	now := time.Now()
	by := now.Add(saveEvery)
	if identity && now.Sub(l.prompt) >= saveEvery {
		l.prompt, by = now, now
	}
	r.plan(&r.saveBy, by)
}

// plan makes Run act by that time; mu is held.
func (r *Registry) plan(deadline *time.Time, by time.Time) {
	if !deadline.IsZero() && !by.Before(*deadline) {
		return
	}
	*deadline = by
	select {
	case r.wake <- struct{}{}:
	default: // it is about to look
	}
}

// Run writes down what changed of the nodes and tells of their states until ctx
// ends; then it writes what is not written yet.
func (r *Registry) Run(ctx context.Context) error {
	for {
		var timer *time.Timer
		var due <-chan time.Time
		if by := r.next(); !by.IsZero() {
			timer = time.NewTimer(time.Until(by))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
			defer cancel()
			return r.save(last, true)
		case <-r.wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		now := time.Now()
		r.tell(r.stateDue(now))
		r.mu.Lock()
		save := !r.saveBy.IsZero() && !now.Before(r.saveBy)
		r.mu.Unlock()
		if save {
			// The database tells of itself when it takes nothing; what was to be written waits in RAM.
			_ = r.save(ctx, false)
		}
	}
}

// next returns when Run has something to do; zero: not known yet.
func (r *Registry) next() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saveBy.IsZero() || !r.tellBy.IsZero() && r.tellBy.Before(r.saveBy) {
		return r.tellBy
	}
	return r.saveBy
}

// snapshot is what is written of a node.
type snapshot struct {
	id      string
	changes uint64
	boot    uint64
	status  model.NodeStatus
	seen    time.Time
	present map[string]model.Interface
	fresh   map[string]reported
	pieces  map[[2]string]string // hardware
}

// snapshots are of the nodes that changed, with all also of those that were
// seen.
func (r *Registry) snapshots(all bool) []snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saveBy = time.Time{}
	var list []snapshot
	for id, l := range r.live {
		if l.changes != l.saved || all && l.seen.After(l.seenSaved) {
			list = append(list, snapshot{id, l.changes, l.boot, l.status, l.seen, l.present, maps.Clone(l.fresh), maps.Clone(l.hardware.came)})
		}
	}
	return list
}

// save writes the nodes that changed in one transaction.
func (r *Registry) save(ctx context.Context, all bool) error {
	list := r.snapshots(all)
	if len(list) == 0 {
		return nil
	}
	var unfit []string
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		unfit = nil
		for _, s := range list {
			if err := s.writeWhole(ctx, tx); store.Unfit(err) {
				unfit = append(unfit, s.id) // the others must not wait for it
			} else if err != nil {
				return fmt.Errorf("status of %s: %w", s.id, err)
			}
		}
		return nil
	})
	for _, id := range unfit {
		r.events.Add("node.status.unfit", model.Warning, id, "the node's status cannot be stored", nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	again := err != nil
	for _, s := range list {
		l := r.live[s.id]
		switch {
		case err != nil:
		case l.changes == s.changes:
			l.saved, l.seenSaved, l.fresh, l.hardware.came = s.changes, s.seen, nil, nil
		default: // something came while this was written
			l.seenSaved, again = s.seen, true
		}
	}
	if again {
		r.plan(&r.saveBy, time.Now().Add(saveEvery))
	}
	return err
}

// writeWhole is write, but leaves nothing of a node that is refused half-way.
func (s snapshot) writeWhole(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT node`); err != nil {
		return err
	}
	err := s.write(ctx, tx)
	if err != nil && !store.Unfit(err) {
		return err // the transaction goes
	}
	if err != nil {
		if _, undo := tx.ExecContext(ctx, `ROLLBACK TO node`); undo != nil {
			return undo
		}
	}
	if _, release := tx.ExecContext(ctx, `RELEASE node`); release != nil {
		return release
	}
	return err
}

func (s snapshot) write(ctx context.Context, tx *sql.Tx) error {
	s.status.UptimeS = 0
	status, err := json.Marshal(s.status)
	if err != nil {
		return err
	}
	var seen sql.NullInt64
	if !s.seen.IsZero() {
		seen = store.MillisPtr(&s.seen)
	}
	board, version := s.status.Board, s.status.Version
	res, err := tx.ExecContext(ctx, `UPDATE nodes SET status = ?, last_seen = ?, boot = max(boot, ?),
		board = CASE WHEN ? = '' THEN board ELSE ? END, version = CASE WHEN ? = '' THEN version ELSE ? END, serial = CASE WHEN ? = '' THEN serial ELSE ? END WHERE id = ?`,
		string(status), seen, int64(s.boot), board, board, version, version, s.status.Serial, s.status.Serial, s.id)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if err := writeHardware(ctx, tx, s.id, s.pieces, store.Millis(s.seen)); err != nil || s.fresh == nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE interfaces SET present = 0 WHERE node = ?`, s.id); err != nil {
		return err
	}
	for name, i := range s.fresh {
		_, present := s.present[name]
		i.RxBytes, i.TxBytes = 0, 0
		body, err := json.Marshal(i.Interface)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO interfaces (node, name, body, present, first_seen, last_seen) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (node, name) DO UPDATE SET body = excluded.body, present = excluded.present, last_seen = excluded.last_seen`,
			s.id, name, string(body), present, store.Millis(i.first), store.Millis(i.last)); err != nil {
			return err
		}
	}
	// Names are the node's to choose: those of long ago make room.
	_, err = tx.ExecContext(ctx, `DELETE FROM interfaces WHERE node = ? AND NOT present AND name NOT IN
		(SELECT name FROM interfaces WHERE node = ? ORDER BY last_seen DESC LIMIT ?)`, s.id, s.id, maxInterfaces)
	return err
}

// load takes the last known state of every node into RAM.
func (r *Registry) load(ctx context.Context) error {
	states, err := r.events.Newest(ctx, kindState)
	if err != nil {
		return err
	}
	rows, err := r.db.Read().QueryContext(ctx, `SELECT id, boot, status, last_seen FROM nodes`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, status string
		var boot int64
		var seen sql.NullInt64
		if err := rows.Scan(&id, &boot, &status, &seen); err != nil {
			return store.Classify(err)
		}
		l := &live{boot: uint64(boot)}
		if err := json.Unmarshal([]byte(status), &l.status); err != nil {
			// The node tells it anew; without it the gateway still works for all.
			r.events.Add("node.status.unreadable", model.Warning, id, "the node's stored status cannot be read: "+err.Error(), nil)
			l.status = model.NodeStatus{}
		}
		if t := store.TimePtr(seen); t != nil {
			l.seen, l.seenSaved = *t, *t
		}
		// What was told last may be another state than what was written last.
		if l.told.state = states[id].Fields[fieldState]; l.told.state == "" {
			l.told.state = l.status.State
		}
		r.live[id] = l
	}
	return store.Classify(rows.Err())
}
