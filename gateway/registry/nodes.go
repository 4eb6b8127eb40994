package registry

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

const nodeColumns = `id, name, role, identity_key, wireguard_key, overlay_v4, revoked, board, version, macs, admitted_by, joined, clients, serial, replaces, quarantined, quarantine`

// nodeTable is all of the table nodes, in the order of names, as it was in a generation of
// config.db. It is not changed once it is there.
type nodeTable struct {
	generation int64
	nodes      []apitype.Node // without what is known live
}

// table returns all nodes as they are stored now. They are not to be changed. The table is
// asked for all the time and changes seldom, and what costs most is to take its rows apart.
func (r *Registry) table(ctx context.Context) ([]apitype.Node, error) {
	t := nodeTable{generation: r.db.Generation()}
	if s := r.stored.Load(); s != nil && s.generation == t.generation {
		return s.nodes, nil
	}
	rows, err := r.db.Read().QueryContext(ctx, `SELECT `+nodeColumns+` FROM nodes ORDER BY name`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		n, err := r.scanStored(rows)
		if err != nil {
			return nil, err
		}
		t.nodes = append(t.nodes, n)
	}
	if err := rows.Err(); err != nil {
		return nil, store.Classify(err)
	}
	r.stored.Store(&t)
	return t.nodes, nil
}

// Nodes returns a page of nodes: the gateway's page order is that of names.
func (r *Registry) Nodes(ctx context.Context, cursor string, limit int) (apitype.NodeList, error) {
	all, err := r.table(ctx)
	if err != nil {
		return apitype.NodeList{}, err
	}
	from, found := slices.BinarySearchFunc(all, cursor, func(n apitype.Node, name string) int { return strings.Compare(n.Name, name) })
	if found {
		from++
	}
	to := min(from+limit, len(all))
	list := apitype.NodeList{Items: append([]apitype.Node{}, all[from:to]...)}
	if to < len(all) {
		list.Next = all[to-1].Name
	}
	seen := make([]time.Time, len(list.Items)) // in one piece
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list.Items {
		r.addLive(&list.Items[i], &seen[i])
	}
	return list, nil
}

// Node finds a node by canonical ID or name.
func (r *Registry) Node(ctx context.Context, ref string) (apitype.Node, error) {
	n, err := r.scan(r.db.Read().QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1`, ref, ref, ref))
	if errors.Is(err, sql.ErrNoRows) {
		return apitype.Node{}, notFound(ref)
	}
	return n, err
}

// row is that of a query, or the only one.
type row interface{ Scan(...any) error }

// scan reads a row of nodeColumns and adds what is known live.
func (r *Registry) scan(from row) (apitype.Node, error) {
	n, err := r.scanStored(from)
	if err != nil {
		return n, err
	}
	return r.now(n), nil
}

// now adds what is known of a node live.
func (r *Registry) now(n apitype.Node) apitype.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLive(&n, new(time.Time))
	return n
}

// changedNode reads a node in the transaction that changes it. What is committed is answered
// with that, since nothing may go wrong after it: whoever asked may have hung up, and what
// follows a change must not wait for another try.
func (r *Registry) changedNode(ctx context.Context, tx *sql.Tx, id string) (apitype.Node, error) {
	return r.scanStored(tx.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, id))
}

// scanStored reads a row of nodeColumns.
func (r *Registry) scanStored(from row) (apitype.Node, error) {
	var n apitype.Node
	var v4, macs string
	var joined int64
	var clients sql.Null[uint8]
	var quarantined sql.NullInt64
	var why string
	if err := from.Scan(&n.ID, &n.Name, &n.Role, &n.IdentityKey, &n.WireGuardKey, &v4, &n.Revoked, &n.Board, &n.Version, &macs, &n.AdmittedBy, &joined, &clients,
		&n.Serial, &n.Replaces, &quarantined, &why); err != nil {
		return n, store.Classify(err)
	}
	if t := store.TimePtr(quarantined); t != nil {
		n.Quarantined = &apitype.Quarantine{Since: *t, Reason: why}
	}
	key, err := identity.ParsePublicKey(n.IdentityKey)
	if err != nil {
		return n, fmt.Errorf("stored node %s: %w", n.ID, err)
	}
	if n.OverlayV4, err = netip.ParseAddr(v4); err != nil {
		return n, fmt.Errorf("stored node %s: %w", n.ID, err)
	}
	if err := json.Unmarshal([]byte(macs), &n.MACs); err != nil {
		return n, fmt.Errorf("stored node %s: %w", n.ID, err)
	}
	n.OverlayV6, n.Underlay = identity.Overlay(r.network, key), identity.Underlay(r.network, key)
	n.Joined, n.Clients = store.Time(joined), clientsOf(clients)
	return n, nil
}

// addLive adds what is known of a node live, and when it was seen in seen; mu is held.
func (r *Registry) addLive(n *apitype.Node, seen *time.Time) {
	l := r.live[n.ID]
	if l == nil {
		return
	}
	s := &l.status
	n.Online, n.Boot = l.online > 0, l.boot
	n.State, n.Missing, n.Kernel, n.Commit, n.Slot = s.State, s.Missing, s.Kernel, s.Commit, s.Slot
	n.Volatile, n.UptimeS = s.Volatile, s.UptimeS
	n.Position = s.Position
	n.Board, n.Version = cmp.Or(s.Board, n.Board), cmp.Or(s.Version, n.Version)
	if !l.seen.IsZero() {
		*seen = l.seen
		n.LastSeen = seen
	}
}

// Interfaces returns a node's interfaces, those that went away included.
func (r *Registry) Interfaces(ctx context.Context, id string) ([]apitype.Interface, error) {
	var present map[string]model.Interface
	var fresh map[string]reported
	var seen time.Time
	r.mu.Lock() // before the rows are read: what is written meanwhile must not be in neither
	if l := r.live[id]; l != nil {
		present, fresh, seen = l.present, maps.Clone(l.fresh), l.seen
	}
	r.mu.Unlock()
	rows, err := r.db.Read().QueryContext(ctx, `SELECT body, present, first_seen, last_seen FROM interfaces WHERE node = ? ORDER BY name`, id)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.Interface{}
	for rows.Next() {
		var i apitype.Interface
		var body string
		var from, to int64
		if err := rows.Scan(&body, &i.Present, &from, &to); err != nil {
			return nil, store.Classify(err)
		}
		if err := json.Unmarshal([]byte(body), &i.Interface); err != nil {
			return nil, fmt.Errorf("stored interface of %s: %w", id, err)
		}
		i.FirstSeen, i.LastSeen = store.Time(from), store.Time(to)
		if f, ok := fresh[i.Name]; ok {
			i.Interface, i.LastSeen = f.Interface, f.last
			delete(fresh, i.Name)
		}
		list = append(list, i)
	}
	for _, f := range fresh { // those that are not stored yet
		list = append(list, apitype.Interface{Interface: f.Interface, FirstSeen: f.first, LastSeen: f.last})
	}
	if present != nil {
		for k := range list {
			now, ok := present[list[k].Name]
			if list[k].Present = ok; ok {
				list[k].Interface, list[k].LastSeen = now, seen
			}
		}
	}
	order.By(list, func(a, b apitype.Interface) int { return cmp.Compare(a.Name, b.Name) })
	return list, store.Classify(rows.Err())
}

// Tag returns the entity tag of a node: of what people change of it, not of what it says
// of itself.
func Tag(n apitype.Node) string { return tag(n.ID, n.Name, n.Revoked) }

func tag(id, name string, revoked bool) string {
	return etag.Of(struct {
		ID, Name string
		Revoked  bool
	}{id, name, revoked})
}

// check judges a condition within the transaction that changes the node.
func check(ctx context.Context, tx *sql.Tx, id string, m etag.Match) error {
	var name string
	var revoked bool
	err := tx.QueryRowContext(ctx, `SELECT name, revoked FROM nodes WHERE id = ?`, id).Scan(&name, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return notFound(id)
	}
	if err != nil {
		return err
	}
	return m.Check(tag(id, name, revoked))
}

// Rename gives a node that meets the condition another name.
func (r *Registry) Rename(ctx context.Context, ref string, m etag.Match, name string) (apitype.Node, error) {
	if !validName(name) {
		return apitype.Node{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "name: expected a DNS label: 1 to 63 lower-case letters, digits and hyphens, not %s, nor one that a neuron's component has (brain-sensor-…); got %.70q", strings.Join(reserved, ", "), name)
	}
	n, err := r.Node(ctx, ref)
	if err != nil {
		return n, err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if err := check(ctx, tx, n.ID, m); err != nil {
			return err
		}
		var other string
		err := tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE name = ? AND id <> ?`, name, n.ID).Scan(&other)
		if err == nil {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemNameTaken, "the name %s belongs to %s", name, other)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE nodes SET name = ? WHERE id = ?`, name, n.ID)
		return err
	})
	if err != nil {
		return n, err
	}
	if name != n.Name {
		r.nodeNews.Note(n.ID)
		r.events.Add("node.renamed", model.Info, n.ID, fmt.Sprintf("%s is now called %s", n.Name, name), nil)
		r.change()
	}
	n.Name = name
	return n, nil
}

// Revoke shuts a node that meets the condition out: it is no peer any more and cannot join again. Its
// name becomes free; its address does not. Beyond maxRevokedNodes the revoked
// node that joined first is forgotten: its key then is a stranger's, which needs
// a token or an admin like any new one. One to which a trusted MAC is bound is
// not forgotten, as that alone would let it in.
func (r *Registry) Revoke(ctx context.Context, ref string, m etag.Match) (string, error) {
	n, err := r.Node(ctx, ref)
	if err != nil {
		return "", err
	}
	if n.Role == model.RoleGateway {
		return "", apitype.Refuse(http.StatusConflict, apitype.ProblemGatewayItself, "the gateway cannot revoke itself")
	}
	if n.Revoked {
		return n.ID, m.Check(Tag(n))
	}
	var forgotten []string
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if err := check(ctx, tx, n.ID, m); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET revoked = 1, name = id WHERE id = ?`, n.ID); err != nil {
			return err
		}
		forgotten, err = forgetRevoked(ctx, tx, n.ID)
		return err
	})
	if err != nil {
		return "", err
	}
	r.tellForgotten(forgotten)
	r.nodeNews.Note(n.ID)
	r.events.Add("node.revoked", model.Warning, n.ID, n.Name+" was revoked", nil)
	r.change()
	return n.ID, nil
}

// forgetRevoked removes revoked nodes beyond their bound, but the one named.
func forgetRevoked(ctx context.Context, tx *sql.Tx, but string) (ids []string, err error) {
	return texts(tx.QueryContext(ctx, `DELETE FROM nodes WHERE id IN (SELECT id FROM nodes WHERE revoked AND id <> ? AND id NOT IN (SELECT node FROM trusted_macs)
		ORDER BY joined LIMIT max(0, (SELECT count(*) FROM nodes WHERE revoked) - ?)) RETURNING id`, but, maxRevokedNodes))
}

// Member is what the ingest has to know of a node.
type Member struct {
	ID      string
	Gateway bool
	Revoked bool
	// Quarantined: its key was there twice at once.
	Quarantined bool
	V4, V6      netip.Addr
}

// ErrUnknown is returned by Member for a key that never joined.
var ErrUnknown = errors.New("node is not registered")

// Member finds a node by its key.
func (r *Registry) Member(ctx context.Context, key identity.PublicKey) (Member, error) {
	m := Member{ID: key.ID(), V6: identity.Overlay(r.network, key)}
	var role, v4 string
	err := r.db.Read().QueryRowContext(ctx, `SELECT role, overlay_v4, revoked, quarantined IS NOT NULL FROM nodes WHERE identity_key = ?`, key.Base64()).Scan(&role, &v4, &m.Revoked, &m.Quarantined)
	if errors.Is(err, sql.ErrNoRows) {
		return m, ErrUnknown
	}
	if err != nil {
		return m, store.Classify(err)
	}
	m.Gateway = role == string(model.RoleGateway)
	m.V4, err = netip.ParseAddr(v4)
	return m, err
}

// IDs returns the canonical IDs of all nodes.
func (r *Registry) IDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, 0, len(r.live))
	for id := range r.live {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
