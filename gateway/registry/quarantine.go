package registry

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Events of clones; fields life, was, boot, remote; by.
const (
	kindCloned   = "node.cloned"   // a node's key was there twice at once: it is quarantined
	kindReleased = "node.released" // an admin has ended that
)

// maxLives is how many starts of a node's machine are remembered. Two clones take turns:
// each ends the other's stream.
const maxLives = 8

// Lives notes that a node's machine, in that life of it (wire.Hello), has shown the
// node's key, and tells whether the node is a clone's: a start of a machine never comes
// again after another, so one that does was running all the while, on another device.
// Both are shut out then: which of them is the node, nothing here can tell. A hello that tells
// no life is another start where others have told theirs, so that a clone does not hide by
// leaving it out; that it comes again says nothing, since it may be of a release of before to
// which updates were undone.
func (r *Registry) Lives(ctx context.Context, id string, life []byte, boot uint64, remote netip.Addr) (cloned bool, err error) {
	if id == r.Gateway() { // two gateways are told apart by what they announce
		return false, nil
	}
	now := hex.EncodeToString(life)
	r.mu.Lock()
	l := r.entry(id)
	last := "" // as of those that tell none
	if n := len(l.lives); n > 0 {
		last = l.lives[n-1]
	}
	cloned = last != now && now != "" && slices.Contains(l.lives, now)
	if !cloned && last != now {
		l.lives = append(l.lives, now)
		l.lives = l.lives[max(0, len(l.lives)-maxLives):]
	}
	r.mu.Unlock()
	if !cloned {
		return false, nil
	}
	reason := fmt.Sprintf("its key was on two devices at once: the one that was there before (boot %d) came back after another", boot)
	return true, r.quarantine(ctx, id, reason, map[string]string{"life": now, "was": last, "boot": fmt.Sprint(boot), "remote": remote.String()})
}

func (r *Registry) quarantine(ctx context.Context, id, reason string, fields map[string]string) error {
	var changed bool
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE nodes SET quarantined = ?, quarantine = ? WHERE id = ? AND quarantined IS NULL AND NOT revoked`, store.Millis(r.clock.Now()), reason, id)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		changed = n > 0
		return err
	})
	if err != nil || !changed {
		return err
	}
	r.events.Add(kindCloned, model.Error, id, "the node is quarantined, and so is its clone: "+reason+". Find both, write the cards of both anew, or release the node when only one is left", fields)
	r.nodeNews.Note(id)
	r.change()
	r.mu.Lock()
	shutOut := slices.Clone(r.shutOut)
	r.mu.Unlock()
	for _, f := range shutOut {
		f()
	}
	return nil
}

// OnQuarantine has f called after each quarantine from now on.
func (r *Registry) OnQuarantine(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shutOut = append(r.shutOut, f)
}

// Release ends a quarantine: the node is a member as before. If its clone still is
// there, it will be quarantined again.
func (r *Registry) Release(ctx context.Context, ref, by string) (apitype.Node, error) {
	n, err := r.Node(ctx, ref)
	if err != nil {
		return n, err
	}
	if n.Quarantined == nil {
		return n, apitype.Refuse(http.StatusConflict, apitype.ProblemNotQuarantined, "%s is not quarantined", n.Name)
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE nodes SET quarantined = NULL, quarantine = '' WHERE id = ?`, n.ID)
		if err == nil {
			n, err = r.changedNode(ctx, tx, n.ID)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	r.mu.Lock()
	r.entry(n.ID).lives = nil // what was seen of the clone is over
	r.mu.Unlock()
	r.events.Add(kindReleased, model.Warning, n.ID, n.Name+" is released from quarantine", map[string]string{"by": by})
	r.nodeNews.Note(n.ID)
	r.change()
	return r.now(n), nil
}

// Quarantined returns the nodes that are.
func (r *Registry) Quarantined(ctx context.Context) ([]apitype.Node, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE quarantined IS NOT NULL AND NOT revoked ORDER BY name`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.Node{}
	for rows.Next() {
		n, err := r.scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, store.Classify(rows.Err())
}
