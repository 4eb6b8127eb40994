// Package archive keeps the history of the network's picture on the card: the frames
// that package topology writes, in an SQLite database of their own, topology.db.
//
// Frames are appended to RAM, and committed together every five minutes: a power cut
// costs so much of the history, and the card is written 300 times a day. SQLite, and not
// files of our own, since a history is found by time, since gateway/store knows how a
// database lives through power cuts, full disks and damage, and since a log written twice
// (to the journal and to its place) is some 10 MB a day at worst. A database of its own,
// since it is large and the first thing to do without: what becomes of it does not touch
// config.db, and it is not copied. Beyond the budget the oldest frames go.
package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
)

const (
	// Budget is how large the database becomes: nine days of a network of 250 nodes that
	// never rests, months of one that does.
	Budget = 64 << 20

	commitEvery = 5 * time.Minute
	lookEvery   = 15 * time.Second
	mostPending = 128 << 10 // octets; more is committed at once
	mostHeld    = 1 << 20   // octets; beyond, while the card takes nothing, the oldest are lost
	rowOctets   = 48        // what a frame takes besides its own

	dropRows = 64 // at a time
	version  = 1  // of the tables
)

const tables = `
CREATE TABLE frames (
    id   INTEGER PRIMARY KEY, -- in the order of appending
    at   INTEGER NOT NULL,    -- Unix ms, by the clock of then
    kind INTEGER NOT NULL,    -- topology.FrameKind
    body BLOB    NOT NULL
);
CREATE INDEX frames_at ON frames (at);
`

var kind = store.Kind{Cache: 256, Alone: true}

// Config is what Open needs.
type Config struct {
	Path   string
	Budget int64 // octets; 0: Budget
	// Repaired is told when the database was damaged, and how many frames were saved of
	// it; State, with nil or an error, when it begins or ceases to take what is written.
	// Later is told where a later release has made the database, of that version: it stays as
	// it is, and another one beside it is used. Each may be nil.
	Repaired func(r store.Repair, saved int)
	State    func(error)
	Later    func(version int)
}

// Archive is a topology.Store. Run has to be running for what is appended to reach the
// card. Its methods may be called from any goroutine.
type Archive struct {
	Config
	now  func() time.Time
	wake chan struct{}

	flushing sync.Mutex   // one at a time
	using    sync.RWMutex // held by who uses the database, and alone by who replaces it
	db       *store.DB    // nil while it cannot be opened
	shut     bool

	mu      sync.Mutex // guards what follows
	pending []numbered
	octets  int   // of them
	next    int64 // number of the next frame
	since   time.Time
	spoilt  bool // reading has found damage
	failing error
}

var _ topology.Store = (*Archive)(nil)

// numbered is a frame with its number, by which frames are in order.
type numbered struct {
	id int64
	topology.Frame
}

// Open opens the archive. A damaged one is set aside, and a new one has what could be
// read of it.
func Open(ctx context.Context, c Config) (*Archive, error) {
	if c.Budget == 0 {
		c.Budget = Budget
	}
	a := &Archive{Config: c, now: time.Now, wake: make(chan struct{}, 1)}
	err := a.reopen(ctx)
	if later, ok := errors.AsType[*laterError](err); ok {
		a.Path = store.Beside(a.Path, version)
		if err = a.reopen(ctx); err == nil && c.Later != nil {
			c.Later(later.version)
		}
	}
	if errors.Is(err, store.ErrCorrupt) {
		err = a.replace(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// reopen opens the database where a repair has failed.
func (a *Archive) reopen(ctx context.Context) error {
	a.using.Lock()
	defer a.using.Unlock()
	if a.db != nil || a.shut {
		return nil
	}
	db, next, err := open(ctx, a.Path)
	if err != nil {
		return err
	}
	a.db = db
	a.mu.Lock()
	defer a.mu.Unlock()
	a.renumber(next)
	return nil
}

// renumber has what is pending follow on what is in the database; mu is held.
func (a *Archive) renumber(next int64) {
	if len(a.pending) > 0 && a.pending[0].id >= next {
		return
	}
	for i := range a.pending {
		a.pending[i].id = next + int64(i)
	}
	a.next = max(a.next, next+int64(len(a.pending)))
}

// open opens the database, or begins one, and returns the number of the next frame. Not
// all of it is read at each start: what is damaged in it shows when it is used.
func open(ctx context.Context, path string) (*store.DB, int64, error) {
	db, err := store.OpenAsIs(ctx, path, kind)
	if err != nil {
		return nil, 0, err
	}
	next, err := prepare(ctx, db)
	if err != nil {
		return nil, 0, errors.Join(err, db.Close())
	}
	return db, next, nil
}

func prepare(ctx context.Context, db *store.DB) (next int64, err error) {
	var is, twice int64
	var objects int
	if err := db.Read().QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id), count(*) FROM sqlite_schema`).Scan(&is, &twice, &objects); err != nil {
		return 0, store.Classify(err)
	}
	switch {
	case is == version:
	case is == 0 && objects == 0:
		if err := db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, tables+store.Form(version))
			return err
		}); err != nil {
			return 0, err
		}
	case store.IsLater(is, twice, version):
		return 0, &laterError{int(is)}
	default:
		return 0, fmt.Errorf("%w: expected version %d of the tables, got %d", store.ErrCorrupt, version, is)
	}
	return nextOf(ctx, db)
}

// laterError is of a database that a later release has made.
type laterError struct{ version int }

func (e *laterError) Error() string {
	return fmt.Sprintf("expected version %d of the tables, got %d", version, e.version)
}

func (e *laterError) Unwrap() error { return store.ErrNewer }

// nextOf returns the number of the next frame.
func nextOf(ctx context.Context, db *store.DB) (next int64, err error) {
	err = db.Read().QueryRowContext(ctx, `SELECT coalesce(max(id), 0) + 1 FROM frames`).Scan(&next)
	if err = store.Classify(err); err != nil && !errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", store.ErrCorrupt, err) // its tables are others
	}
	return next, err
}

// Close commits what is pending, and closes the database.
func (a *Archive) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lookEvery)
	defer cancel()
	err := a.Flush(ctx)
	a.using.Lock()
	defer a.using.Unlock()
	a.shut = true
	if a.db != nil {
		err = errors.Join(err, a.db.Close())
		a.db = nil
	}
	return err
}

// Append adds a frame, which is on the card some minutes later. It never fails: while the
// card takes nothing, the oldest frames are lost beyond a bound.
func (a *Archive) Append(at time.Time, kind topology.FrameKind, data []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) == 0 {
		a.since = a.now()
	}
	a.pending, a.octets = append(a.pending, numbered{a.next, topology.Frame{At: at, Kind: kind, Data: data}}), a.octets+len(data)+rowOctets
	a.next++
	for a.octets > mostHeld && len(a.pending) > 1 {
		a.forget(1)
	}
	if a.octets > mostPending {
		a.look()
	}
	return nil
}

// forget drops the first of what is pending; mu is held.
func (a *Archive) forget(n int) {
	for _, f := range a.pending[:n] {
		a.octets -= len(f.Data) + rowOctets
	}
	a.pending = append([]numbered(nil), a.pending[n:]...)
}

// Run commits what is due until ctx ends. Close commits the rest.
func (a *Archive) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-tick.C:
		}
		if a.due() {
			_ = a.Flush(ctx) // State tells of it
		}
	}
}

func (a *Archive) due() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spoilt || len(a.pending) > 0 && (a.now().Sub(a.since) >= commitEvery || a.octets > mostPending)
}

// Flush commits what is pending. What the card does not take stays pending.
func (a *Archive) Flush(ctx context.Context) error {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	err := a.reopen(ctx)
	if err == nil {
		err = a.flush(ctx)
	}
	if errors.Is(err, store.ErrFull) && a.drop(ctx) == nil { // the oldest make room in the file
		err = a.flush(ctx)
	}
	a.mu.Lock()
	spoilt := a.spoilt
	a.mu.Unlock()
	if spoilt || errors.Is(err, store.ErrCorrupt) {
		if err = a.replace(ctx, err); err == nil {
			err = a.flush(ctx)
		}
	}
	if err == nil {
		err = a.trim(ctx)
	}
	if ctx.Err() == nil {
		a.tell(err)
	}
	return err
}

func (a *Archive) tell(err error) {
	a.mu.Lock()
	changed := (err == nil) != (a.failing == nil)
	a.failing = err
	a.mu.Unlock()
	if changed && a.State != nil {
		a.State(err)
	}
}

func (a *Archive) flush(ctx context.Context) error {
	a.mu.Lock()
	batch := a.pending
	a.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := a.use(func(db *store.DB) error {
		return db.Write(ctx, func(tx *sql.Tx) error { return insert(ctx, tx, batch, "ABORT") })
	}); err != nil {
		if store.Unfit(err) { // a number that is there already, and was not found
			err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.pending) && a.pending[n].id <= batch[len(batch)-1].id { // some may be lost since
		n++
	}
	a.forget(n)
	a.since = a.now()
	return nil
}

// insert adds frames. otherwise says what becomes of one whose number is there.
func insert(ctx context.Context, tx *sql.Tx, frames []numbered, otherwise string) error {
	for _, f := range frames {
		if _, err := tx.ExecContext(ctx, `INSERT OR `+otherwise+` INTO frames (id, at, kind, body) VALUES (?, ?, ?, ?)`, f.id, f.At.UnixMilli(), int(f.Kind), append([]byte{}, f.Data...)); err != nil {
			return err
		}
	}
	return nil
}

// trim drops the oldest frames beyond the budget.
func (a *Archive) trim(ctx context.Context) error {
	for range 256 {
		var n int64
		err := a.use(func(db *store.DB) (err error) {
			n, err = db.Bytes(ctx)
			return err
		})
		if err != nil || n <= a.Budget {
			return err
		}
		if err := a.drop(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) drop(ctx context.Context) error {
	return a.use(func(db *store.DB) error {
		return db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM frames WHERE id IN (SELECT id FROM frames ORDER BY id LIMIT ?)`, dropRows)
			return err
		})
	})
}

// use hands the database out while it is there.
func (a *Archive) use(f func(*store.DB) error) error {
	a.using.RLock()
	defer a.using.RUnlock()
	if a.db == nil {
		return fmt.Errorf("history: %w: its database is closed", store.ErrUnavailable)
	}
	return f(a.db)
}

// Range returns the frames of a time in the order in which they were appended.
func (a *Archive) Range(from, to time.Time) iter.Seq2[topology.Frame, error] {
	return func(yield func(topology.Frame, error) bool) {
		a.mu.Lock()
		pending, before := append([]numbered(nil), a.pending...), a.next
		a.mu.Unlock()
		if len(pending) > 0 {
			before = pending[0].id // what is committed meanwhile is not read twice
		}
		more := true
		if err := a.committed(before, from, to, func(f topology.Frame) bool { more = yield(f, nil); return more }); err != nil {
			a.found(err)
			yield(topology.Frame{}, err)
			return
		}
		for _, f := range pending {
			if !more {
				return
			}
			if !f.At.Before(from) && !f.At.After(to) {
				more = yield(f.Frame, nil)
			}
		}
	}
}

// committed reads frames with a number below before, until take says that it has enough.
func (a *Archive) committed(before int64, from, to time.Time, take func(topology.Frame) bool) error {
	return a.use(func(db *store.DB) error {
		rows, err := db.Read().Query(`SELECT at, kind, body FROM frames WHERE at BETWEEN ? AND ? AND id < ? ORDER BY id`, from.UnixMilli(), to.UnixMilli(), before)
		if err != nil {
			return store.Classify(err)
		}
		defer rows.Close()
		for rows.Next() {
			f, err := frameOf(rows)
			if err != nil {
				return err
			}
			if !take(f) {
				return nil
			}
		}
		return store.Classify(rows.Err())
	})
}

// found notes what reading has found, so that Run repairs it.
func (a *Archive) found(err error) {
	if !errors.Is(err, store.ErrCorrupt) {
		return
	}
	a.mu.Lock()
	a.spoilt = true
	a.mu.Unlock()
	a.look()
}

// look has Run look at once.
func (a *Archive) look() {
	select {
	case a.wake <- struct{}{}:
	default: // it is about to
	}
}

func frameOf(rows *sql.Rows) (f topology.Frame, err error) {
	var at int64
	if err := rows.Scan(&at, &f.Kind, &f.Data); err != nil {
		return f, fmt.Errorf("%w: a frame of the history: %w", store.ErrCorrupt, err)
	}
	f.At = store.Time(at)
	return f, nil
}
