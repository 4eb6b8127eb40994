// Package events keeps what happened: the gateway's own events and those that
// nodes report, each stored once, for years and over reboots, within a bound.
// gokrazy keeps a hundred lines of log in RAM; this is the log that lasts.
package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"halo.internal/gateway/changes"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Source of the events that gateway-api makes itself.
const Source = "gateway-api"

const (
	maxWaiting = 256
	groupEvery = time.Second // between commits of own events: a storm of them must not wear the card
	retryEvery = 5 * time.Second
	maxKind    = 64
	maxMessage = 1024
	maxFields  = 32
	maxField   = 256
)

// Log is the log of events. Its methods may be called from any goroutine.
type Log struct {
	db    *store.DB
	clock *clock.Clock
	boot  uint64
	log   *slog.Logger
	wake  chan struct{}
	most  share

	mu      sync.Mutex // guards what follows
	waiting []model.Event
	lost    int

	// Witness, if it is set before Run, takes down the gateway's own events, too.
	Witness Witness

	writing sync.Mutex // held by the one who writes; guards shares
	shares  shares

	telling sync.Mutex // guards what follows
	newest  int64      // ID that is committed; 0: not known yet
	bell    changes.Bell
}

// Witness takes down elsewhere, in the same transaction, what the gateway's own events tell.
type Witness interface {
	// Ready is asked before the transaction.
	Ready(context.Context) error
	// Take is called in it; committed, if there is one, after it.
	Take(context.Context, *sql.Tx, []model.Event) (committed func(), err error)
}

// New returns the log; boot is the gateway's boot counter. Run has to be
// running for Add to reach the database.
func New(db *store.DB, c *clock.Clock, boot uint64, log *slog.Logger) *Log {
	return &Log{db: db, clock: c, boot: boot, log: log, wake: make(chan struct{}, 1), most: share{maxStored, maxOctets}}
}

// Add notes an event of gateway-api's own. It does not wait for the database;
// when that stays unavailable the oldest of the waiting events are lost, and a
// later one says how many. node is the node it is about, or empty.
func (l *Log) Add(kind string, s model.Severity, node, message string, fields map[string]string) {
	e := model.Event{Boot: l.boot, Time: l.clock.Now(), Clock: l.clock.Quality(), Node: node, Kind: kind, Severity: s, Message: message, Fields: fields}
	l.log.Info(message, "event", kind, "node", node)
	l.mu.Lock()
	if len(l.waiting) == maxWaiting {
		l.waiting = l.waiting[1:]
		l.lost++
	}
	l.waiting = append(l.waiting, e)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// Run writes the gateway's own events, grouped, until ctx ends; then it writes
// what waits.
func (l *Log) Run(ctx context.Context) error {
	retain := time.NewTicker(retainEvery)
	defer retain.Stop()
	for {
		select {
		case <-retain.C:
			if err := l.retain(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("events are not dropped for their age", "err", err)
			}
			continue
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryEvery)
			defer cancel()
			return l.flush(last)
		case <-l.wake:
		}
		pause := groupEvery
		if err := l.flush(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("events wait for the database", "err", err)
			pause = retryEvery
			select {
			case l.wake <- struct{}{}:
			default: // a wake-up is pending already
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (l *Log) flush(ctx context.Context) error {
	l.mu.Lock()
	batch, lost := l.waiting, l.lost
	l.waiting, l.lost = nil, 0
	l.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if lost > 0 {
		batch = append(batch, model.Event{Boot: l.boot, Time: l.clock.Now(), Clock: l.clock.Quality(), Kind: "events.lost", Severity: model.Warning,
			Message: fmt.Sprintf("%d events were lost while the database was unavailable", lost)})
	}
	var unfit []int
	committed := func() {}
	err := l.ready(ctx)
	if err == nil {
		unfit, err = l.store(ctx, Source, func(tx *sql.Tx) ([]model.Event, error) {
			var last int64
			if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM events WHERE source = ? AND boot = ?`, Source, int64(l.boot)).Scan(&last); err != nil {
				return nil, err
			}
			for i := range batch {
				batch[i].Seq = uint64(last) + uint64(i) + 1
			}
			if l.Witness != nil {
				done, err := l.Witness.Take(ctx, tx, batch)
				if err != nil {
					return nil, err
				}
				if done != nil {
					committed = done
				}
			}
			return batch, nil
		})
	}
	for _, i := range unfit {
		l.log.Error("an event cannot be stored", "event", batch[i].Kind, "node", batch[i].Node)
	}
	if err == nil {
		committed()
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if lost > 0 {
		batch = batch[:len(batch)-1] // the count goes back to where it was
	}
	l.lost += lost
	l.waiting = append(batch, l.waiting...)
	if over := len(l.waiting) - maxWaiting; over > 0 {
		l.waiting = l.waiting[over:]
		l.lost += over
	}
	return err
}

func (l *Log) ready(ctx context.Context) error {
	if l.Witness == nil {
		return nil
	}
	return l.Witness.Ready(ctx)
}

// Record commits events that a node reported and Check let pass; those that
// are stored already are left as they are. When there is no error all may be
// acknowledged: those whose positions it returns can never be stored.
func (l *Log) Record(ctx context.Context, node string, events []model.Event) (unfit []int, err error) {
	return l.store(ctx, node, func(*sql.Tx) ([]model.Event, error) { return events, nil })
}

// LastBoot returns the highest boot counter under which a node has reported an event that
// is kept; 0: there is none.
func (l *Log) LastBoot(ctx context.Context, node string) (uint64, error) {
	var boot int64
	err := l.db.Read().QueryRowContext(ctx, `SELECT coalesce(max(boot), 0) FROM events WHERE source = ?`, node).Scan(&boot)
	return uint64(boot), store.Classify(err)
}

// errForm is for an event that no node of ours sends.
var errForm = fmt.Errorf("event: expected boot and seq from 1 and a dotted kind of at most %d lower-case letters, digits, dots and hyphens", maxKind)

var kindForm = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)

// ErrForeign is wrapped where a node reports what only others may report:
// something about another node, or what the gateway alone can know.
var ErrForeign = errors.New("event is not the node's own")

// Kinds that the gateway alone makes, by their first word or as a whole. A
// node that could report them would tell of logins and admissions that never
// were.
var (
	ownWords = []string{"alert", "audit", "auth", "backup", "client", "event", "events", "node", "operator", "registry", "seal", "settings", "store", "stream", "topology", "trust"}
	ownKinds = []string{"bundle.unusable", "firewall.applied", "firewall.confirmed", "firewall.reverted", "overlay.visitor.registered", "overlay.visitor.removed",
		"gateway.epoch-behind", "gateway.epoch-raised", "gateway.set-aside", "mesh.radio.capture", "perm.full", "perm.room",
		"telemetry.conflict", "telemetry.crowded", "telemetry.damaged", "telemetry.dropped", "telemetry.expired", "telemetry.failing", "telemetry.malformed",
		"telemetry.misdated", "telemetry.newer", "telemetry.schemas", "telemetry.series", "telemetry.thinned", "telemetry.unreadable"}
	nodeKinds = []string{"node.started"} // of halo-mesh, though its first word is among ownWords
	// Of halo-mesh too, on the gateway's own device alone. That there is another gateway
	// (gateway.twin) nodes tell as well.
	deviceKinds = []string{"firewall.policy", "firewall.policy-damaged", "firewall.trial", "firewall.trial-over",
		"gateway.not-restarted", "gateway.not-restored", "gateway.restored", "gateway.restored-once", "gateway.restoring", "gateway.twin-gone",
		"mesh.member.left-out", "mesh.profile.changed", "mesh.profile.missed", "mesh.profile.started", "mesh.profile.undone", "mesh.secret.due", "mesh.secret.waits"}
)

func gatewayAlone(kind string, gateway bool) bool {
	word, _, _ := strings.Cut(kind, ".")
	return !gateway && slices.Contains(deviceKinds, kind) || slices.Contains(ownKinds, kind) || slices.Contains(ownWords, word) && !slices.Contains(nodeKinds, kind)
}

// Check readies an event that a node reports, gateway if that is the gateway's
// own device: one that names no node is about the reporter. It refuses what has no key, what is about another node and
// what only the gateway reports (ErrForeign), and cuts what is too long: an
// event is for people, and a clipped one is better than none.
func Check(e *model.Event, reporter string, gateway bool) error {
	const max63 = 1<<63 - 1
	if e.Boot > max63 || e.Seq == 0 || e.Seq > max63 || len(e.Kind) > maxKind || !kindForm.MatchString(e.Kind) {
		return errForm
	}
	switch {
	case e.Node == "":
		e.Node = reporter
	case e.Node != reporter:
		return fmt.Errorf("%w: expected one about the reporting node %s, got %s about %.64q", ErrForeign, reporter, e.Kind, e.Node)
	}
	if gatewayAlone(e.Kind, gateway) {
		return fmt.Errorf("%w: %s is an event of the gateway's, node %s reported it", ErrForeign, e.Kind, reporter)
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "")
	}
	for k, v := range e.Fields {
		switch {
		case len(k) > maxKind || len(e.Fields) > maxFields:
			delete(e.Fields, k)
		case len(v) > maxField:
			e.Fields[k] = strings.ToValidUTF8(v[:maxField], "")
		}
	}
	return nil
}

var levels = []model.Severity{model.Info, model.Warning, model.Error}

func level(s model.Severity) int {
	for i, l := range levels {
		if l == s {
			return i
		}
	}
	return 0
}

// Query selects events.
type Query struct {
	Node     string         // about it or reported by it
	Before   []string       // nodes that it has taken the place of
	Kind     string         // prefix
	Severity model.Severity // that and worse
	Since    *int64         // oldest first, only those with a higher ID
	// Acknowledged: only those that somebody has taken note of, or that nobody has; nil: all.
	Acknowledged *bool
	Cursor       string
	Limit        int
}

// Newest returns the newest event of a kind about each node that gateway-api
// made.
func (l *Log) Newest(ctx context.Context, kind string) (map[string]model.Event, error) {
	rows, err := l.db.Read().QueryContext(ctx, `SELECT node, body FROM events WHERE id IN
		(SELECT max(id) FROM events WHERE kind = ? AND source = ? GROUP BY node)`, kind, Source)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	newest := map[string]model.Event{}
	for rows.Next() {
		var node, body string
		if err := rows.Scan(&node, &body); err != nil {
			return nil, store.Classify(err)
		}
		var e model.Event
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			l.log.Warn("a stored event cannot be read", "event", kind, "node", node, "err", err)
			continue // it is as good as none: the gateway must start all the same
		}
		newest[node] = e
	}
	return newest, store.Classify(rows.Err())
}

// List returns a page of events and the cursor of the next page, or "".
func (l *Log) List(ctx context.Context, q Query) ([]apitype.Event, string, error) {
	where, args := []string{"e.severity >= ?"}, []any{level(q.Severity)}
	and := func(clause string, a ...any) {
		where, args = append(where, clause), append(args, a...)
	}
	if q.Node != "" {
		ids := []any{q.Node}
		for _, id := range q.Before {
			ids = append(ids, id)
		}
		in := "(?" + strings.Repeat(", ?", len(q.Before)) + ")"
		and("(e.node IN "+in+" OR e.source IN "+in+")", append(ids, ids...)...)
	}
	if q.Kind != "" {
		and("substr(e.kind, 1, ?) = ?", len(q.Kind), q.Kind)
	}
	order := "DESC"
	if q.Since != nil {
		order = "ASC"
		and("e.id > ?", *q.Since)
	}
	if q.Cursor != "" {
		id, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil {
			return nil, "", apitype.Refuse(400, "", "cursor: expected the value of \"next\" of an earlier page")
		}
		and(map[string]string{"ASC": "e.id > ?", "DESC": "e.id < ?"}[order], id)
	}
	if q.Acknowledged != nil {
		and(map[bool]string{true: "a.event IS NOT NULL", false: "a.event IS NULL"}[*q.Acknowledged])
	}
	rows, err := l.db.Read().QueryContext(ctx, `SELECT `+columns+` WHERE `+
		strings.Join(where, " AND ")+` ORDER BY e.id `+order+` LIMIT ?`, append(args, q.Limit+1)...)
	if err != nil {
		return nil, "", store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.Event{}
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, "", err
		}
		list = append(list, e)
	}
	next := ""
	if len(list) > q.Limit {
		list = list[:q.Limit]
		next = strconv.FormatInt(list[q.Limit-1].ID, 10)
	}
	return list, next, store.Classify(rows.Err())
}
