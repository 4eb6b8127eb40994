// Package registry knows the network's nodes: one canonical identity per
// device, its interfaces as children, its overlay address, how it was
// admitted, and whether it is there. It decides who may join.
package registry

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"halo.internal/gateway/changes"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// Bounds of what is kept.
const (
	maxNodes        = 1000 // that are not revoked
	maxRevokedNodes = 3000 // besides
	maxJoinTokens   = 1000 // that admit somebody
	maxDeadTokens   = 3000 // besides: used up, revoked or expired
	deadTokenLife   = 30 * 24 * time.Hour
)

// reserved names are words of the API's own in the place of a node's, and who
// else may be the source of an event.
var reserved = []string{"join", "stream", events.Source}

// validName tells whether a node may have a name.
func validName(s string) bool {
	return nameForm.MatchString(s) && !identity.ValidID(s) && !slices.Contains(reserved, s) && !ofComponent(s)
}

// ofComponent tells of names that neurons' components have, or one with a number behind
// it would have: in DNS they stand for what those are assigned to.
func ofComponent(s string) bool {
	return slices.ContainsFunc(model.Components(), func(c model.Component) bool { return strings.HasPrefix(s+"-", model.ComponentName(c, "")) })
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	Key    identity.Key // the gateway's, which is the network's
	Name   string       // of the gateway, from its bundle; empty: "gateway"
	CA     string       // PEM
	Boot   uint64
	Epoch  func() uint64 // may rise at any time
	// Clients is told of the hosts that a node reports behind it; nil: nobody is.
	Clients func(node string, list []model.Client)
	// Cameras is told of those that are plugged in at a node; nil: nobody is.
	Cameras func(node string, list []model.CameraBrief)
}

// Registry may be used from any goroutine. Run has to be running for what nodes
// say of themselves to reach config.db.
type Registry struct {
	db      *store.DB
	clock   *clock.Clock
	events  *events.Log
	network identity.PublicKey
	key     identity.Key
	ca      string
	epoch   func() uint64
	clients func(node string, list []model.Client)
	cameras func(node string, list []model.CameraBrief)
	nonces  *nonces
	wake    chan struct{} // Run has to look when it is due
	codes   atomic.Uint32 // generation of the nodes' codes
	renew   sync.Mutex    // one renewal at a time

	stored      atomic.Pointer[nodeTable] // nil: it was not read yet
	nodeNews    *changes.Log[string]      // canonical IDs
	waitingNews *changes.Log[string]      // of those who ask to join

	described described

	mu      sync.Mutex // guards what follows
	live    map[string]*live
	changed []chan struct{}
	version uint64 // rises when nodes or registrations may have changed
	offered offers
	adopts  []AdoptFunc
	adopted []func(old, node string)
	shutOut []func()          // called after each quarantine
	owners  map[string]string // nodes that had a piece of hardware last
	saveBy  time.Time         // when Run writes; zero: nothing is to be written
	tellBy  time.Time         // when Run tells of states; zero: nothing is to be told
}

// New opens the registry and makes sure that the gateway itself is in it.
func New(ctx context.Context, c Config) (*Registry, error) {
	r := &Registry{
		db: c.DB, clock: c.Clock, events: c.Events, network: c.Key.Public(), key: c.Key, ca: c.CA, epoch: c.Epoch, clients: c.Clients, cameras: c.Cameras,
		nonces: newNonces(), wake: make(chan struct{}, 1), live: map[string]*live{}, owners: map[string]string{},
		nodeNews: changes.New[string](maxNodes + maxRevokedNodes), waitingNews: changes.New[string](4 * maxRegistrations),
	}
	name := c.Name
	if name == "" {
		name = "gateway"
	}
	if err := r.addGateway(ctx, name, c.Boot); err != nil {
		return nil, err
	}
	if err := r.loadCodes(ctx); err != nil {
		return nil, err
	}
	if err := r.loadBoards(ctx); err != nil {
		return nil, err
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, r.loadHardware(ctx)
}

// ErrOtherNetwork is wrapped when config.db belongs to another key.
var ErrOtherNetwork = errors.New("config.db belongs to another network")

func (r *Registry) addGateway(ctx context.Context, name string, boot uint64) error {
	wg := r.key.WireGuardPublic()
	key := base64.StdEncoding.EncodeToString(wg[:])
	id := r.key.ID()
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		var other string
		err := tx.QueryRowContext(ctx, `SELECT id FROM nodes WHERE role = 'gateway' AND id <> ?`, id).Scan(&other)
		if err == nil {
			return fmt.Errorf("%w: its gateway is %s, this device is %s", ErrOtherNetwork, other, id)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, boot, admitted_by, joined)
			VALUES (?, ?, 'gateway', ?, ?, ?, ?, 'self', ?)
			ON CONFLICT (id) DO UPDATE SET wireguard_key = excluded.wireguard_key, boot = excluded.boot`,
			id, name, r.network.Base64(), key, paths.OverlayGateway.String(), int64(boot), store.Millis(r.clock.Now()))
		return err
	})
}

// Changes returns a channel that gets a value, coalesced, whenever the list of
// admitted peers has changed.
func (r *Registry) Changes() <-chan struct{} {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = append(r.changed, c)
	return c
}

func (r *Registry) change() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	for _, c := range r.changed {
		select {
		case c <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// touch has what is derived from nodes and registrations looked at anew.
func (r *Registry) touch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
}

// Gateway returns the canonical ID of the gateway itself.
func (r *Registry) Gateway() string { return r.key.ID() }

// Network returns the network's key.
func (r *Registry) Network() identity.PublicKey { return r.network }

// Peers returns the overlay peers that halo-mesh may admit.
func (r *Registry) Peers(ctx context.Context) ([]model.AdmittedPeer, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT id, name, identity_key, wireguard_key, overlay_v4, clients FROM nodes WHERE role = 'node' AND NOT revoked AND quarantined IS NULL ORDER BY id`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	peers := []model.AdmittedPeer{}
	for rows.Next() {
		var p model.AdmittedPeer
		var v4 string
		var clients sql.Null[uint8]
		if err := rows.Scan(&p.Node, &p.Name, &p.IdentityKey, &p.WireGuardKey, &v4, &clients); err != nil {
			return nil, store.Classify(err)
		}
		p.Clients = clientsOf(clients)
		key, err := identity.ParsePublicKey(p.IdentityKey)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", p.Node, err)
		}
		if p.OverlayV4, err = netip.ParseAddr(v4); err != nil {
			return nil, fmt.Errorf("node %s: %w", p.Node, err)
		}
		p.OverlayV6 = identity.Overlay(r.network, key)
		peers = append(peers, p)
	}
	return peers, store.Classify(rows.Err())
}

// clientsOf is the network of a node's clients, as the column says.
func clientsOf(n sql.Null[uint8]) netip.Prefix {
	if !n.Valid {
		return netip.Prefix{}
	}
	return paths.ClientsOf(n.V)
}

// Revoked returns the canonical IDs of all nodes that were revoked.
func (r *Registry) Revoked(ctx context.Context) ([]string, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT id FROM nodes WHERE revoked ORDER BY id`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	ids := []string{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, store.Classify(err)
		}
		ids = append(ids, id)
	}
	return ids, store.Classify(rows.Err())
}

// Epoch is the generation of this gateway's knowledge, by which nodes tell old
// lists.
func (r *Registry) Epoch() uint64 { return r.epoch() }

// Fresh tells whether no other node was ever admitted; one that was revoked
// since counts.
func (r *Registry) Fresh(ctx context.Context) (bool, error) {
	var admitted bool
	err := r.db.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM nodes WHERE role <> 'gateway')`).Scan(&admitted)
	return !admitted, store.Classify(err)
}

func notFound(ref string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no node %.64q; give its canonical ID or its name", ref)
}
