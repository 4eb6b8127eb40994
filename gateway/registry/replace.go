package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

// kindReplaced is the event of an adoption; fields old, by.
const kindReplaced = "node.replaced"

// offersHold is for how long offers are not looked for anew where no node has come or
// gone.
const offersHold = time.Minute

// maxLineage bounds how many nodes one has taken the place of.
const maxLineage = 16

// AdoptFunc moves what belongs to a node to the one that takes its place, within the
// transaction of the adoption.
type AdoptFunc func(ctx context.Context, tx *sql.Tx, old, node string) error

// OnAdopt has f called at each adoption from now on.
func (r *Registry) OnAdopt(f AdoptFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopts = append(r.adopts, f)
}

// OnAdopted has f called after each adoption from now on.
func (r *Registry) OnAdopted(f func(old, node string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopted = append(r.adopted, f)
}

// offers remembers which replacements are offered.
type offers struct {
	at      time.Time
	version uint64
	list    []apitype.Replacement
}

// board is what tells one board from another.
type board struct {
	id, name string
	waits    bool // it is no member yet
	serial   string
	macs     []string // those that a factory gave
	since    int64    // when it joined, or asked to
}

// factory are the addresses that belong to hardware, rather than chosen by software.
func factory(macs []string) (out []string) {
	for _, m := range macs {
		if mac, err := ParseMAC(m); err == nil {
			var first byte
			if _, err := fmt.Sscanf(mac[:2], "%02x", &first); err == nil && first&2 == 0 {
				out = append(out, mac)
			}
		}
	}
	return out
}

// Replacements are nodes with a new key that look like others whose card was written
// anew: the same serial number of the board, or the same addresses of its hardware. One
// that is still there is replaced by nobody.
func (r *Registry) Replacements(ctx context.Context) ([]apitype.Replacement, error) {
	r.mu.Lock()
	version := r.version
	o := r.offered
	r.mu.Unlock()
	if o.version == version && !o.at.IsZero() && time.Since(o.at) < offersHold {
		return r.without(o.list), nil
	}
	list, err := r.findReplacements(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.offered = offers{time.Now(), version, list}
	r.mu.Unlock()
	return r.without(list), nil
}

// without leaves out those whose old node is there.
func (r *Registry) without(list []apitype.Replacement) []apitype.Replacement {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []apitype.Replacement{}
	for _, o := range list {
		if l := r.live[o.Old]; l == nil || l.online == 0 {
			out = append(out, o)
		}
	}
	return out
}

func (r *Registry) findReplacements(ctx context.Context) ([]apitype.Replacement, error) {
	boards, err := r.boards(ctx)
	if err != nil {
		return nil, err
	}
	dismissed, err := r.dismissals(ctx)
	if err != nil {
		return nil, err
	}
	bySerial, byMAC := map[string][]int{}, map[string][]int{}
	for i, b := range boards {
		if b.serial != "" {
			bySerial[b.serial] = append(bySerial[b.serial], i)
		}
		for _, m := range b.macs {
			byMAC[m] = append(byMAC[m], i)
		}
	}
	out := []apitype.Replacement{}
	for i, b := range boards {
		reasons := map[int][]string{}
		older := func(k int) bool {
			o := boards[k]
			return k != i && !o.waits && (b.waits || o.since < b.since || o.since == b.since && o.id < b.id)
		}
		for _, k := range bySerial[b.serial] {
			if older(k) {
				reasons[k] = append(reasons[k], "serial "+b.serial)
			}
		}
		for _, m := range b.macs {
			for _, k := range byMAC[m] {
				// An adapter may be moved from one board to another: with serial numbers that
				// differ it was.
				if older(k) && (b.serial == "" || boards[k].serial == "" || b.serial == boards[k].serial) {
					reasons[k] = append(reasons[k], "MAC "+m)
				}
			}
		}
		best := -1
		for k, why := range reasons {
			if dismissed[[2]string{b.id, boards[k].id}] {
				continue
			}
			if best < 0 || len(why) > len(reasons[best]) || len(why) == len(reasons[best]) && boards[k].since > boards[best].since {
				best = k
			}
		}
		if best >= 0 {
			why := reasons[best]
			slices.Sort(why)
			out = append(out, apitype.Replacement{Node: b.id, NodeName: b.name, Waits: b.waits, Old: boards[best].id, OldName: boards[best].name, Reasons: slices.Compact(why)})
		}
	}
	order.By(out, func(a, b apitype.Replacement) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// boards are the members, and those that wait.
func (r *Registry) boards(ctx context.Context) (list []board, err error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT id, name, 0, serial, macs, joined FROM nodes WHERE role = 'node' AND NOT revoked
		UNION ALL SELECT id, '', 1, '', request, requested FROM registrations WHERE state = 'pending' AND NOT (`+isOld+`)`, r.oldArgs()...)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var b board
		var body string
		if err := rows.Scan(&b.id, &b.name, &b.waits, &b.serial, &body, &b.since); err != nil {
			return nil, store.Classify(err)
		}
		if b.waits {
			var req model.JoinRequest
			if err := json.Unmarshal([]byte(body), &req); err != nil {
				return nil, fmt.Errorf("stored registration %s: %w", b.id, err)
			}
			b.name, b.serial, b.macs = req.Name, req.Serial, factory(req.MACs)
		} else {
			var macs []string
			if err := json.Unmarshal([]byte(body), &macs); err != nil {
				return nil, fmt.Errorf("stored node %s: %w", b.id, err)
			}
			b.macs = factory(macs)
		}
		list = append(list, b)
	}
	return list, store.Classify(rows.Err())
}

func (r *Registry) dismissals(ctx context.Context) (map[[2]string]bool, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT node, old FROM replacement_dismissals`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	out := map[[2]string]bool{}
	for rows.Next() {
		var k [2]string
		if err := rows.Scan(&k[0], &k[1]); err != nil {
			return nil, store.Classify(err)
		}
		out[k] = true
	}
	return out, store.Classify(rows.Err())
}

func (r *Registry) offer(ctx context.Context, id string) (apitype.Replacement, error) {
	list, err := r.Replacements(ctx)
	if err != nil {
		return apitype.Replacement{}, err
	}
	i := slices.IndexFunc(list, func(o apitype.Replacement) bool { return o.Node == id })
	if i < 0 {
		return apitype.Replacement{}, apitype.Refuse(http.StatusNotFound, "", "no replacement is offered for %.64q; what is, /v1/model/replacements lists", id)
	}
	return list[i], nil
}

// Dismiss says that a node does not take the offered one's place.
func (r *Registry) Dismiss(ctx context.Context, id, by string) error {
	o, err := r.offer(ctx, id)
	if err != nil {
		return err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM replacement_dismissals WHERE node NOT IN (SELECT id FROM nodes UNION ALL SELECT id FROM registrations)`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO replacement_dismissals (node, old, time, actor) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, o.Node, o.Old, store.Millis(r.clock.Now()), by)
		return err
	})
	r.touch()
	return err
}

// Adopt has a node take the place of the offered old one: name, network of clients,
// trusted MACs, clients, assignments and history go over, and the old key is revoked.
// One that waits is admitted.
func (r *Registry) Adopt(ctx context.Context, id, by string) (apitype.Node, error) {
	o, err := r.offer(ctx, id)
	if err != nil {
		return apitype.Node{}, err
	}
	r.mu.Lock()
	adopts, adopted := slices.Clone(r.adopts), slices.Clone(r.adopted)
	r.mu.Unlock()
	var forgotten []string
	var admitted *waiter
	var n apitype.Node
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		var name string
		var clients sql.Null[uint8]
		err := tx.QueryRowContext(ctx, `SELECT name, clients FROM nodes WHERE id = ? AND NOT revoked`, o.Old).Scan(&name, &clients)
		if errors.Is(err, sql.ErrNoRows) {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemNodeRevoked, "%s is no member any more", o.Old)
		}
		if err != nil {
			return err
		}
		// A node looks in at the gateway's by its stream: what was offered a moment ago may
		// be there by now.
		r.mu.Lock()
		there := r.live[o.Old] != nil && r.live[o.Old].online > 0
		r.mu.Unlock()
		if there {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemStillOnline, "%s is there: switch it off, if it is to be replaced", name)
		}
		if o.Waits {
			w, err := r.approve(ctx, tx, o.Node, by)
			if err != nil {
				return err
			}
			admitted = &w
		}
		for _, q := range []struct {
			query string
			args  []any
		}{
			{`UPDATE nodes SET revoked = 1, name = id WHERE id = ?`, []any{o.Old}},
			{`UPDATE nodes SET name = ?, replaces = ? WHERE id = ?`, []any{name, o.Old, o.Node}},
			{`UPDATE trusted_macs SET node = ? WHERE node = ?`, []any{o.Node, o.Old}},
		} {
			if _, err := tx.ExecContext(ctx, q.query, q.args...); err != nil {
				return err
			}
		}
		if clients.Valid { // what leads to its clients leads to them still
			if _, err := tx.ExecContext(ctx, `UPDATE nodes SET clients = ? WHERE id = ?`, clients, o.Node); err != nil {
				return err
			}
		}
		for _, f := range adopts {
			if err := f(ctx, tx, o.Old, o.Node); err != nil {
				return err
			}
		}
		if n, err = r.changedNode(ctx, tx, o.Node); err != nil {
			return err
		}
		forgotten, err = forgetRevoked(ctx, tx, o.Old)
		return err
	})
	if err != nil {
		return apitype.Node{}, err
	}
	if admitted != nil {
		r.joined(o.Node, admitted.name, by, admitted.request)
	}
	r.tellForgotten(forgotten)
	r.events.Add(kindReplaced, model.Warning, o.Node, fmt.Sprintf("it has taken the place of %s, whose card was written anew: %s", o.OldName, strings.Join(o.Reasons, ", ")),
		map[string]string{"old": o.Old, "name": o.OldName, "by": by})
	for _, f := range adopted {
		f(o.Old, o.Node)
	}
	r.nodeNews.Note(o.Old, o.Node)
	r.change()
	return r.now(n), nil
}

// Lineage returns the canonical IDs of the nodes whose place a node has taken, the latest
// first: their history is its own.
func (r *Registry) Lineage(ctx context.Context, id string) ([]string, error) {
	rows, err := r.db.Read().QueryContext(ctx, `WITH RECURSIVE past(id, n) AS (
			SELECT replaces, 1 FROM nodes WHERE id = ? AND replaces <> ''
			UNION SELECT nodes.replaces, n + 1 FROM nodes JOIN past ON nodes.id = past.id WHERE nodes.replaces <> '' AND n < ?)
		SELECT id FROM past ORDER BY n`, id, maxLineage)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	list := []string{}
	for rows.Next() {
		var old string
		if err := rows.Scan(&old); err != nil {
			return nil, store.Classify(err)
		}
		if old != id && !slices.Contains(list, old) {
			list = append(list, old)
		}
	}
	return list, store.Classify(rows.Err())
}

// Lineages returns the Lineage of each node that has taken another's place.
func (r *Registry) Lineages(ctx context.Context) (map[string][]string, error) {
	nodes, err := texts(r.db.Read().QueryContext(ctx, `SELECT id FROM nodes WHERE replaces <> ''`))
	if err != nil {
		return nil, store.Classify(err)
	}
	all := map[string][]string{}
	for _, id := range nodes {
		if all[id], err = r.Lineage(ctx, id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Successor returns the canonical ID of the node that has taken a node's place, or "".
func (r *Registry) Successor(ctx context.Context, id string) (string, error) {
	var next string
	err := r.db.Read().QueryRowContext(ctx, `SELECT id FROM nodes WHERE replaces = ? ORDER BY joined DESC LIMIT 1`, id).Scan(&next)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return next, store.Classify(err)
}
