package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"halo.internal/gateway/store"
	"halo.internal/model/atomicfile"
	"halo.internal/model/wire"
)

// unfinished is the end of the name of a file that is about to take a week's place.
const unfinished = ".new"

const (
	maxOpen      = 8 // week files at a time
	weekVersion  = 2 // of the tables, and of the blocks in them
	weekPage     = 1 << 10
	weekCache    = 256 // KiB of each of a file's connections
	nodeSeries   = maxMetrics
	weekIDsLimit = 1 << 24
)

// The tables of a week. Blocks are rows in the order in which they were written, found by
// an index: kept in the order of their key they would fill pages by two thirds only.
// Pages are small since a block is some KiB: SQLite has a row that fits into a page there as
// a whole, and what the others leave of it empty, but of one that does not all pages are full
// save for the first, which it shares. Whatever a flipped bit could change carries a
// checksum, as blocks do.
const weekTables = `
CREATE TABLE meta (
    journal BLOB    NOT NULL, -- whose groups are in here,
    applied INTEGER NOT NULL, -- up to that one
    minute  INTEGER NOT NULL, -- before this, Unix ms, minutes may have taken the place of readings,
    quarter INTEGER NOT NULL, -- before this, there are quarters of an hour at best,
    hour    INTEGER NOT NULL, -- before this, hours
    sum     INTEGER NOT NULL
);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, node TEXT NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE series (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, scale INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE blocks (
    id    INTEGER PRIMARY KEY,
    node  INTEGER NOT NULL,
    width INTEGER NOT NULL, -- minutes of a bucket; 0: readings
    start INTEGER NOT NULL, -- hour since 1970
    body  BLOB    NOT NULL
);
CREATE UNIQUE INDEX blocks_key ON blocks (node, width, start);
CREATE TABLE marks (
    node    INTEGER NOT NULL,
    at      INTEGER NOT NULL, -- Unix ms
    kind    TEXT    NOT NULL,
    boot    INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    through INTEGER NOT NULL,
    until   INTEGER NOT NULL, -- Unix ms
    detail  TEXT    NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (node, at, kind, boot, seq)
) WITHOUT ROWID;
CREATE TABLE stale (node INTEGER NOT NULL, day INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (node, day)) WITHOUT ROWID; -- rollups to be made
`

var weekKind = store.Kind{Rollback: true, PageSize: weekPage, Cache: weekCache}

// weeks is the files there are, some of them open.
type weeks struct {
	dir string

	mu    sync.Mutex // guards what follows
	known map[week]bool
	later map[week]int  // version of the file that a later release has made of a week
	alone map[week]bool // there is only one beside that
	open  map[week]*weekFile
	turn  int64
	whole map[week]bool // all of the file was checked, by this process
}

// nodeDay is a day of a node in a week file.
type nodeDay struct{ node, day int64 }

// weekFile is an open file. Who reads holds its lock shared, and for no longer than a
// read takes; who changes it holds it alone, and Store.tending.
type weekFile struct {
	week week
	db   *store.DB

	refs    int         // of acquire; guarded by weeks.mu
	turn    int64       // of the last acquire; likewise
	retired atomic.Bool // not in weeks.open any more

	lock    sync.RWMutex // guards the file's content and what follows: what its small tables hold
	journal string
	applied int64
	from    thinned
	nodes   map[string]int64
	series  map[int]wire.Metric
	numbers map[wire.Metric]int
	brought map[int64]int // series, by the node that came with them first

	nextNode   int64 // numbers that are free
	nextSeries int
	stale      map[nodeDay]bool
	fresh      bool // this process has begun it
}

// thinned says before when (Unix milliseconds) what is not kept any more.
type thinned struct{ minute, quarter, hour int64 }

// find reads which files there are.
func (w *weeks) find(dir string) error {
	w.dir, w.known, w.open = dir, map[week]bool{}, map[week]*weekFile{}
	w.later, w.alone, w.whole = map[week]int{}, map[week]bool{}, map[week]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if names, err = finishRepairs(dir, names); err != nil {
		return err
	}
	beside := map[week]bool{}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if n, ok := weekNamed(name); ok {
			version, err := store.LaterVersion(path, weekVersion)
			if err == nil && version > 0 {
				w.later[n] = version
			} else {
				w.known[n] = true // whoever opens it finds what is wrong with it
			}
		} else if n, ok := besideNamed(name); ok {
			beside[n] = true
		} else if strings.Contains(name, unfinished) { // a power cut while it was written
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for n := range beside {
		if !w.known[n] {
			w.known[n], w.alone[n] = true, true
		}
	}
	return nil
}

// finishRepairs puts into place what has what could be saved of a damaged week, where a power
// cut came after that was set aside: it is whole by then, and the only one. It returns the
// names that there are.
func finishRepairs(dir string, names []string) ([]string, error) {
	for i, name := range names {
		to, ok := strings.CutSuffix(name, unfinished)
		if !ok || slices.Contains(names, to) || !slices.Contains(names, to+store.Damaged) || slices.Contains(names, name+"-journal") {
			continue
		}
		if err := atomicfile.Rename(filepath.Join(dir, name), filepath.Join(dir, to)); err != nil {
			return nil, err
		}
		names[i] = to
	}
	return names, nil
}

// path returns where a week's file is, or will be: beside what a later release has made of
// it.
func (w *weeks) path(n week) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at(n)
}

// at is path for who holds w.mu.
func (w *weeks) at(n week) string {
	path := filepath.Join(w.dir, n.String()+weekSuffix)
	if w.later[n] > 0 || w.alone[n] {
		return store.Beside(path, weekVersion)
	}
	return path
}

// ofLater returns the weeks of which a later release has made files, oldest first.
func (w *weeks) ofLater() []week {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.later))
}

// removeLater removes what a later release has made of a week: for its age, or for room.
func (w *weeks) removeLater(n week) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.later[n] == 0 {
		return nil
	}
	if err := store.Remove(filepath.Join(w.dir, n.String()+weekSuffix)); err != nil {
		return err
	}
	delete(w.later, n)
	w.alone[n] = w.known[n] // it stays where it is
	return nil
}

// list returns the weeks of which there are files, oldest first.
func (w *weeks) list() []week {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]week, 0, len(w.known))
	for n := range w.known {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// acquire opens the file of a week, or begins one where create is true; else its error
// wraps fs.ErrNotExist. release has to be called after.
func (w *weeks) acquire(ctx context.Context, n week, create bool) (*weekFile, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn++
	if f := w.open[n]; f != nil {
		f.refs, f.turn = f.refs+1, w.turn
		return f, nil
	}
	if !w.known[n] && !create {
		return nil, fmt.Errorf("%v: %w", n, fs.ErrNotExist)
	}
	if err := w.evict(maxOpen - 1); err != nil {
		return nil, err
	}
	f, err := openWeek(ctx, w.at(n), n, create)
	if errors.Is(err, store.ErrNewer) && w.later[n] == 0 && !w.alone[n] { // find could not read it
		w.later[n] = weekVersion + 1 // or one after that
		delete(w.known, n)
		f, err = openWeek(ctx, w.at(n), n, create)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", n, err)
	}
	f.refs, f.turn = 1, w.turn
	w.open[n], w.known[n] = f, true
	if f.fresh {
		w.whole[n] = true
	}
	return f, nil
}

// check reads all of a week's file, unless this process has done so or has begun it.
func (w *weeks) check(ctx context.Context, f *weekFile) error {
	w.mu.Lock()
	whole := w.whole[f.week]
	w.mu.Unlock()
	if whole {
		return nil
	}
	if err := f.db.Check(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole[f.week] = true
	return nil
}

// evict closes files that nobody uses until so many are open at most, if it can.
func (w *weeks) evict(most int) error {
	for len(w.open) > most {
		var oldest *weekFile
		for _, f := range w.open {
			if f.refs == 0 && (oldest == nil || f.turn < oldest.turn) {
				oldest = f
			}
		}
		if oldest == nil {
			return nil
		}
		delete(w.open, oldest.week)
		if err := oldest.db.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (w *weeks) release(f *weekFile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.refs--; f.refs == 0 && f.retired.Load() {
		_ = f.db.Close() // it was read only since its content is not what the file holds
	}
}

// retire has the next acquire open the file anew.
func (w *weeks) retire(f *weekFile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[f.week] == f {
		delete(w.open, f.week)
	}
	f.retired.Store(true)
}

// replace closes the file of a week, waits for those who use it, and has change do what it
// wants with it; gone says that there is none after.
func (w *weeks) replace(n week, gone bool, change func(path string) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.open[n]; f != nil {
		f.lock.Lock() // whoever has it acquired and comes later finds it closed, and says so
		delete(w.open, n)
		f.retired.Store(true)
		err := f.db.Close()
		f.lock.Unlock()
		if err != nil {
			return err
		}
	}
	delete(w.whole, n)
	if err := change(w.at(n)); err != nil {
		return err
	}
	if gone {
		delete(w.known, n)
		delete(w.alone, n)
	}
	return nil
}

func (w *weeks) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for n, f := range w.open {
		delete(w.open, n)
		errs = append(errs, f.db.Close())
	}
	return errors.Join(errs...)
}

func openWeek(ctx context.Context, path string, n week, create bool) (*weekFile, error) {
	info, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err == nil && info.Size() == 0 {
		fresh = true // a power cut at its beginning
	}
	if fresh && !create {
		return nil, fs.ErrNotExist
	}
	db, err := store.OpenAsIs(ctx, path, weekKind)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := db.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, weekTables+store.Form(weekVersion)); err != nil {
				return err
			}
			return putMeta(ctx, tx, "", 0, thinned{})
		}); err != nil {
			return nil, errors.Join(err, db.Close(), store.Remove(path))
		}
	}
	f := &weekFile{week: n, db: db, fresh: fresh}
	if err := f.load(ctx); err != nil {
		return nil, errors.Join(store.Classify(err), db.Close())
	}
	return f, nil
}

// load reads the small tables.
func (f *weekFile) load(ctx context.Context) error {
	f.reset()
	for _, part := range f.parts() {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *weekFile) reset() {
	f.nodes, f.series, f.numbers, f.brought, f.stale = map[string]int64{}, map[int]wire.Metric{}, map[wire.Metric]int{}, map[int64]int{}, map[nodeDay]bool{}
	f.nextNode, f.nextSeries = 1, 0
}

func (f *weekFile) parts() []func(context.Context) error {
	return []func(context.Context) error{f.loadMeta, f.loadNodes, f.loadSeries, f.loadStale}
}

func (f *weekFile) loadMeta(ctx context.Context) error {
	var version, twice int64
	var journal []byte
	if err := f.db.Read().QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id)`).Scan(&version, &twice); err != nil {
		return err
	}
	if version != weekVersion {
		wrong := store.ErrCorrupt
		if store.IsLater(version, twice, weekVersion) {
			wrong = store.ErrNewer
		}
		return fmt.Errorf("%w: expected version %d of its tables, got %d", wrong, weekVersion, version)
	}
	var applied, sum int64
	var from thinned
	err := f.db.Read().QueryRowContext(ctx, `SELECT journal, applied, minute, quarter, hour, sum FROM meta`).Scan(&journal, &applied, &from.minute, &from.quarter, &from.hour, &sum)
	if errors.Is(err, sql.ErrNoRows) || err == nil && sum != metaSum(string(journal), applied, from) {
		return fmt.Errorf("%w: its table meta is empty or not what was written", store.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	f.journal, f.applied, f.from = string(journal), applied, from
	return nil
}

// putMeta writes what a file says of itself, in the place of what it said.
func putMeta(ctx context.Context, tx *sql.Tx, journal string, applied int64, from thinned) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM meta`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?)`, []byte(journal), applied, from.minute, from.quarter, from.hour, metaSum(journal, applied, from))
	return err
}

func metaSum(journal string, applied int64, from thinned) int64 {
	return int64(crc32.Checksum(fmt.Appendf(nil, "%x %d %d %d %d", journal, applied, from.minute, from.quarter, from.hour), castagnoli))
}

func (f *weekFile) loadNodes(ctx context.Context) error {
	return each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var id, sum int64
		var node string
		if err := take(rows, &id, &node, &sum); err != nil {
			return err
		}
		if sum == nodeSum(id, node) {
			f.nodes[node] = id
		}
		f.nextNode = max(f.nextNode, min(id, weekIDsLimit)+1)
		return nil
	}, `SELECT id, node, sum FROM nodes`)
}

func (f *weekFile) loadSeries(ctx context.Context) error {
	return each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var id, node, sum int64
		var m wire.Metric
		if err := take(rows, &id, &node, &m.Name, &m.Unit, &m.Scale, &sum); err != nil {
			return err
		}
		if sum == seriesSum(id, node, m) && id < weekIDsLimit && m.Name != "" {
			f.series[int(id)], f.numbers[m] = m, int(id)
			f.brought[node]++
		}
		f.nextSeries = max(f.nextSeries, int(min(id, weekIDsLimit))+1)
		return nil
	}, `SELECT id, node, name, unit, scale, sum FROM series`)
}

func (f *weekFile) loadStale(ctx context.Context) error {
	return each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var d nodeDay
		var sum int64
		if err := take(rows, &d.node, &d.day, &sum); err != nil {
			return err
		}
		if sum != d.sum() {
			return fmt.Errorf("%w: a day to be rolled up is not what was written", store.ErrCorrupt)
		}
		f.stale[d] = true
		return nil
	}, `SELECT node, day, sum FROM stale`)
}

func (d nodeDay) sum() int64 {
	return int64(crc32.Checksum(fmt.Appendf(nil, "%d %d", d.node, d.day), castagnoli))
}

// appliedOf returns up to which group of a journal all is in the file.
func (f *weekFile) appliedOf(journal []byte) int64 {
	if f.journal != string(journal) {
		return 0
	}
	return f.applied
}

// isFloat tells whether a series is of floats.
func (f *weekFile) isFloat(series int) bool { return f.series[series].Scale == wire.ScaleFloat }

// take scans a row of a week file; what is of another type than it was written as is
// damage.
func take(rows *sql.Rows, to ...any) error {
	if err := rows.Scan(to...); err != nil {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func nodeSum(id int64, node string) int64 {
	return int64(crc32.Checksum([]byte(strconv.FormatInt(id, 10)+" "+node), castagnoli))
}

func seriesSum(id, node int64, m wire.Metric) int64 {
	return int64(crc32.Checksum(fmt.Appendf(nil, "%d %d %s %q %d", id, node, m.Name, m.Unit, m.Scale), castagnoli))
}

// about is what a block says with its checksum that it is.
func about(node string, width int, start int64) string {
	return node + " " + strconv.Itoa(width) + " " + strconv.FormatInt(start, 10)
}
