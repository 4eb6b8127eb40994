// Package visitors gives devices of people's, such as an operator's laptop, a place in
// the overlay. They are no members: no node has them on its list, they have no secret of
// the mesh, and WireGuard of the gateway alone knows them. A place is tied to a
// certificate of an operator, and ends with it: by its time, when it is revoked, when
// the user's password, role or right to log in changes, and with a higher epoch. So
// there is nothing to remember to take back.
package visitors

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// Bounds.
const (
	maxOfUser = 8                  // that have not ended
	maxAll    = 200                // of them
	keptAfter = 7 * 24 * time.Hour // what has ended, for people
)

// Kinds of events; fields user, id, label, address.
const (
	EventRegistered = "overlay.visitor.registered"
	EventRemoved    = "overlay.visitor.removed"
)

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	Key    identity.Key  // the gateway's
	Epoch  func() uint64 // may rise at any time
}

// Service may be used from any goroutine.
type Service struct{ Config }

// New returns the service.
func New(c Config) *Service { return &Service{c} }

// ID is what a visitor with that WireGuard key is called.
func ID(key []byte) string {
	sum := sha256.Sum256(append([]byte("halo visitor id 1"), key...))
	return "w-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:20])
}

// Register gives the device with that key a place, or renews the one that it has.
func (s *Service) Register(ctx context.Context, by auth.Principal, r apitype.RegisterOverlay) (apitype.OverlayVisitor, error) {
	none := apitype.OverlayVisitor{}
	if by.Kind != "user" {
		return none, apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "a place in the overlay is a person's: log in with a name and a password; nodes get theirs by joining")
	}
	key, err := base64.StdEncoding.DecodeString(r.PublicKey)
	if err != nil || len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		return none, apitype.Refuse(http.StatusUnprocessableEntity, "", "public_key: expected 32 octets in base64")
	}
	text, id := base64.StdEncoding.EncodeToString(key), ID(key)
	now := s.Clock.Now()
	var v apitype.OverlayVisitor
	fresh := false
	err = s.DB.Write(ctx, func(tx *sql.Tx) error {
		cert, err := s.certificate(ctx, tx, by.Name, r.Certificate, now)
		if err != nil {
			return err
		}
		if proof, bad := base64.StdEncoding.DecodeString(r.Possession); bad != nil || !s.Key.Possesses(cert, key, proof) {
			return apitype.Refuse(http.StatusForbidden, apitype.ProblemOverlayKey, "possession: expected a proof that the owner of certificate %d has the private half of public_key", r.Certificate)
		}
		if err := foreign(ctx, tx, text); err != nil {
			return err
		}
		var owner string
		err = tx.QueryRowContext(ctx, `SELECT username FROM visitors WHERE id = ?`, id).Scan(&owner)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			fresh = true
			err = s.insert(ctx, tx, by.Name, id, text, r, now)
		case err == nil && owner != by.Name:
			err = apitype.Refuse(http.StatusConflict, apitype.ProblemOverlayKey, "public_key: it is registered for another user")
		case err == nil:
			_, err = tx.ExecContext(ctx, `UPDATE visitors SET label = ?, certificate = ?, renewed = ? WHERE id = ?`, r.Label, int64(r.Certificate), store.Millis(now), id)
		}
		if err != nil {
			return err
		}
		v, err = s.scan(tx.QueryRowContext(ctx, query+` WHERE v.id = ?`, s.args(id)...))
		return err
	})
	if err != nil {
		return none, err
	}
	if fresh {
		s.Events.Add(EventRegistered, model.Warning, "", fmt.Sprintf("%s has registered the device %q for the overlay", by.Name, cmp.Or(v.Label, v.ID)),
			map[string]string{"user": by.Name, "id": id, "label": r.Label, "address": v.OverlayV4.String(), "until": v.Expires.Format(time.RFC3339)})
	}
	return v, nil
}

// certificate returns the key of a certificate of that user which holds.
func (s *Service) certificate(ctx context.Context, tx *sql.Tx, user string, serial uint64, now time.Time) (identity.PublicKey, error) {
	var key []byte
	err := tx.QueryRowContext(ctx, `SELECT key FROM operator_certificates WHERE serial = ? AND username = ? AND revoked IS NULL AND expires > ? AND epoch = ?`,
		int64(min(serial, 1<<62)), user, store.Millis(now), int64(s.Epoch())).Scan(&key)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(key) != len(identity.PublicKey{}) {
		return identity.PublicKey{}, apitype.Refuse(http.StatusForbidden, apitype.ProblemOverlayCertificate, "certificate: %d is none of yours that holds; haloctl login fetches one", serial)
	}
	return identity.PublicKey(key), err
}

// foreign refuses a key that a node has: it would take that node's place.
func foreign(ctx context.Context, tx *sql.Tx, key string) error {
	var node string
	err := tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE wireguard_key = ?`, key).Scan(&node)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return apitype.Refuse(http.StatusConflict, apitype.ProblemOverlayKey, "public_key: it is a node's")
}

func (s *Service) insert(ctx context.Context, tx *sql.Tx, user, id, key string, r apitype.RegisterOverlay, now time.Time) error {
	// What has ended makes room, that of long ago at once.
	rows, err := s.list(tx.QueryContext(ctx, query+` ORDER BY v.renewed`, s.args()...))
	if err != nil {
		return err
	}
	of, all := 0, 0
	used := map[netip.Addr]bool{}
	for _, v := range rows {
		if v.Ended && (now.Sub(v.Expires) > keptAfter || len(rows) >= maxAll) {
			if _, err := tx.ExecContext(ctx, `DELETE FROM visitors WHERE id = ?`, v.ID); err != nil {
				return err
			}
			continue
		}
		used[v.OverlayV4] = true
		if !v.Ended {
			all++
			if v.Username == user {
				of++
			}
		}
	}
	switch {
	case of >= maxOfUser:
		return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "%s has %d devices in the overlay, which is the most; remove one", user, of)
	case all >= maxAll:
		return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "%d devices are in the overlay besides members, which is the most", all)
	}
	address := paths.OverlayVisitors.Addr().Next()
	for used[address] {
		address = address.Next()
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO visitors (id, wireguard_key, overlay_v4, username, label, certificate, registered, renewed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		id, key, address.String(), user, r.Label, int64(r.Certificate), store.Millis(now), store.Millis(now))
	return err
}

// query selects visitors with the end of their certificates; its arguments are args.
const query = `SELECT v.id, v.wireguard_key, v.overlay_v4, v.username, v.label, v.certificate, v.registered,
	coalesce(c.revoked, c.expires, v.renewed), c.serial IS NULL OR c.revoked IS NOT NULL OR c.expires <= ? OR c.epoch <> ? OR c.username <> v.username
	FROM visitors v LEFT JOIN operator_certificates c ON c.serial = v.certificate`

func (s *Service) args(more ...any) []any {
	return append([]any{store.Millis(s.Clock.Now()), int64(s.Epoch())}, more...)
}

func (s *Service) scan(row interface{ Scan(...any) error }) (v apitype.OverlayVisitor, err error) {
	var address string
	var registered, expires int64
	if err := row.Scan(&v.ID, &v.PublicKey, &address, &v.Username, &v.Label, &v.Certificate, &registered, &expires, &v.Ended); err != nil {
		return v, store.Classify(err)
	}
	if v.OverlayV4, err = netip.ParseAddr(address); err != nil {
		return v, fmt.Errorf("stored visitor %s: %w", v.ID, err)
	}
	v.Registered, v.Expires = store.Time(registered), store.Time(expires)
	return v, nil
}

func (s *Service) list(rows *sql.Rows, err error) ([]apitype.OverlayVisitor, error) {
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.OverlayVisitor{}
	for rows.Next() {
		v, err := s.scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, store.Classify(rows.Err())
}

// own is the name under which a principal has devices.
func own(by auth.Principal) string {
	if by.Kind != "user" {
		return ""
	}
	return by.Name
}

// List returns a page by ID: all for an admin, else the own.
func (s *Service) List(ctx context.Context, by auth.Principal, cursor string, limit int) (apitype.OverlayVisitorList, error) {
	items, err := s.list(s.DB.Read().QueryContext(ctx, query+` WHERE v.id > ? AND (? OR v.username = ?) ORDER BY v.id LIMIT ?`,
		s.args(cursor, by.Has(apitype.ScopeAdmin), own(by), limit+1)...))
	l := apitype.OverlayVisitorList{Items: items}
	if len(items) > limit {
		l.Items = items[:limit]
		l.Next = l.Items[limit-1].ID
	}
	return l, err
}

// Remove takes a device's place away: an admin any, others their own.
func (s *Service) Remove(ctx context.Context, by auth.Principal, id string) error {
	var user, label string
	err := s.DB.Write(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `DELETE FROM visitors WHERE id = ? AND (? OR username = ?) RETURNING username, label`, id, by.Has(apitype.ScopeAdmin), own(by)).Scan(&user, &label)
		if errors.Is(err, sql.ErrNoRows) {
			return apitype.Refuse(http.StatusNotFound, "", "there is no device %.64q of yours in the overlay", id)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.Events.Add(EventRemoved, model.Info, "", fmt.Sprintf("the device %q of %s has no place in the overlay any more", label, user),
		map[string]string{"user": user, "id": id, "label": label, "by": by.Actor()})
	return nil
}

// Present returns those whose place has not ended, for halo-mesh.
func (s *Service) Present(ctx context.Context) ([]model.Visitor, error) {
	rows, err := s.list(s.DB.Read().QueryContext(ctx, query+` ORDER BY v.id`, s.args()...))
	if err != nil {
		return nil, err
	}
	out := []model.Visitor{}
	for _, v := range rows {
		if !v.Ended {
			out = append(out, model.Visitor{ID: v.ID, Name: v.Label, WireGuardKey: v.PublicKey, Overlay: v.OverlayV4, ExpiresMS: v.Expires.UnixMilli()})
		}
	}
	return out, nil
}
