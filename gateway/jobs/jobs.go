// Package jobs is what takes longer than a request: each job is a row in config.db
// with its state, how far it is and what has come of it, which people can look at,
// wait for and take back. Some are run here, a few at a time; others, such as
// commands to nodes, are driven from outside, and only kept here.
//
// A job outlives the process. One that waited still waits; one that ran here is run
// again where its kind says that this makes sense, and is interrupted otherwise; one
// that is driven from outside is for whoever drives it.
package jobs

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/changes"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// Bounds of what is kept.
const (
	maxUnfinished = 1000     // of all kinds
	keepUsually   = 200      // that have ended, of a kind
	maxResult     = 64 << 10 // octets of JSON
	maxMessage    = 1024
	bigResult     = 1 << 10 // those above share
	maxResults    = 8 << 20 // octets
	maxFile       = 2 << 20
	maxFiles      = 16 << 20
)

// Kind is one kind of job.
type Kind struct {
	Name string
	// Run does it. Its context ends when the job is taken back and when the process
	// ends. nil: it is driven from outside, by Begin, Progress and Finish.
	Run func(context.Context, *Task) (Outcome, error)
	// Workers is how many are run at the same time; 0: one.
	Workers int
	// Resume has one that was cut by the end of the process run once more.
	Resume bool
	// Cancel takes back one that is driven from outside.
	Cancel func(context.Context, apitype.Job) error
	// Scope is needed to ask for one and to take it back.
	Scope string
	// Most is how many may be unfinished; 0: no bound of its own.
	Most int
	// Keep is how many that have ended are kept; 0: some.
	Keep int
}

// Outcome is what has come of a job.
type Outcome struct {
	Value    any // made JSON
	File     []byte
	FileType string
}

// Config is what New needs.
type Config struct {
	DB    *store.DB
	Clock *clock.Clock
	Epoch func() uint64
	Boot  uint64
	Files string // directory of what jobs make
	Log   *slog.Logger
	Kinds []Kind
}

// Engine may be used from any goroutine. Run has to be running for jobs to be run.
type Engine struct {
	Config
	kinds map[string]Kind
	news  *changes.Log[string]

	mu     sync.Mutex // guards what follows
	live   map[int64]*live
	queues map[string][]int64 // of kinds that are run here, oldest first
	wake   map[string]chan struct{}
}

// live is a job that has not ended, beyond its row.
type live struct {
	apitype.Job
	origin Origin
	cancel context.CancelCauseFunc // of one that is run here and now
}

// Origin says when a job was made, beyond what clocks say.
type Origin struct {
	Epoch uint64
	Boot  uint64
}

// New opens the jobs. Those that the last process left running are settled.
func New(ctx context.Context, c Config) (*Engine, error) {
	e := &Engine{Config: c, kinds: map[string]Kind{}, live: map[int64]*live{}, queues: map[string][]int64{}, wake: map[string]chan struct{}{}, news: changes.New[string](2 * maxUnfinished)}
	for _, k := range c.Kinds {
		e.kinds[k.Name] = k
		e.wake[k.Name] = make(chan struct{}, 1)
	}
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	if err := e.sweepFiles(ctx); err != nil {
		c.Log.Warn("files of jobs that are not kept any more stay", "err", err)
	}
	return e, nil
}

// load finds what has not ended.
func (e *Engine) load(ctx context.Context) error {
	rows, err := e.DB.Read().QueryContext(ctx, `SELECT `+columns+`, epoch, boot FROM jobs WHERE ended IS NULL ORDER BY id`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	var over []int64
	for rows.Next() {
		l := &live{}
		if l.Job, err = scan(rows, &l.origin.Epoch, &l.origin.Boot); err != nil {
			return err
		}
		k, known := e.kinds[l.Kind]
		switch {
		case !known || k.Run != nil && l.State == apitype.JobRunning && !k.Resume:
			over = append(over, l.ID)
			continue
		case k.Run != nil:
			l.State, l.Started = apitype.JobQueued, nil
			e.queues[l.Kind] = append(e.queues[l.Kind], l.ID)
		}
		e.live[l.ID] = l
	}
	if err := rows.Err(); err != nil {
		return store.Classify(err)
	}
	if len(over) == 0 {
		return nil
	}
	return e.DB.Write(ctx, func(tx *sql.Tx) error {
		for _, id := range over {
			if _, err := tx.ExecContext(ctx, `UPDATE jobs SET state = ?, ended = ?, message = 'the gateway ended meanwhile' WHERE id = ?`, apitype.JobInterrupted, store.Millis(e.Clock.Now()), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Unfinished returns the jobs of kinds that are driven from outside which have not
// ended, oldest first, for whoever drives them.
func (e *Engine) Unfinished() (list []apitype.Job, origins []Origin) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*live
	for _, l := range e.live {
		if e.kinds[l.Kind].Run == nil {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *live) int { return int(a.ID - b.ID) })
	for _, l := range all {
		list, origins = append(list, l.Job), append(origins, l.origin)
	}
	return list, origins
}

// Request is what is asked for.
type Request struct {
	Kind    string
	Node    string // canonical ID, or empty
	By      string
	Key     string // empty, or by which the same may be asked for again
	Body    any    // made JSON
	Expires *time.Time
	// Admit, if any, tells whether there may be another one now. It is not asked about one
	// that there is already.
	Admit func(context.Context) error
}

// Add makes a job. The same asked for once more under its key gives the job that there
// is, which again tells.
func (e *Engine) Add(ctx context.Context, r Request) (job apitype.Job, again bool, err error) {
	k, ok := e.kinds[r.Kind]
	if !ok {
		return job, false, fmt.Errorf("job: there is no kind %q", r.Kind)
	}
	body, err := json.Marshal(r.Body)
	if err != nil {
		return job, false, fmt.Errorf("job %s: %w", r.Kind, err)
	}
	if r.Key != "" {
		old, found, err := findKey(ctx, e.DB.Read(), r, body)
		if err != nil || found {
			return e.fresh(old), found, err
		}
	}
	if err := e.admit(k); err != nil {
		return job, false, err
	}
	if r.Admit != nil {
		if err := r.Admit(ctx); err != nil {
			return job, false, err
		}
	}
	now := e.Clock.Now()
	l := &live{origin: Origin{e.Epoch(), e.Boot}}
	l.Job = apitype.Job{Kind: r.Kind, Node: r.Node, By: r.By, State: apitype.JobQueued, Created: store.Time(store.Millis(now)), Expires: r.Expires, Request: body}
	key := sql.NullString{String: r.Key, Valid: r.Key != ""}
	err = e.DB.Write(ctx, func(tx *sql.Tx) error {
		if key.Valid { // it may have come meanwhile
			old, found, err := findKey(ctx, tx, r, body)
			if err != nil || found {
				job, again = old, found
				return err
			}
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO jobs (epoch, boot, kind, node, by, key, request, state, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			int64(l.origin.Epoch), int64(l.origin.Boot), r.Kind, r.Node, r.By, key, string(body), l.State, store.Millis(now), store.MillisPtr(r.Expires))
		if err != nil {
			return err
		}
		l.ID, err = res.LastInsertId()
		return err
	})
	if err != nil || again {
		return job, again, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[l.ID] = l
	if k.Run != nil {
		e.queues[k.Name] = append(e.queues[k.Name], l.ID)
		poke(e.wake[k.Name])
	}
	e.change(l.ID)
	return l.Job, false, nil
}

// admit tells whether there is room for another.
func (e *Engine) admit(k Kind) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	same := 0
	for _, l := range e.live {
		if l.Kind == k.Name {
			same++
		}
	}
	if len(e.live) >= maxUnfinished || k.Most > 0 && same >= k.Most {
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%d jobs of this kind and %d of all have not ended yet; take some back, or wait", same, len(e.live)).After(30 * time.Second)
	}
	return nil
}

// findKey finds the job that was asked for under a key.
func findKey(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, r Request, body []byte) (apitype.Job, bool, error) {
	old, err := scan(q.QueryRowContext(ctx, `SELECT `+columns+` FROM jobs WHERE by = ? AND key = ?`, r.By, r.Key))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return old, false, nil
	case err != nil:
		return old, false, err
	case old.Kind != r.Kind || old.Node != r.Node || !bytes.Equal(old.Request, body):
		return old, false, apitype.Refuse(http.StatusUnprocessableEntity, apitype.ProblemKeyReused, "Idempotency-Key: it came before, with another request, which is job %d; take another key", old.ID)
	}
	return old, true, nil
}

// Run runs jobs until ctx ends, and waits for them.
func (e *Engine) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, k := range e.kinds {
		if k.Run == nil {
			continue
		}
		poke(e.wake[k.Name])
		for range max(k.Workers, 1) {
			g.Go(func() error { return e.work(ctx, k) })
		}
	}
	return g.Wait()
}

// work runs jobs of a kind, one after the other. An error means that config.db is
// damaged.
func (e *Engine) work(ctx context.Context, k Kind) error {
	for {
		l := e.take(k.Name)
		if l == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-e.wake[k.Name]:
			}
			continue
		}
		if ctx.Err() != nil {
			return nil // it waits for the next process
		}
		if err := e.run(ctx, k, l); errors.Is(err, store.ErrCorrupt) {
			return err
		}
	}
}

// take returns the next job of a kind.
func (e *Engine) take(kind string) *live {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.queues[kind]) > 0 {
		id := e.queues[kind][0]
		e.queues[kind] = e.queues[kind][1:]
		if len(e.queues[kind]) > 0 {
			poke(e.wake[kind]) // for another worker
		}
		if l := e.live[id]; l != nil {
			return l
		}
	}
	return nil
}

var errCancelled = errors.New("it was taken back")

// run runs one job and settles it.
func (e *Engine) run(ctx context.Context, k Kind, l *live) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.mu.Lock()
	l.cancel = cancel
	if l.Cancelled {
		cancel(errCancelled)
	}
	e.mu.Unlock()
	if err := e.Begin(ctx, l.ID); err != nil {
		e.Log.Error("that a job was begun cannot be stored", "job", l.ID, "err", err)
	}
	out, err := k.Run(inner, &Task{Job: l.Job, Origin: l.origin, engine: e})
	if ctx.Err() != nil && err != nil {
		return nil // the process ends: the next one decides
	}
	end := End{State: apitype.JobDone, Outcome: out}
	refusal, refused := errors.AsType[*Refusal](err)
	switch {
	case err == nil:
	case errors.Is(context.Cause(inner), errCancelled):
		end = End{State: apitype.JobCancelled, Message: errCancelled.Error()}
	case refused:
		end = End{State: refusal.State, Code: refusal.Code, Message: refusal.Text}
	default:
		end = End{State: apitype.JobFailed, Message: err.Error()}
	}
	for said := false; ; said = true {
		err := e.Finish(context.WithoutCancel(ctx), l.ID, end)
		if err == nil || errors.Is(err, ErrOver) { // it was taken back just before it began
			return nil
		}
		if !said {
			e.Log.Error("how a job ended cannot be stored", "job", l.ID, "err", err)
		}
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		select { // until the card takes it: the next job could not be stored either
		case <-ctx.Done():
			return nil
		case <-time.After(againAfter):
		}
	}
}

// againAfter is how long the end of a job waits for a database that takes nothing.
const againAfter = 3 * time.Second

// Refusal is an error of a job that says more than that it failed.
type Refusal struct {
	State string // apitype.JobFailed or JobRefused
	Code  string
	Text  string
}

// Error returns code and text.
func (r *Refusal) Error() string { return r.Code + ": " + r.Text }

// Task is a job that is run.
type Task struct {
	apitype.Job
	Origin Origin
	engine *Engine
}

// Progress tells how far it is.
func (t *Task) Progress(percent int, text string) { t.engine.Progress(t.ID, percent, text) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a look is due already
	}
}

// change tells whoever waits.
func (e *Engine) change(id int64) { e.news.Note(strconv.FormatInt(id, 10)) }

// News tells in which order jobs changed, by their numbers.
func (e *Engine) News() *changes.Log[string] { return e.news }
