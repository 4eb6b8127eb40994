// Package telemetry keeps what the nodes measure: a journal of their batches as they
// came, committed before they are acknowledged, whose newest part is also in RAM; and a
// file for each week, into which it is compacted every hour as compressed blocks, an hour
// of one node each, with rollups of 15 minutes and an hour for the days that are over.
// It is gentle to a card, bounded in octets and in age, thins what is finest and oldest
// first, and answers what was measured when.
package telemetry

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Sizes of the head by the Weight of its batches.
const (
	headLimit   = 8 << 20  // more is compacted at once
	mostHead    = 32 << 20 // more is not taken in: the nodes keep what they have until compaction succeeds
	backlogHead = 24 << 20 // nor of backlogs: the rest is for what is new
	headShare   = 4        // of what is left a node has one part in so many: 4.8 MiB of a backlog while nobody else sends one

	headWeeks = 16 // of a node: what is of more waits for the next hour's compaction

	headFirst = 16 << 10 // what a node may have in any case, of what is beyond: hundreds of nodes may

	// More of one node is compacted at once: three weeks of twelve metrics every ten seconds. So
	// whoever is refused waits for a compaction that is under way.
	nodeHead = (backlogHead - headLimit) / headShare
)

//go:embed journal/*.sql
var journalFiles embed.FS

// OpenJournal opens telemetry.db. A damaged one is set aside, and a new one has what can be
// read of it: of the rest, what the nodes still hold unacknowledged comes again. The week
// files stay.
func OpenJournal(ctx context.Context, path string) (*store.DB, store.Repair, error) {
	migrations, err := fs.Sub(journalFiles, "journal")
	if err != nil {
		return nil, store.Repair{}, err
	}
	return store.Open(ctx, path, store.Kind{Migrations: migrations, Salvage: salvageJournal, Alone: true})
}

// Events takes what people should know.
type Events interface {
	Add(kind string, s model.Severity, node, message string, fields map[string]string)
}

// Config is what Open needs.
type Config struct {
	Journal   *store.DB        // from OpenJournal; closed by who opened it
	Dir       string           // of the week files
	Retention Retention        // at first; zero Keep: DefaultKeep
	Now       func() time.Time // the gateway's clock
	Aged      func() time.Time // by which readings are old, see clock.Clock; nil: Now
	Ahead     func() time.Time // by which they are of the future; nil: Now
	Sure      func() bool      // whether that is more than a guess: what is old or of the future is only judged then
	Events    Events
	Log       *slog.Logger
}

// Store is the telemetry of all nodes. Its methods may be called from any goroutine. Run
// has to be running for the journal to be compacted.
type Store struct {
	Config
	db        *store.DB
	name      []byte // of the journal
	latest    *Latest
	retention atomic.Pointer[Retention]
	weeks     weeks
	space     func() (size, free int64) // of the file system
	work      chan struct{}             // Run has something to do before its time

	// Locks are taken in this order.
	tending   sync.Mutex               // held by the one who compacts, rolls up or thins: guards week files' content, and what follows
	touched   map[week]bool            // whose days may have to be rolled up
	partly    map[week]bool            // whose files have a part of what a compaction could not finish
	stuck     tries                    // to write weeks, while others could be
	unthinned tries                    // to thin weeks
	far       map[string]map[week]bool // by node, see farOf; nil: not known
	untidy    time.Time                // when tidy failed, by ticks; zero: it did not
	removed   time.Time                // when a week went last for its stamps, by ticks

	laterGroups []int64          // of the journal, that a later release has written and that have to be renumbered; set by Open
	ticks       func() time.Time // of the process
	fetch       func(ctx context.Context, group int64) (body []byte, err error)
	mayRewrite  allowance // of each node

	spoiling  sync.Mutex // guards spoilt: what reading has found
	spoilt    map[week]error
	thinnings atomic.Int64
	commits   atomic.Int64 // of week files
	tended    atomic.Int64
	writing   sync.Mutex // held by the one who writes the journal: nobody else changes what follows

	mu         sync.RWMutex // guards what follows
	sources    map[string]*source
	byID       map[int64]*source
	schemas    map[wire.SchemaID]*schema
	lastSource int64
	lastGroup  int64
	compacted  int64 // the last group that the last compaction looked at: what of those is in the head waits for its week alone
	headBytes  int64 // by weight, as source.bytes
	headCount  int
	recent     recent
	given      given
	former     map[string][]string // whose place a node has taken
	present    map[string]string   // who has taken a former node's place
}

// Open reads the journal into RAM. What in it cannot be read is an event.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Retention.Keep == (Keep{}) {
		c.Retention.Keep = DefaultKeep()
	}
	if c.Aged == nil {
		c.Aged = c.Now
	}
	if c.Ahead == nil {
		c.Ahead = c.Now
	}
	s := &Store{
		Config: c, db: c.Journal, latest: newLatest(), work: make(chan struct{}, 1),
		space:   func() (int64, int64) { return space(c.Dir) },
		sources: map[string]*source{}, byID: map[int64]*source{}, schemas: map[wire.SchemaID]*schema{},
		former: map[string][]string{}, present: map[string]string{},
		touched: map[week]bool{}, partly: map[week]bool{}, stuck: tries{}, unthinned: tries{}, ticks: time.Now, mayRewrite: allowance{rewriteBurst, rewritePerSecond}, spoilt: map[week]error{}, recent: recent{news: make(chan struct{})},
	}
	s.fetch = s.readGroup
	s.retention.Store(&c.Retention)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.weeks.find(c.Dir); err != nil {
		return nil, err
	}
	if later := s.weeks.ofLater(); len(later) > 0 {
		first, last := later[0], later[len(later)-1]
		s.Events.Add("telemetry.newer", model.Warning, "", fmt.Sprintf("a later release has made the telemetry of %d weeks, from %v to %v: it stays as it is, and is there again with that release; what comes is kept beside it", len(later), first, last),
			map[string]string{"weeks": fmt.Sprint(len(later)), "from": first.String(), "to": last.String(), "version": fmt.Sprint(s.weeks.later[last])})
	}
	for i, list := 0, s.weeks.list(); i < min(3, len(list)); i++ { // where the last process may have left something
		s.touched[list[len(list)-1-i]] = true
	}
	bad, err := s.read(ctx)
	if err != nil {
		return nil, store.Classify(err)
	}
	if len(bad) > 0 {
		s.Events.Add("telemetry.unreadable", model.Warning, "", fmt.Sprintf("%d parts of the telemetry journal cannot be read: %v", len(bad), bad[0]), nil)
	}
	return s, nil
}

// Close closes the week files; the journal's owner closes it.
func (s *Store) Close() error { return s.weeks.close() }

// Latest returns the newest values.
func (s *Store) Latest() *Latest { return s.latest }

func (s *Store) now() time.Time { return s.Now().UTC() }

// wake has Run look what there is to do.
func (s *Store) wake() {
	select {
	case s.work <- struct{}{}:
	default: // it has not looked since the last time
	}
}

func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// read fills RAM from the journal, and returns what could not be read.
func (s *Store) read(ctx context.Context) (bad []error, err error) {
	if bad, err = s.readName(ctx); err != nil {
		return bad, err
	}
	for _, f := range []func(context.Context) ([]error, error){s.readSources, s.readSchemas, s.readGroups} {
		more, err := f(ctx)
		if bad = append(bad, more...); err != nil {
			return bad, err
		}
	}
	s.readLatest()
	return bad, nil
}

// each calls f for each row of a query.
func each(ctx context.Context, db *sql.DB, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readName reads which journal this is. One that is new, or that does not say so any more,
// gets another name: the files then have none of its groups, and take in all of them.
func (s *Store) readName(ctx context.Context) (bad []error, err error) {
	var sum int64
	err = s.db.Read().QueryRowContext(ctx, `SELECT name, compacted, sum FROM journal`).Scan(&s.name, &s.lastGroup, &sum)
	switch {
	case err == nil && sum == journalSum(s.name, s.lastGroup):
		s.compacted = s.lastGroup
		return nil, nil
	case err == nil:
		bad = append(bad, errors.New("its name does not fit its checksum"))
	case !errors.Is(err, sql.ErrNoRows):
		return nil, err
	}
	s.name, s.lastGroup = make([]byte, 16), 0
	rand.Read(s.name)
	return bad, s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM journal`); err != nil {
			return err
		}
		return putName(ctx, tx, s.name, 0)
	})
}

func putName(ctx context.Context, tx *sql.Tx, name []byte, compacted int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO journal VALUES (?, ?, ?)`, name, compacted, journalSum(name, compacted))
	return err
}

func journalSum(name []byte, compacted int64) int64 {
	return int64(crc32.Checksum(fmt.Appendf(nil, "%x %d", name, compacted), castagnoli))
}

func (s *Store) readSources(ctx context.Context) (bad []error, err error) {
	return bad, each(ctx, s.db.Read(), func(rows *sql.Rows) error {
		var id, sum int64
		var node string
		var came, latest []byte
		if err := rows.Scan(&id, &node, &sum, &came, &latest); err != nil {
			return err
		}
		s.lastSource = max(s.lastSource, id)
		if sum != nodeSum(id, node) {
			bad = append(bad, fmt.Errorf("source %d: it is not the node %.40q", id, node))
			return nil
		}
		src := newSource(id, node)
		if came != nil {
			if err := src.parseCame(came); err != nil {
				bad = append(bad, err)
			}
		}
		if latest != nil {
			if err := s.latest.restore(node, latest); err != nil {
				bad = append(bad, err)
			}
		}
		s.sources[node], s.byID[id] = src, src
		return nil
	}, `SELECT id, node, sum, came, latest FROM sources`)
}

func (s *Store) readSchemas(ctx context.Context) (bad []error, err error) {
	return bad, each(ctx, s.db.Read(), func(rows *sql.Rows) error {
		var id, body []byte
		var source, used int64
		if err := rows.Scan(&id, &source, &body, &used); err != nil {
			return err
		}
		decoded, err := wire.DecodeSchema(body)
		if err != nil || len(id) != len(wire.SchemaID{}) || decoded.ID() != wire.SchemaID(id) {
			bad = append(bad, fmt.Errorf("schema %x: %w", id, errors.Join(err, errors.New("it is another one than its name says"))))
			return nil
		}
		s.schemas[wire.SchemaID(id)] = &schema{Schema: decoded, id: wire.SchemaID(id), source: source, bytes: len(body) + schemaRow, used: used}
		return nil
	}, `SELECT id, source, body, used FROM schemas`)
}

func (s *Store) readGroups(ctx context.Context) (bad []error, err error) {
	return bad, each(ctx, s.db.Read(), func(rows *sql.Rows) error {
		var id int64
		var body []byte
		if err := rows.Scan(&id, &body); err != nil {
			return err
		}
		items, err := parseGroup(body)
		if err != nil {
			bad = append(bad, fmt.Errorf("group %d: %w", id, err))
		}
		if errors.Is(err, errLaterGroup) {
			if id >= s.lastGroup+farGroups/2 {
				return nil // it has been renumbered
			}
			s.laterGroups = append(s.laterGroups, id)
		}
		s.lastGroup = max(s.lastGroup, id)
		for _, it := range items {
			if err := s.replay(id, it); err != nil {
				bad = append(bad, fmt.Errorf("group %d: %w", id, err))
			}
		}
		return nil
	}, `SELECT id, body FROM groups ORDER BY id`)
}

// replay takes a batch of the journal into the head again.
func (s *Store) replay(group int64, it item) error {
	src := s.byID[it.source]
	if src == nil {
		return fmt.Errorf("source %d is not known", it.source)
	}
	p, err := wire.Open(it.data)
	if err != nil {
		return err
	}
	sch := s.schemas[p.Schema]
	if sch == nil {
		return fmt.Errorf("batch %v of %s: %w", p.BatchID, src.node, ErrNoSchema)
	}
	times, err := p.Times()
	if err != nil {
		return err
	}
	weight := Weight(len(it.data), len(times), len(sch.Metrics))
	s.add(src, &held{Header: p.Header, schema: sch, group: group, first: it.first, last: it.last, weight: weight, data: it.data})
	return nil
}

// readLatest brings the newest values, which are as of the last compaction, up to date
// with the head.
func (s *Store) readLatest() {
	for _, src := range s.sources {
		for _, h := range newestOf(src.head) {
			if b, err := h.decode(); err == nil { // one that is damaged is not the newest then
				s.latest.apply(src.node, h.schema.Schema, b)
			}
		}
	}
}

// rebuildDepth is how many batches of each node and schema are unpacked at start.
const rebuildDepth = 4

// newestOf returns the newest batches of each schema: others add nothing that is newer,
// unless a metric was missing in all of these.
func newestOf(head []*held) (newest []*held) {
	of := map[*schema][]*held{}
	for _, h := range head {
		list := append(of[h.schema], h)
		for i := len(list) - 1; i > 0 && (list[i-1].Boot > h.Boot || list[i-1].Boot == h.Boot && list[i-1].Seq > h.Seq); i-- {
			list[i-1], list[i] = list[i], list[i-1]
		}
		of[h.schema] = list[max(0, len(list)-rebuildDepth):]
	}
	for _, list := range of {
		newest = append(newest, list...)
	}
	return newest
}
