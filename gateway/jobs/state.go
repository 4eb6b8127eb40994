package jobs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

// Begin notes that a job runs.
func (e *Engine) Begin(ctx context.Context, id int64) error {
	now := e.Clock.Now()
	err := e.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE jobs SET state = ?, started = coalesce(started, ?) WHERE id = ? AND ended IS NULL`, apitype.JobRunning, store.Millis(now), id)
		return err
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.live[id]; l != nil {
		if l.State = apitype.JobRunning; l.Started == nil {
			t := store.Time(store.Millis(now))
			l.Started = &t
		}
		e.change(id)
	}
	return nil
}

// Progress tells how far a job is. It is not written down.
func (e *Engine) Progress(id int64, percent int, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.live[id]
	if l == nil {
		return
	}
	percent, text = min(max(percent, 0), 100), clip(text)
	if l.Progress != percent || l.Message != text {
		l.Progress, l.Message = percent, text
		e.change(id)
	}
}

// End is how a job has ended.
type End struct {
	State   string
	Code    string
	Message string
	Outcome
	// Late takes the place of an end that was only assumed: one with that code.
	Late []string
}

// ErrOver is returned where a job has ended already.
var ErrOver = errors.New("the job has ended")

// Finish notes how a job has ended, and makes room for it among those that have. Where the
// card has no room for its file, it has failed. An error that wraps store.ErrUnavailable
// says that it has not ended yet: it is to be told again.
func (e *Engine) Finish(ctx context.Context, id int64, end End) error {
	result, err := e.result(&end)
	if err != nil {
		return err
	}
	var gone []int64 // jobs that have no file any more
	if end.File != nil {
		if err := e.awaited(ctx, id, end.Late); err != nil {
			return err
		}
		if gone, err = e.putFile(id, end.File); errors.Is(err, syscall.ENOSPC) {
			end = end.without(err)
		} else if err != nil {
			return err
		}
	}
	dropped, err := e.settle(ctx, id, end, result, gone)
	if end.File != nil && errors.Is(err, store.ErrFull) {
		err = errors.Join(err, e.removeFile(id))
		end = end.without(err)
		dropped, err = e.settle(ctx, id, end, result, gone)
	}
	if err != nil {
		if end.File != nil {
			err = errors.Join(err, e.removeFile(id))
		}
		return err
	}
	for _, old := range dropped {
		if err := e.removeFile(old); err != nil {
			e.Log.Warn("a job's file stays", "job", old, "err", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.live, id)
	e.change(id)
	return nil
}

// without is how a job ends whose file cannot be kept.
func (end End) without(err error) End {
	return End{State: apitype.JobFailed, Message: fmt.Sprintf("the gateway's card has no room for its file of %d octets: %v", len(end.File), err), Late: end.Late}
}

// awaited tells whether an end of a job would be taken; ErrOver: it would not.
func (e *Engine) awaited(ctx context.Context, id int64, late []string) error {
	var over bool
	var code string
	err := e.DB.Read().QueryRowContext(ctx, `SELECT ended IS NOT NULL, code FROM jobs WHERE id = ?`, id).Scan(&over, &code)
	if errors.Is(err, sql.ErrNoRows) || err == nil && over && !slices.Contains(late, code) {
		return ErrOver
	}
	return store.Classify(err)
}

// settle writes down how a job has ended, and that others have no file any more; it returns
// whose files have to go.
func (e *Engine) settle(ctx context.Context, id int64, end End, result sql.NullString, gone []int64) (dropped []int64, err error) {
	var file sql.NullInt64
	if end.File != nil {
		file = sql.NullInt64{Int64: int64(len(end.File)), Valid: true}
	}
	err = e.DB.Write(ctx, func(tx *sql.Tx) error {
		now := store.Millis(e.Clock.Now())
		started := sql.NullInt64{Int64: now, Valid: end.State == apitype.JobDone || end.State == apitype.JobFailed && end.Code != model.CodeUnanswered} // what was quick has not said so
		args := []any{end.State, now, started, end.Code, clip(end.Message), result, file, end.FileType, id}
		or := ""
		for _, c := range end.Late {
			args = append(args, c)
			or += " OR code = ?"
		}
		res, err := tx.ExecContext(ctx, `UPDATE jobs SET state = ?, ended = ?, started = coalesce(started, ?), code = ?, message = ?, result = ?, file = ?, file_type = ? WHERE id = ? AND (ended IS NULL`+or+`)`, args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrOver)
		}
		for _, old := range gone {
			if _, err := tx.ExecContext(ctx, `UPDATE jobs SET file = NULL WHERE id = ?`, old); err != nil {
				return err
			}
		}
		dropped, err = e.trim(ctx, tx)
		return err
	})
	return dropped, err
}

// result makes JSON of what has come of a job. What is too much is a failure.
func (e *Engine) result(end *End) (sql.NullString, error) {
	if len(end.File) > maxFile {
		*end = End{State: apitype.JobFailed, Message: fmt.Sprintf("expected a file of at most %d octets, got %d", maxFile, len(end.File)), Late: end.Late}
	}
	if end.Value == nil {
		return sql.NullString{}, nil
	}
	b, err := json.Marshal(end.Value)
	if err != nil {
		return sql.NullString{}, fmt.Errorf("result of a job: %w", err)
	}
	if len(b) > maxResult {
		*end = End{State: apitype.JobFailed, Message: fmt.Sprintf("expected a result of at most %d octets, got %d", maxResult, len(b)), Late: end.Late}
		return sql.NullString{}, nil
	}
	return sql.NullString{String: string(b), Valid: true}, nil
}

// trim forgets the oldest of each kind, big results and files beyond what they may
// take together. It returns the jobs whose files have to go.
func (e *Engine) trim(ctx context.Context, tx *sql.Tx) (gone []int64, err error) {
	add := func(query string, args ...any) error {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			gone = append(gone, id)
		}
		return rows.Err()
	}
	for _, k := range e.kinds {
		keep := k.Keep
		if keep == 0 {
			keep = keepUsually
		}
		if err := add(`DELETE FROM jobs WHERE kind = ? AND ended IS NOT NULL AND id NOT IN
			(SELECT id FROM jobs WHERE kind = ? AND ended IS NOT NULL ORDER BY id DESC LIMIT ?) RETURNING id`, k.Name, k.Name, keep); err != nil {
			return nil, err
		}
	}
	if err := add(`UPDATE jobs SET file = NULL WHERE id IN
		(SELECT id FROM (SELECT id, sum(file) OVER (ORDER BY id DESC) AS total FROM jobs WHERE file IS NOT NULL) WHERE total > ?) RETURNING id`, maxFiles); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE jobs SET result = NULL WHERE id IN
		(SELECT id FROM (SELECT id, sum(length(result)) OVER (ORDER BY id DESC) AS total FROM jobs WHERE length(result) > ?) WHERE total > ?)`, bigResult, maxResults)
	return gone, err
}

// Cancel takes a job back. One that waits is over at once; one that runs ends when it
// can.
func (e *Engine) Cancel(ctx context.Context, id int64) (apitype.Job, error) {
	job, err := e.Get(ctx, id)
	if err != nil {
		return job, err
	}
	if job.Final() {
		return job, apitype.Refuse(http.StatusConflict, apitype.ProblemJobOver, "job %d has ended: it is %s", id, job.State)
	}
	k := e.kinds[job.Kind]
	e.mu.Lock()
	l := e.live[id]
	runs := false
	if l != nil {
		l.Cancelled = true
		if runs = l.cancel != nil; runs {
			l.cancel(errCancelled)
		}
		e.change(id)
	}
	e.mu.Unlock()
	switch {
	case k.Run == nil && k.Cancel != nil:
		err = k.Cancel(ctx, job)
	case !runs:
		err = e.Finish(ctx, id, End{State: apitype.JobCancelled, Message: errCancelled.Error()})
	}
	if err != nil && !errors.Is(err, ErrOver) && !e.restore(l) {
		return job, err
	}
	return e.Get(ctx, id)
}

// restore has a job that could not be taken back go on as if nobody had asked, and tells
// whether it cannot: whoever has begun to run it meanwhile has found it taken back. l is nil
// where the job has ended.
func (e *Engine) restore(l *live) (begun bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l == nil || l.cancel != nil {
		return l != nil
	}
	l.Cancelled = false
	e.change(l.ID)
	return false
}

// Scope returns what is needed to ask for a job of that kind, and to take it back.
func (e *Engine) Scope(kind string) string {
	if s := e.kinds[kind].Scope; s != "" {
		return s
	}
	return apitype.ScopeAdmin
}

const columns = `id, kind, node, by, state, created, expires, started, ended, code, message, request, result, file, file_type`

// scan reads a row of columns, and what else was asked for.
func scan(row interface{ Scan(...any) error }, more ...*uint64) (apitype.Job, error) {
	var j apitype.Job
	var created int64
	var expires, started, ended, file sql.NullInt64
	var request string
	var result sql.NullString
	var fileType string
	to := []any{&j.ID, &j.Kind, &j.Node, &j.By, &j.State, &created, &expires, &started, &ended, &j.Code, &j.Message, &request, &result, &file, &fileType}
	for _, m := range more {
		to = append(to, m)
	}
	if err := row.Scan(to...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return j, err
		}
		return j, store.Classify(err)
	}
	j.Created, j.Expires, j.Started, j.Ended = store.Time(created), store.TimePtr(expires), store.TimePtr(started), store.TimePtr(ended)
	j.Request = json.RawMessage(request)
	if result.Valid {
		j.Result = json.RawMessage(result.String)
	}
	if file.Valid {
		j.File = &apitype.JobFile{Bytes: file.Int64, Type: fileType}
	}
	if j.State == apitype.JobDone {
		j.Progress = 100
	}
	return j, nil
}

// Get returns a job.
func (e *Engine) Get(ctx context.Context, id int64) (apitype.Job, error) {
	j, err := scan(e.DB.Read().QueryRowContext(ctx, `SELECT `+columns+` FROM jobs WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return j, apitype.Refuse(http.StatusNotFound, "", "there is no job %d; those that ended long ago are forgotten", id)
	}
	return e.fresh(j), err
}

// Made tells when a job was made.
func (e *Engine) Made(ctx context.Context, id int64) (o Origin, err error) {
	err = e.DB.Read().QueryRowContext(ctx, `SELECT epoch, boot FROM jobs WHERE id = ?`, id).Scan(&o.Epoch, &o.Boot)
	return o, store.Classify(err)
}

// fresh adds what is known of a job beyond its row.
func (e *Engine) fresh(j apitype.Job) apitype.Job {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.live[j.ID]; l != nil && !j.Final() {
		return l.Job
	}
	return j
}

// Query selects jobs.
type Query struct {
	Nodes  []string // about one of them; empty: all
	Kinds  []string // empty: all
	Active bool     // those that have not ended
	Before int64    // only older ones; 0: all
	Limit  int
}

// List returns jobs, newest first, and the ID before which to go on; 0: there are no
// more.
func (e *Engine) List(ctx context.Context, q Query) (list []apitype.Job, next int64, err error) {
	where, args := []string{"1"}, []any{}
	and := func(clause string, a ...any) { where, args = append(where, clause), append(args, a...) }
	in := func(column string, texts []string) {
		if len(texts) > 0 {
			values := make([]any, len(texts))
			for i, t := range texts {
				values[i] = t
			}
			and(column+" IN (?"+strings.Repeat(", ?", len(texts)-1)+")", values...)
		}
	}
	in("node", q.Nodes)
	in("kind", q.Kinds)
	if q.Active {
		and("ended IS NULL")
	}
	if q.Before > 0 {
		and("id < ?", q.Before)
	}
	rows, err := e.DB.Read().QueryContext(ctx, `SELECT `+columns+` FROM jobs WHERE `+strings.Join(where, " AND ")+` ORDER BY id DESC LIMIT ?`, append(args, q.Limit+1)...)
	if err != nil {
		return nil, 0, store.Classify(err)
	}
	defer rows.Close()
	list = []apitype.Job{}
	for rows.Next() {
		j, err := scan(rows)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, e.fresh(j))
	}
	if len(list) > q.Limit {
		list = list[:q.Limit]
		next = list[q.Limit-1].ID
	}
	return list, next, store.Classify(rows.Err())
}

// Active returns the jobs that have not ended, oldest first.
func (e *Engine) Active(context.Context) ([]apitype.Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]apitype.Job, 0, len(e.live))
	for _, l := range e.live {
		list = append(list, l.Job)
	}
	order.By(list, func(a, b apitype.Job) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Wait returns a job when it has changed or ended, and after that time at the latest.
func (e *Engine) Wait(ctx context.Context, id int64, most time.Duration) (apitype.Job, error) {
	limit := time.NewTimer(most)
	defer limit.Stop()
	var first apitype.Job
	for begun := false; ; begun = true {
		_, changed := e.news.News() // before the look: what changes meanwhile is seen by the next
		j, err := e.Get(ctx, id)
		if !begun {
			first = j
		}
		if err != nil || j.Final() || j.State != first.State || j.Progress != first.Progress || j.Message != first.Message {
			return j, err
		}
		select {
		case <-changed:
		case <-limit.C:
			return j, nil
		case <-ctx.Done():
			return j, ctx.Err()
		}
	}
}

func clip(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "")
	}
	return s
}
