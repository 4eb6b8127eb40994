package registry

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

func refuse(typ, format string, args ...any) *apitype.Problem {
	return apitype.Refuse(http.StatusForbidden, typ, format, args...)
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// Join answers a join request: with a membership, or a problem. Refusals of
// signed requests become events; unsigned ones could come from anybody and
// would only fill the log.
func (r *Registry) Join(ctx context.Context, remote netip.Addr, req model.JoinRequest) (model.Membership, error) {
	key, err := identity.ParsePublicKey(req.IdentityKey)
	if err != nil {
		return model.Membership{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "identity_key: %v", err)
	}
	if req.Network != r.network.Base64() {
		return model.Membership{}, refuse(apitype.ProblemJoinNetwork, "network: this gateway's network key is %s", r.network.Base64())
	}
	wg, err := base64.StdEncoding.DecodeString(req.WireGuardKey)
	if err != nil || len(wg) != 32 || bytes.Equal(wg, make([]byte, 32)) {
		return model.Membership{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "wireguard_key: expected 32 octets in base64")
	}
	if req.Nonce == "" {
		return model.Membership{}, r.askNonce(key, "sign the request over the nonce and post it again")
	}
	sig, err := base64.StdEncoding.DecodeString(req.Signature)
	if err != nil || !key.Verify(model.JoinContext, req.SignedBytes(), sig) {
		return model.Membership{}, refuse(apitype.ProblemJoinSignature, "signature: expected that of identity_key over the request in the context %q", model.JoinContext)
	}
	// One key has one text from here on: base64 can be written in several ways,
	// and a second node must not come with the first one's key.
	req.WireGuardKey = base64.StdEncoding.EncodeToString(wg)
	switch err := r.nonces.use(key, req.Nonce); {
	case errors.Is(err, errNonceUsed):
		r.refused(key, remote, "replayed", "a join request was sent twice")
		return model.Membership{}, r.askNonce(key, "this nonce was used already")
	case err != nil:
		return model.Membership{}, r.askNonce(key, err.Error())
	}
	var m model.Membership
	if proof, bad := base64.StdEncoding.DecodeString(req.Possession); bad != nil || !r.key.Possesses(key, wg, proof) {
		err = refuse(apitype.ProblemJoinKey, "possession: expected a proof that the node has the private half of wireguard_key")
	} else {
		m, err = r.admit(ctx, remote, key, req)
	}
	if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Type != apitype.ProblemJoinPending {
		r.refused(key, remote, p.Type, p.Detail)
	}
	return m, err
}

func (r *Registry) askNonce(key identity.PublicKey, detail string) error {
	p := apitype.Refuse(http.StatusUnauthorized, apitype.ProblemJoinNonce, "%s", detail)
	p.Nonce, p.Takes = r.nonces.make(key), []string{apitype.TakesSerial}
	return p
}

func (r *Registry) refused(key identity.PublicKey, remote netip.Addr, reason, detail string) {
	what := key.ID() + reason
	if reason == apitype.ProblemRateLimited {
		what = reason // keys cost nothing: one event tells of a flood
	}
	if !r.nonces.mayReport(what) {
		return
	}
	r.events.Add("join.refused", model.Warning, key.ID(), "a join request was refused: "+detail, map[string]string{"reason": reason, "remote": remote.String()})
}

// admit decides about a request whose signature and nonce are right.
func (r *Registry) admit(ctx context.Context, remote netip.Addr, key identity.PublicKey, req model.JoinRequest) (model.Membership, error) {
	id := key.ID()
	known, err := r.Node(ctx, id)
	if err == nil {
		return r.rejoin(ctx, known, req)
	}
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusNotFound {
		return model.Membership{}, err
	}
	token, err := r.token(req.Token)
	if err != nil {
		return model.Membership{}, err
	}
	var name, by string
	var wait *apitype.Problem // why the node is not admitted at once
	news, rejected := false, false
	var asked []string // whose registrations have changed
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		var state string
		err := tx.QueryRowContext(ctx, `SELECT state FROM registrations WHERE id = ?`, id).Scan(&state)
		switch {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		case state == "rejected":
			rejected = true
			return r.stillRejected(ctx, tx, id)
		}
		if wait, err = r.spend(ctx, tx, token); err != nil {
			return err
		}
		if wait == nil {
			by = "token:" + hex.EncodeToString(token.ID[:])
			name, err = r.insert(ctx, tx, key, req, by)
			return err
		}
		mac, err := trusted(ctx, tx, id, macsOf(req))
		if err != nil {
			return err
		}
		if mac != "" {
			wait, by = nil, "mac:"+mac
			name, err = r.insert(ctx, tx, key, req, by)
			return err
		}
		news, asked, err = r.register(ctx, tx, remote, id, req, wait.Type)
		if _, full := errors.AsType[*apitype.Problem](err); full && token != nil {
			return wait // it cannot even wait: what is wrong with its token is the better answer
		}
		return err
	})
	if err == nil {
		r.waitingNews.Note(asked...)
	}
	switch {
	case err != nil:
		return model.Membership{}, err
	case rejected:
		return model.Membership{}, refuse(apitype.ProblemJoinRejected, "an admin has rejected this node")
	case wait != nil:
		if news && r.nonces.mayReport(id+wait.Type) {
			r.events.Add("join.pending", model.Info, id, "a node asks to join and waits for an admin: "+wait.Detail,
				map[string]string{"name": clip(req.Name, 63), "remote": remote.String(), "reason": wait.Type})
		}
		return model.Membership{}, refuse(apitype.ProblemJoinPending, "an admin has to approve this node: %s", wait.Detail).After(30 * time.Second)
	}
	r.joined(id, name, by, req)
	return r.membership(ctx, id)
}

func (r *Registry) joined(id, name, by string, req model.JoinRequest) {
	r.mu.Lock()
	l := r.entry(id)
	l.boot = max(l.boot, req.Boot)
	r.mu.Unlock()
	r.nodeNews.Note(id)
	r.waitingNews.Note(id) // no more
	r.events.Add("node.joined", model.Info, id, name+" has joined", map[string]string{"name": name, "by": by})
	if want := wantedName(id, req); want != name {
		r.events.Add("node.name.conflict", model.Warning, id, fmt.Sprintf("the name %s was taken; the node is called %s", want, name), map[string]string{"name": name, "wanted": want})
	}
	r.change()
}

// rejoin answers a node that is known: idempotent, and the way by which a node
// tells a new WireGuard key.
func (r *Registry) rejoin(ctx context.Context, known apitype.Node, req model.JoinRequest) (model.Membership, error) {
	if known.Revoked {
		return model.Membership{}, refuse(apitype.ProblemJoinRevoked, "this node was revoked")
	}
	if known.Quarantined != nil {
		return model.Membership{}, refuse(apitype.ProblemJoinQuarantined, "this node is quarantined, and an admin has to release it: %s", known.Quarantined.Reason)
	}
	if known.Role != model.RoleGateway && known.WireGuardKey != req.WireGuardKey {
		err := r.db.Write(ctx, func(tx *sql.Tx) error {
			if err := uniqueWireGuard(ctx, tx, known.ID, req.WireGuardKey); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `UPDATE nodes SET wireguard_key = ? WHERE id = ?`, req.WireGuardKey, known.ID)
			return err
		})
		if err != nil {
			return model.Membership{}, err
		}
		r.nodeNews.Note(known.ID)
		r.events.Add("node.rekeyed", model.Info, known.ID, known.Name+" has a new overlay key", nil)
		r.change()
	}
	if err := r.bindLate(ctx, known.ID, macsOf(req)); err != nil {
		return model.Membership{}, err
	}
	return r.membership(ctx, known.ID)
}

// uniqueWireGuard refuses a key that another node uses: it would take that
// node's place in the overlay.
func uniqueWireGuard(ctx context.Context, tx *sql.Tx, id, key string) error {
	var other string
	err := tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE wireguard_key = ? AND id <> ?`, key, id).Scan(&other)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return apitype.Refuse(http.StatusForbidden, apitype.ProblemJoinKey, "wireguard_key: it is another node's")
}

func (r *Registry) membership(ctx context.Context, id string) (model.Membership, error) {
	n, err := r.Node(ctx, id)
	if err != nil {
		return model.Membership{}, err
	}
	wg := r.key.WireGuardPublic()
	return model.Membership{
		Node: id, Name: n.Name, Network: r.network.Base64(), OverlayV4: n.OverlayV4, OverlayV6: n.OverlayV6,
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(wg[:]), CA: r.ca, Epoch: r.epoch(), Clients: n.Clients,
	}, nil
}

// wantedName is the name that a node asks for, or one made of its ID.
func wantedName(id string, req model.JoinRequest) string {
	if validName(req.Name) {
		return req.Name
	}
	return "node-" + id[2:8]
}

// insert adds an admitted node.
func (r *Registry) insert(ctx context.Context, tx *sql.Tx, key identity.PublicKey, req model.JoinRequest, by string) (string, error) {
	id := key.ID()
	if err := uniqueWireGuard(ctx, tx, id, req.WireGuardKey); err != nil {
		return "", err
	}
	name, err := freeName(ctx, tx, wantedName(id, req))
	if err != nil {
		return "", err
	}
	v4, err := freeAddress(ctx, tx)
	if err != nil {
		return "", err
	}
	clients, err := freeClients(ctx, tx)
	if err != nil {
		return "", err
	}
	macs := macsOf(req)
	if err := r.bind(ctx, tx, id, macs); err != nil {
		return "", err
	}
	list, err := json.Marshal(macs)
	if err != nil {
		return "", err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, clients, board, version, serial, macs, boot, admitted_by, joined)
		VALUES (?, ?, 'node', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, name, key.Base64(), req.WireGuardKey, v4.String(), clients, clip(req.Board, maxText), clip(req.Version, maxText), clip(req.Serial, maxText),
		string(list), int64(min(req.Boot, 1<<53)), by, store.Millis(r.clock.Now())); err != nil {
		return "", err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM registrations WHERE id = ?`, id)
	return name, err
}

func freeName(ctx context.Context, tx *sql.Tx, want string) (string, error) {
	name := want
	for n := 2; ; n++ {
		var taken bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM nodes WHERE name = ?)`, name).Scan(&taken); err != nil {
			return "", err
		}
		if !taken {
			return name, nil
		}
		suffix := fmt.Sprintf("-%d", n)
		name = strings.TrimRight(want[:min(len(want), 63-len(suffix))], "-") + suffix
	}
}

// freeAddress gives the lowest overlay address that no node has or had, those
// excepted that were forgotten; the first ones are left for the gateway and for people.
func freeAddress(ctx context.Context, tx *sql.Tx) (netip.Addr, error) {
	var members int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM nodes WHERE NOT revoked`).Scan(&members); err != nil {
		return netip.Addr{}, err
	}
	if members >= maxNodes {
		return netip.Addr{}, apitype.Refuse(http.StatusForbidden, "", "the network has %d nodes, more than which it does not hold; revoke some", members)
	}
	rows, err := tx.QueryContext(ctx, `SELECT overlay_v4 FROM nodes`)
	if err != nil {
		return netip.Addr{}, err
	}
	defer rows.Close()
	used := map[string]bool{}
	for rows.Next() {
		var a string
		if err := rows.Scan(&a); err != nil {
			return netip.Addr{}, err
		}
		used[a] = true
	}
	if err := rows.Err(); err != nil {
		return netip.Addr{}, err
	}
	a := paths.OverlayGateway
	for range 9 {
		a = a.Next()
	}
	for used[a.String()] {
		a = a.Next()
	}
	return a, nil
}

// lastClients is the number of the last network that a node's clients may have.
// 0 is the gateway's own, 255 is for nodes that have not joined.
const lastClients = 254

// freeClients gives the number of the lowest network of clients that no node has
// or had or, when there is none any more, of one that a revoked node had: its
// routes are gone with its peer. None is left: no number.
func freeClients(ctx context.Context, tx *sql.Tx) (free sql.Null[uint8], err error) {
	rows, err := tx.QueryContext(ctx, `SELECT clients, revoked FROM nodes WHERE clients IS NOT NULL`)
	if err != nil {
		return free, err
	}
	defer rows.Close()
	var has, had [lastClients + 1]bool
	for rows.Next() {
		var n int
		var revoked bool
		if err := rows.Scan(&n, &revoked); err != nil {
			return free, err
		}
		if n >= 0 && n <= lastClients {
			has[n], had[n] = has[n] || !revoked, had[n] || revoked
		}
	}
	if err := rows.Err(); err != nil {
		return free, err
	}
	for _, again := range []bool{false, true} {
		for n := 1; n <= lastClients; n++ {
			if !has[n] && (again || !had[n]) {
				return sql.Null[uint8]{V: uint8(n), Valid: true}, nil
			}
		}
	}
	return free, nil
}
