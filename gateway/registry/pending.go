package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Bounds of the list of those who wait: anybody who reaches the gateway can
// make keys and ask.
const (
	maxRegistrations = 256
	maxFromOne       = 16                  // address
	pendingLife      = 7 * 24 * time.Hour  // since the last try: a node that is there asks every few minutes
	rejectedLife     = 90 * 24 * time.Hour // the same, so that a verdict outlives a winter in a drawer
	tryEvery         = 15 * time.Minute    // how often a try is written down, for the card's sake
)

// isOld is true of registrations that have ended; its arguments are oldArgs. They end by the
// clock as it is: whoever is there asks again soon, while those of nodes that are long gone
// would take the room of others for as long as the clock is a guess.
const isOld = `last_try < CASE state WHEN 'pending' THEN ? ELSE ? END`

func (r *Registry) oldArgs() []any {
	now := r.clock.Now()
	return []any{store.Millis(now.Add(-pendingLife)), store.Millis(now.Add(-rejectedLife))}
}

// origin is whom a registration from that address is counted against. On the
// underlay each node has an address of its own; elsewhere whoever has one IPv6
// address has its whole /64.
func (r *Registry) origin(remote netip.Addr) string {
	p, err := remote.Prefix(64)
	if err != nil || remote.Is4() || p.Contains(identity.Underlay(r.network, r.network)) {
		return remote.String()
	}
	return p.String()
}

// register notes a request that waits for an admin, and tells whether that is
// news to one, and whose registrations it has changed.
func (r *Registry) register(ctx context.Context, tx *sql.Tx, remote netip.Addr, id string, req model.JoinRequest, reason string) (news bool, changed []string, err error) {
	gone, err := texts(tx.QueryContext(ctx, `DELETE FROM registrations WHERE `+isOld+` RETURNING id`, r.oldArgs()...))
	if err != nil {
		return false, nil, err
	}
	req.Token, req.Signature, req.Nonce = "", "", ""
	body, err := json.Marshal(req)
	if err != nil {
		return false, nil, err
	}
	now, from := store.Millis(r.clock.Now()), r.origin(remote)
	var old struct {
		body, from, reason string
		at                 int64
	}
	err = tx.QueryRowContext(ctx, `SELECT request, origin, reason, last_try FROM registrations WHERE id = ?`, id).Scan(&old.body, &old.from, &old.reason, &old.at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		news = true
	case err != nil:
		return false, nil, err
	case old.body == string(body) && old.from == from && old.reason == reason && now-old.at >= 0 && now-old.at < tryEvery.Milliseconds():
		return false, gone, nil
	}
	if news || old.from != from {
		if err := hasRoom(ctx, tx, id, from); err != nil {
			return false, nil, err
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO registrations (id, request, remote, origin, state, requested, last_try, reason) VALUES (?, ?, ?, ?, 'pending', ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET request = excluded.request, remote = excluded.remote, origin = excluded.origin, last_try = excluded.last_try, reason = excluded.reason`,
		id, string(body), remote.String(), from, now, now, reason)
	r.touch()
	return news || old.reason != reason, append(gone, id), err
}

// texts reads a column.
func texts(rows *sql.Rows, err error) (list []string, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

func hasRoom(ctx context.Context, tx *sql.Tx, id, from string) error {
	var all, same int
	if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(origin = ?), 0) FROM registrations WHERE id <> ?`, from, id).Scan(&all, &same); err != nil {
		return err
	}
	switch {
	case all >= maxRegistrations:
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%d nodes wait for an admin already", all).After(time.Minute)
	case same >= maxFromOne:
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%d nodes from %s wait for an admin already", same, from).After(time.Minute)
	}
	return nil
}

// stillRejected notes that a rejected node asks on, so that the verdict stays.
func (r *Registry) stillRejected(ctx context.Context, tx *sql.Tx, id string) error {
	now := r.clock.Now()
	_, err := tx.ExecContext(ctx, `UPDATE registrations SET last_try = ? WHERE id = ? AND abs(? - last_try) > ?`,
		store.Millis(now), id, store.Millis(now), (24 * time.Hour).Milliseconds())
	return err
}

const waitingColumns = `id, request, remote, state, requested, last_try, reason`

func scanWaiting(row interface{ Scan(...any) error }) (g apitype.Registration, err error) {
	var body string
	var requested, last int64
	if err := row.Scan(&g.ID, &body, &g.Remote, &g.State, &requested, &last, &g.Reason); err != nil {
		return g, err
	}
	var req model.JoinRequest
	if err := json.Unmarshal([]byte(body), &req); err != nil {
		return g, fmt.Errorf("stored registration %s: %w", g.ID, err)
	}
	g.Name, g.Board, g.Version, g.MACs, g.Serial, g.IdentityKey = req.Name, req.Board, req.Version, req.MACs, req.Serial, req.IdentityKey
	g.Requested, g.LastTry = store.Time(requested), store.Time(last)
	return g, nil
}

// Registration returns one that waits or was rejected; false: there is none.
func (r *Registry) Registration(ctx context.Context, id string) (apitype.Registration, bool, error) {
	g, err := scanWaiting(r.db.Read().QueryRowContext(ctx, `SELECT `+waitingColumns+` FROM registrations WHERE id = ? AND NOT (`+isOld+`)`, append([]any{id}, r.oldArgs()...)...))
	if errors.Is(err, sql.ErrNoRows) {
		return g, false, nil
	}
	return g, err == nil, store.Classify(err)
}

// Registrations returns a page of those that wait or were rejected.
func (r *Registry) Registrations(ctx context.Context, cursor string, limit int) (apitype.RegistrationList, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT `+waitingColumns+` FROM registrations WHERE id > ? AND NOT (`+isOld+`) ORDER BY id LIMIT ?`,
		append([]any{cursor}, append(r.oldArgs(), limit+1)...)...)
	if err != nil {
		return apitype.RegistrationList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.RegistrationList{Items: []apitype.Registration{}}
	for rows.Next() {
		g, err := scanWaiting(rows)
		if err != nil {
			return apitype.RegistrationList{}, store.Classify(err)
		}
		list.Items = append(list.Items, g)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].ID
	}
	return list, store.Classify(rows.Err())
}
