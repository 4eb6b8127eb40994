// Package endpoints knows the hosts that are no members of the network: phones on a
// node's hotspot, cameras on its ports, guests on ports that are bridged into the mesh.
// People's word for them is Clients. Each node reports those behind it, by its leases, its
// neighbour table and batman-adv's translation tables; the gateway also reports guests
// behind whatever node. One that shows up behind another node has moved there, and stays
// what it is.
package endpoints

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

// Bounds: nodes, and whoever is behind them, choose what they report.
const (
	maxEndpoints = 4096
	maxOfNode    = model.MaxClients
	maxPlaces    = 32
	maxAddresses = 16
	maxText      = 64
	forgetAfter  = 30 * 24 * time.Hour // those that nobody has named
)

const (
	saveEvery = time.Minute
	lastSave  = 5 * time.Second
	seenEvery = 15 * time.Minute // how often "last seen" alone is written, for the card's sake
	tellEvery = 10 * time.Minute // between two moves of one that are told
	settleIn  = 6 * time.Minute  // all nodes send their status within five minutes
)

// eventMoved is when one is behind another node; fields endpoint, mac, from.
const eventMoved = "client.moved"

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	// Gateway is the canonical ID of the gateway, whose word about guests behind others is
	// second hand.
	Gateway string
}

// Book is the endpoints. Run has to be running for them to reach config.db.
type Book struct {
	Config
	wake chan struct{}

	saving  sync.Mutex // held while what is to be written is gathered and written, so that no older state is written after a newer one; before mu
	mu      sync.Mutex // guards what follows
	byMAC   map[string]*entry
	byID    map[string]*entry
	claims  map[string]map[string]bool // by node: which MACs it reported last, and whether as present
	removed []string                   // IDs that config.db still has
	dirty   bool
	settled time.Time // until then, what a node says first is no news: it may be of long ago
}

// entry is an endpoint.
type entry struct {
	id, name, note string
	node           string
	client         model.Client
	first, last    time.Time
	places         []apitype.EndpointPlace // the oldest first
	told           time.Time

	hearsay bool // the gateway alone says where it is

	edited  bool      // by a person, right now: it is not forgotten meanwhile
	changed bool      // config.db lacks something of it
	saved   time.Time // last as config.db has it
}

// New returns the endpoints that are known.
func New(ctx context.Context, c Config) (*Book, error) {
	b := &Book{Config: c, wake: make(chan struct{}, 1), byMAC: map[string]*entry{}, byID: map[string]*entry{}, claims: map[string]map[string]bool{}, settled: c.Clock.Now().Add(settleIn)}
	rows, err := c.DB.Read().QueryContext(ctx, `SELECT id, mac, name, note, node, body, first_seen, last_seen FROM endpoints`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var mac, body string
		var first, last int64
		e := &entry{}
		if err := rows.Scan(&e.id, &mac, &e.name, &e.note, &e.node, &body, &first, &last); err != nil {
			return nil, store.Classify(err)
		}
		if err := json.Unmarshal([]byte(body), &e.client); err != nil {
			e.client = model.Client{} // its node tells it anew
		}
		e.client.MAC, e.client.Present = mac, false
		e.first, e.last = store.Time(first), store.Time(last)
		e.saved = e.last
		b.byMAC[mac], b.byID[e.id] = e, e
	}
	if err := rows.Err(); err != nil {
		return nil, store.Classify(err)
	}
	return b, b.loadPlaces(ctx)
}

func (b *Book) loadPlaces(ctx context.Context) error {
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT endpoint, since, node FROM endpoint_places ORDER BY since`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, node string
		var since int64
		if err := rows.Scan(&id, &since, &node); err != nil {
			return store.Classify(err)
		}
		if e := b.byID[id]; e != nil {
			e.places = append(e.places, apitype.EndpointPlace{Node: node, Since: store.Time(since)})
		}
	}
	return store.Classify(rows.Err())
}

// newID is drawn once, and follows from no address.
func newID() string {
	raw := make([]byte, 13)
	rand.Read(raw)
	return "c-" + strings.ToLower(base32.StdEncoding.EncodeToString(raw)[:20])
}

// trim bounds what a node says of a client; false: that is none.
func trim(c *model.Client) bool {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
		return false
	}
	c.MAC = mac.String()
	for _, t := range []*string{&c.Hostname, &c.Name, &c.Iface, &c.Behind, &c.Node} {
		*t = strings.ToValidUTF8((*t)[:min(len(*t), maxText)], "")
	}
	c.Addresses = slices.DeleteFunc(c.Addresses[:min(len(c.Addresses), maxAddresses)], func(a netip.Addr) bool { return !a.IsValid() })
	return true
}

// Report takes the clients that a node says are behind it.
func (b *Book) Report(node string, list []model.Client) {
	now := b.Clock.Now()
	type news struct{ id, mac, from, to string }
	var moved []news
	b.mu.Lock()
	claims := map[string]bool{}
	settling := now.Before(b.settled) && b.settled.Sub(now) <= settleIn // the clock may have been set back
	heard := func(node string) bool { return b.claims[node] != nil || !settling }
	reported := b.claims[node] != nil
	for _, c := range list[:min(len(list), maxOfNode)] {
		if !trim(&c) {
			continue
		}
		place, own := node, true
		if node == b.Gateway && c.Behind != "" {
			place, own = c.Node, false
		}
		was, known := b.claims[node][c.MAC]
		claims[c.MAC] = c.Present
		e := b.byMAC[c.MAC]
		if e == nil {
			if !c.Present && c.Name == "" && c.Hostname == "" && len(c.Addresses) == 0 || !b.room(now) {
				continue
			}
			e = &entry{id: newID(), first: now, client: c}
			b.byMAC[c.MAC], b.byID[e.id] = e, e
			e.place(place, now)
			e.hearsay = !own
			e.saw(c, now)
			b.dirty = true
			continue
		}
		arrives := c.Present && (reported || !settling) && (!known || !was)
		// What the gateway hears of one behind another is second hand: that one's own word goes
		// before, as long as it says that it is there.
		if !own && e.node != "" && e.node != node && b.claims[e.node][c.MAC] {
			continue
		}
		switch {
		case e.node == place:
			e.hearsay = e.hearsay && !own
		case e.node == "" || arrives || own && e.hearsay && c.Present || c.Present && heard(e.node) && !b.claims[e.node][c.MAC]:
			if from := e.node; from != "" && place != "" && now.Sub(e.told).Abs() >= tellEvery {
				e.told = now
				moved = append(moved, news{e.id, c.MAC, from, place})
			}
			e.place(place, now)
			e.hearsay = !own
		default:
			continue // it was there before, and says so still: the later one to see it counts
		}
		if e.saw(c, now) {
			b.dirty = true
		}
	}
	for mac, was := range b.claims[node] {
		if e := b.byMAC[mac]; was && !claims[mac] && e != nil && e.node == node {
			e.client.Present, e.changed, b.dirty = false, true, true
		}
	}
	b.claims[node] = claims
	dirty := b.dirty
	b.mu.Unlock()
	for _, m := range moved {
		b.Events.Add(eventMoved, model.Info, m.to, "a client has moved here", map[string]string{"endpoint": m.id, "mac": m.mac, "from": m.from})
	}
	if dirty {
		select {
		case b.wake <- struct{}{}:
		default: // it is about to look
		}
	}
}

// place puts it behind a node.
func (e *entry) place(node string, now time.Time) {
	e.node, e.changed = node, true
	e.places = append(e.places, apitype.EndpointPlace{Node: node, Since: store.Time(store.Millis(now))})
	e.places = e.places[max(0, len(e.places)-maxPlaces):]
}

// saw takes what was reported, and tells whether config.db lacks it.
func (e *entry) saw(c model.Client, now time.Time) bool {
	if c.Present || e.last.IsZero() {
		e.last = now
	}
	same := e.client.Present == c.Present && e.client.Hostname == c.Hostname && e.client.Name == c.Name && e.client.Iface == c.Iface &&
		e.client.Guest == c.Guest && e.client.Behind == c.Behind && e.client.Reserved == c.Reserved && slices.Equal(e.client.Addresses, c.Addresses)
	e.client = c
	if !same || now.Sub(e.saved).Abs() >= seenEvery {
		e.changed = true
	}
	return e.changed
}

// room forgets the one that nobody has named and that was seen longest ago, where there
// are too many; b.mu is held.
func (b *Book) room(now time.Time) bool {
	if len(b.byMAC) < maxEndpoints {
		return true
	}
	var oldest *entry
	for _, e := range b.byMAC {
		if e.name == "" && e.note == "" && !e.client.Present && !e.edited && (oldest == nil || e.last.Before(oldest.last)) {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	b.forget(oldest)
	return true
}

func (b *Book) forget(e *entry) {
	delete(b.byMAC, e.client.MAC)
	delete(b.byID, e.id)
	b.removed = append(b.removed, e.id)
	b.dirty = true
}

// Run writes down what has changed until ctx ends, then what is not written yet.
func (b *Book) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
			defer cancel()
			return b.save(last)
		case <-b.wake:
		}
		// The database tells of itself when it takes nothing; what was to be written waits.
		if err := b.save(ctx); err != nil && ctx.Err() == nil {
			select {
			case b.wake <- struct{}{}:
			default: // a wake-up is pending already
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveEvery):
		}
	}
}

// save writes what changed in one transaction.
func (b *Book) save(ctx context.Context) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.Lock()
	if b.Clock.Quality() != model.ClockNone {
		aged := b.Clock.Aged()
		for _, e := range b.byMAC {
			if e.name == "" && e.note == "" && !e.client.Present && aged.Sub(e.last) > forgetAfter {
				b.forget(e)
			}
		}
	}
	var list []entry
	for _, e := range b.byID {
		if e.changed {
			e.changed, e.saved = false, e.last
			list = append(list, *e)
		}
	}
	removed := b.removed
	b.removed, b.dirty = nil, false
	b.mu.Unlock()
	if len(list)+len(removed) == 0 {
		return nil
	}
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		for _, id := range removed {
			if _, err := tx.ExecContext(ctx, `DELETE FROM endpoints WHERE id = ?`, id); err != nil {
				return err
			}
		}
		for _, e := range list {
			if err := e.write(ctx, tx); err != nil {
				return fmt.Errorf("endpoint %s: %w", e.id, err)
			}
		}
		return nil
	})
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range list {
			if now := b.byID[e.id]; now != nil {
				now.changed = true
			}
		}
		b.removed, b.dirty = append(b.removed, removed...), true
	}
	return err
}

func (e *entry) write(ctx context.Context, tx *sql.Tx) error {
	body, err := json.Marshal(e.client)
	if err != nil {
		return err
	}
	// One of that address that memory does not know would have all saves fail from now on.
	if _, err := tx.ExecContext(ctx, `DELETE FROM endpoints WHERE mac = ? AND id <> ?`, e.client.MAC, e.id); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO endpoints (id, mac, name, note, node, body, first_seen, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, note = excluded.note, node = excluded.node, body = excluded.body, last_seen = excluded.last_seen`,
		e.id, e.client.MAC, e.name, e.note, e.node, string(body), store.Millis(e.first), store.Millis(e.last)); err != nil {
		return err
	}
	for _, p := range e.places {
		if _, err := tx.ExecContext(ctx, `INSERT INTO endpoint_places (endpoint, since, node) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, e.id, store.Millis(p.Since), p.Node); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM endpoint_places WHERE endpoint = ?1 AND since NOT IN (SELECT since FROM endpoint_places WHERE endpoint = ?1 ORDER BY since DESC LIMIT ?2)`, e.id, maxPlaces)
	return err
}

// Adopt moves what was behind a node to the one that has taken its place.
func (b *Book) Adopt(old, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.byID {
		if e.node == old {
			e.place(node, b.Clock.Now())
			b.dirty = true
		}
	}
	delete(b.claims, old)
	select {
	case b.wake <- struct{}{}:
	default: // it is about to look
	}
}

// Query selects endpoints.
type Query struct {
	Node    string
	Present *bool
	Cursor  string // ID
	Limit   int
}

// Places tells the names of nodes, and which of them are there.
type Places func(node string) (name string, online bool)

func (e *entry) shown(at Places) apitype.Endpoint {
	c := e.client
	out := apitype.Endpoint{
		ID: e.id, Name: e.name, Note: e.note, MAC: c.MAC, Hostname: c.Hostname, Addresses: append([]netip.Addr{}, c.Addresses...), Node: e.node, Interface: c.Iface,
		Guest: c.Guest, Reserved: c.Reserved, FirstSeen: store.Time(store.Millis(e.first)), LastSeen: store.Time(store.Millis(e.last)),
	}
	if e.node == "" {
		out.Behind, out.Present = c.Behind, c.Present
		return out
	}
	var online bool
	out.NodeName, online = at(e.node)
	out.Present = c.Present && online
	if c.Name != "" && out.NodeName != "" && !c.Guest {
		out.DNS = c.Name + "." + out.NodeName + ".halo"
	}
	return out
}

// List returns a page of endpoints, by ID.
func (b *Book) List(q Query, at Places) apitype.EndpointList {
	b.mu.Lock()
	list := []apitype.Endpoint{}
	for _, e := range b.byID {
		if (q.Node == "" || e.node == q.Node) && e.id > q.Cursor {
			list = append(list, e.shown(at))
		}
	}
	b.mu.Unlock()
	if q.Present != nil {
		list = slices.DeleteFunc(list, func(e apitype.Endpoint) bool { return e.Present != *q.Present })
	}
	order.By(list, func(a, b apitype.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	out := apitype.EndpointList{Items: list}
	if q.Limit > 0 && len(list) > q.Limit {
		out.Items = list[:q.Limit]
		out.Next = out.Items[q.Limit-1].ID
	}
	return out
}

func missing(id string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no endpoint %.64q", id)
}

// Get returns an endpoint and where it was.
func (b *Book) Get(id string, at Places) (apitype.EndpointDetail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.byID[id]
	if e == nil {
		return apitype.EndpointDetail{}, missing(id)
	}
	d := apitype.EndpointDetail{Endpoint: e.shown(at), Places: slices.Clone(e.places)}
	slices.Reverse(d.Places)
	return d, nil
}

// Tag returns the entity tag of an endpoint: of what people say of it.
func Tag(e apitype.Endpoint) string { return tagOf(e.Name, e.Note) }

func tagOf(name, note string) string { return etag.Of([2]string{name, note}) }

// Update gives an endpoint a name or a note: what a person says is written at once, and is so
// when it is written.
func (b *Book) Update(ctx context.Context, id string, m etag.Match, u apitype.UpdateEndpoint, at Places) (apitype.Endpoint, error) {
	b.saving.Lock()
	defer b.saving.Unlock()
	e, is, err := b.begin(id, m)
	if err != nil {
		return apitype.Endpoint{}, err
	}
	if u.Name != nil {
		is.name = strings.TrimSpace(*u.Name)
	}
	if u.Note != nil {
		is.note = strings.TrimSpace(*u.Note)
	}
	err = b.DB.Write(ctx, func(tx *sql.Tx) error { return is.write(ctx, tx) })
	b.mu.Lock()
	defer b.mu.Unlock()
	e.edited = false
	if err != nil {
		return apitype.Endpoint{}, err
	}
	e.name, e.note = is.name, is.note
	return e.shown(at), nil
}

// Forget drops an endpoint; one that is there is known anew at its node's next report.
func (b *Book) Forget(ctx context.Context, id string, m etag.Match) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	e, _, err := b.begin(id, m)
	if err != nil {
		return err
	}
	err = b.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM endpoints WHERE id = ?`, id)
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	e.edited = false
	if err != nil {
		return err
	}
	delete(b.byMAC, e.client.MAC)
	delete(b.byID, e.id)
	for _, claims := range b.claims {
		delete(claims, e.client.MAC)
	}
	return nil
}

// begin returns an endpoint that a person changes, and what is to be written of it; b.saving is
// held, until it is written.
func (b *Book) begin(id string, m etag.Match) (e *entry, is entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e = b.byID[id]; e == nil {
		return nil, is, missing(id)
	}
	if err := m.Check(tagOf(e.name, e.note)); err != nil {
		return nil, is, err
	}
	e.edited = true
	return e, *e, nil
}

// Count returns how many there are, and how many of them are present.
func (b *Book) Count(at Places) (all, present int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.byID {
		if all++; e.shown(at).Present {
			present++
		}
	}
	return all, present
}
