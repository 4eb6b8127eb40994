// Package alerts keeps conditions that last: a node that is offline, a disk that is
// nearly full, a firewall policy that came back by itself. A condition opens an alert
// when it has lasted for a while, and closes it when it has been gone for a moment;
// people acknowledge what they know of. Events are what happened once; alerts are what
// is so.
//
// What is so is looked at as a whole every few seconds (Conditions), so that nothing
// depends on having seen it begin: a restart loses no alert and leaves none behind.
package alerts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	lookEvery = 10 * time.Second
	goneFor   = 20 * time.Second // before an alert closes: what comes and goes is one
	maxOpen   = 4096
	maxOfNode = 64 // open ones about one node: it must not take the room of the others
	maxClosed = 2000
	keptFor   = 365 * 24 * time.Hour
	maxText   = 512

	rouseEvery = time.Hour // at most an alert that becomes worse again and again has to be seen anew
)

// Kinds of the events about alerts; fields alert (its kind), id, subject.
const (
	EventOpened = "alert.opened"
	EventClosed = "alert.closed"
)

// Key tells conditions apart.
type Key struct{ Kind, Node, Subject string }

// Condition is something that is so.
type Condition struct {
	Key
	Severity model.Severity
	Message  string
	Fields   map[string]string
	After    time.Duration // it has to last before it opens an alert
	// Unknown says that it can't be told: an alert that is open stays so, and none opens.
	Unknown bool
	// Holds says that it is not much better: an alert that is open as more severe stays so.
	Holds bool
}

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	Log    *slog.Logger
	// Look returns all that is so now; open tells which alerts are open, for conditions
	// whose threshold depends on that.
	Look func(ctx context.Context, open func(Key) bool) ([]Condition, error)
}

// Book is the alerts. Run has to be running for any to open or close.
type Book struct {
	Config

	mu      sync.Mutex // guards what follows
	open    map[Key]entry
	pending map[Key]time.Time // since when a condition is there that has opened nothing yet
	gone    map[Key]time.Time // since when one is gone whose alert is open
}

// entry is an open alert.
type entry struct {
	id       int64
	severity model.Severity
	message  string
	roused   time.Time // when it last became so much worse that it has to be seen anew; zero: it did not
}

// change is another severity of an open alert.
type change struct {
	Condition
	rouse bool // it has to be seen, and known of, again
}

// New returns the alerts with those that are open.
func New(ctx context.Context, c Config) (*Book, error) {
	b := &Book{Config: c, open: map[Key]entry{}, pending: map[Key]time.Time{}, gone: map[Key]time.Time{}}
	rows, err := c.DB.Read().QueryContext(ctx, `SELECT id, kind, node, subject, severity, message FROM alerts WHERE closed IS NULL`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var k Key
		var e entry
		var severity int
		if err := rows.Scan(&e.id, &k.Kind, &k.Node, &k.Subject, &severity, &e.message); err != nil {
			return nil, store.Classify(err)
		}
		e.severity = events.SeverityOf(severity)
		b.open[k] = e
	}
	return b, store.Classify(rows.Err())
}

// Run looks what is so until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := b.look(ctx, time.Now())
		if ctx.Err() == nil && (err != nil) != failed {
			if failed = err != nil; failed {
				b.Log.Warn("alerts are not kept", "err", err)
			}
		}
	}
}

// look opens and closes alerts as the conditions say; now is of a clock that is never
// set.
func (b *Book) look(ctx context.Context, now time.Time) error {
	conditions, err := b.Look(ctx, b.isOpen)
	if err != nil {
		return err
	}
	var opened []Condition
	var closed []Key
	var changed []change
	b.mu.Lock()
	there, ofNode := map[Key]bool{}, map[string]int{}
	for k := range b.open {
		ofNode[k.Node]++
	}
	for _, c := range conditions {
		if there[c.Key] {
			continue // said twice: the first counts
		}
		there[c.Key] = true
		e, open := b.open[c.Key]
		switch {
		case open:
			delete(b.gone, c.Key)
			worse := events.Level(c.Severity) > events.Level(e.severity)
			if !c.Unknown && (worse || e.severity != c.Severity && !c.Holds) {
				changed = append(changed, change{c, worse && (e.roused.IsZero() || now.Sub(e.roused) >= rouseEvery)})
			}
		case c.Unknown:
			delete(b.pending, c.Key)
		default:
			since, known := b.pending[c.Key]
			if !known {
				since = now
				b.pending[c.Key] = now
			}
			room := len(b.open)+len(opened) < maxOpen && (c.Node == "" || ofNode[c.Node] < maxOfNode)
			if now.Sub(since) >= c.After && room {
				ofNode[c.Node]++
				opened = append(opened, c)
			}
		}
	}
	for k := range b.pending {
		if !there[k] {
			delete(b.pending, k)
		}
	}
	for k := range b.open {
		if there[k] {
			continue
		}
		since, known := b.gone[k]
		if !known {
			since = now
			b.gone[k] = now
		}
		if now.Sub(since) >= goneFor {
			closed = append(closed, k)
		}
	}
	b.mu.Unlock()
	if len(opened)+len(closed)+len(changed) == 0 {
		return nil
	}
	return b.write(ctx, now, opened, changed, closed)
}

func (b *Book) isOpen(k Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, open := b.open[k]
	return open
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "") }

func (b *Book) write(ctx context.Context, now time.Time, opened []Condition, changed []change, closed []Key) error {
	at := b.Clock.Now()
	ids := make([]int64, len(opened))
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		for i, c := range opened {
			fields, err := json.Marshal(c.Fields)
			if err != nil {
				return err
			}
			if err := tx.QueryRowContext(ctx, `INSERT INTO alerts (kind, node, subject, severity, message, fields, opened) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id`,
				c.Kind, c.Node, c.Subject, events.Level(c.Severity), clip(c.Message), string(fields), store.Millis(at)).Scan(&ids[i]); err != nil {
				return err
			}
		}
		for _, c := range changed {
			if _, err := tx.ExecContext(ctx, `UPDATE alerts SET acked = CASE WHEN ?1 THEN NULL ELSE acked END, severity = ?2, message = ?3 WHERE kind = ?4 AND node = ?5 AND subject = ?6 AND closed IS NULL`,
				c.rouse, events.Level(c.Severity), clip(c.Message), c.Kind, c.Node, c.Subject); err != nil {
				return err
			}
		}
		for _, k := range closed {
			if _, err := tx.ExecContext(ctx, `UPDATE alerts SET closed = ? WHERE kind = ? AND node = ? AND subject = ? AND closed IS NULL`, store.Millis(at), k.Kind, k.Node, k.Subject); err != nil {
				return err
			}
		}
		if len(closed) == 0 {
			return nil
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM alerts WHERE closed IS NOT NULL AND id NOT IN (SELECT id FROM alerts WHERE closed IS NOT NULL ORDER BY closed DESC LIMIT ?)`, maxClosed)
		if err == nil && b.Clock.Quality() != model.ClockNone {
			_, err = tx.ExecContext(ctx, `DELETE FROM alerts WHERE closed < ?`, store.Millis(b.Clock.Aged().Add(-keptFor)))
		}
		return err
	})
	if err != nil {
		return err
	}
	b.note(now, opened, changed, closed, ids)
	return nil
}

// note takes up what is written, and tells of it.
func (b *Book) note(now time.Time, opened []Condition, changed []change, closed []Key, ids []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tell := func(kind string, k Key, id int64, s model.Severity, message string) {
		b.Events.Add(kind, s, k.Node, message, map[string]string{"alert": k.Kind, "subject": k.Subject, "id": strconv.FormatInt(id, 10)})
	}
	for i, c := range opened {
		b.open[c.Key] = entry{id: ids[i], severity: c.Severity, message: c.Message}
		delete(b.pending, c.Key)
		tell(EventOpened, c.Key, ids[i], c.Severity, c.Message)
	}
	for _, c := range changed {
		e := b.open[c.Key]
		e.severity, e.message = c.Severity, c.Message
		if c.rouse {
			e.roused = now
		}
		b.open[c.Key] = e
		tell(EventOpened, c.Key, e.id, c.Severity, c.Message)
	}
	for _, k := range closed {
		e := b.open[k]
		delete(b.open, k)
		delete(b.gone, k)
		tell(EventClosed, k, e.id, model.Info, "over: "+e.message)
	}
}

// Query selects alerts.
type Query struct {
	State    string         // open, closed, or empty for both
	Severity model.Severity // that and worse
	Nodes    []string       // about one of them; empty: all
	Kind     string         // prefix
	Cursor   string
	Limit    int
}

const columns = `id, kind, node, subject, severity, message, fields, opened, closed, acked, acked_by, note`

func scan(row interface{ Scan(...any) error }) (a apitype.Alert, err error) {
	var severity int
	var fields, by, note string
	var opened int64
	var closed, acked sql.NullInt64
	if err := row.Scan(&a.ID, &a.Kind, &a.Node, &a.Subject, &severity, &a.Message, &fields, &opened, &closed, &acked, &by, &note); err != nil {
		return a, store.Classify(err)
	}
	if err := json.Unmarshal([]byte(fields), &a.Fields); err != nil {
		return a, fmt.Errorf("stored alert %d: %w", a.ID, err)
	}
	a.Severity, a.Opened, a.Closed = events.SeverityOf(severity), store.Time(opened), store.TimePtr(closed)
	if t := store.TimePtr(acked); t != nil {
		a.Acknowledged = &apitype.Acknowledgement{Time: *t, By: by, Note: note}
	}
	return a, nil
}

// List returns a page of alerts, newest first.
func (b *Book) List(ctx context.Context, q Query) (apitype.AlertList, error) {
	list := apitype.AlertList{Items: []apitype.Alert{}}
	where, args := []string{"severity >= ?"}, []any{events.Level(q.Severity)}
	and := func(clause string, a ...any) { where, args = append(where, clause), append(args, a...) }
	switch q.State {
	case "open":
		and("closed IS NULL")
	case "closed":
		and("closed IS NOT NULL")
	}
	if len(q.Nodes) > 0 {
		nodes := make([]any, len(q.Nodes))
		for i, n := range q.Nodes {
			nodes[i] = n
		}
		and("node IN (?"+strings.Repeat(", ?", len(nodes)-1)+")", nodes...)
	}
	if q.Kind != "" {
		and("substr(kind, 1, ?) = ?", len(q.Kind), q.Kind)
	}
	if q.Cursor != "" {
		id, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil {
			return list, apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
		}
		and("id < ?", id)
	}
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT `+columns+` FROM alerts WHERE `+strings.Join(where, " AND ")+` ORDER BY id DESC LIMIT ?`, append(args, q.Limit+1)...)
	if err != nil {
		return list, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		a, err := scan(rows)
		if err != nil {
			return list, err
		}
		list.Items = append(list.Items, a)
	}
	if len(list.Items) > q.Limit {
		list.Items = list.Items[:q.Limit]
		list.Next = strconv.FormatInt(list.Items[q.Limit-1].ID, 10)
	}
	return list, store.Classify(rows.Err())
}

// Get returns an alert.
func (b *Book) Get(ctx context.Context, id int64) (apitype.Alert, error) {
	a, err := scan(b.DB.Read().QueryRowContext(ctx, `SELECT `+columns+` FROM alerts WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return a, apitype.Refuse(http.StatusNotFound, "", "there is no alert %d", id)
	}
	return a, err
}

// Acknowledge notes that somebody knows of an alert; it stays open as long as its
// condition lasts. Who does so last counts.
func (b *Book) Acknowledge(ctx context.Context, id int64, by, note string) (apitype.Alert, error) {
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE alerts SET acked = ?, acked_by = ?, note = ? WHERE id = ?`, store.Millis(b.Clock.Now()), by, note, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, apitype.Refuse(http.StatusNotFound, "", "there is no alert %d", id))
		}
		return nil
	})
	if err != nil {
		return apitype.Alert{}, err
	}
	return b.Get(ctx, id)
}
