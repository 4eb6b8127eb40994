package ingest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/wire"
)

const (
	liveLength    = 256 // jobs that wait; beyond it the streams' senders wait, unless a commit is overdue
	backlogLength = 1024
	groupMost     = 1024
	groupBytes    = 1 << 20
	overdueAfter  = 10 * time.Second // of a commit

	// Octets that batches of a queue take unpacked, from before they are until they are
	// committed. A batch takes one MiB at most.
	liveRoom    = 8 << 20
	backlogRoom = 8 << 20
	groupRoom   = 4 << 20 // of a group: the other half is for what comes while it is committed

	// What is stamped longer ago was kept while there was no link. There may be a lot of it, and
	// it is not to hold up what is new; but who waits for its acknowledgement sends no more.
	backlogAge   = 10 * time.Minute
	backlogEvery = time.Second
)

// job is one batch or one event on its way to the database.
type job struct {
	node  string
	batch *telemetry.Entry
	event *model.Event
	from  *session

	late bool  // part of a backlog
	cost int64 // octets, unpacked
	// weight is what its node is charged for it, see telemetry.Weight.
	weight int64
	room   *semaphore.Weighted
}

// costOf is what a batch takes, unpacked.
func costOf(reports, metrics, data int) int64 {
	const value, report = 16, 40
	return int64(reports*metrics*value + reports*report + data)
}

// release gives back what admit has given.
func (j *job) release() {
	if j.room != nil {
		j.room.Release(j.cost)
	}
	j.room = nil
}

func (j job) id() wire.BatchID {
	if j.batch != nil {
		return j.batch.Batch.BatchID
	}
	return wire.ID(j.event.Boot, j.event.Seq)
}

// urgent tells whether the job is to be committed at once.
func (j job) urgent() bool {
	return j.batch != nil && j.batch.Batch.Urgent || j.event != nil && j.event.Urgent()
}

func (j job) bytes() int {
	if j.batch != nil {
		return len(j.batch.Data)
	}
	return 0
}

// committer turns jobs into few commits, and tells the sessions only after each commit. What a
// database does not take at present is refused as busy: the nodes keep it and send it again
// later, and what the other database takes, and all else that comes on the streams, goes on.
type committer struct {
	telemetry *telemetry.Store
	events    *events.Log
	now       func() time.Time
	every     time.Duration // between commits of what is not urgent
	log       *slog.Logger
	live      chan job
	backlog   chan job

	liveRoom, backlogRoom *semaphore.Weighted
	allow                 func(*job, *allowance) bool // whether its node may have one more of these

	mu     sync.Mutex // guards onTime
	onTime deadline
}

// deadline ends once the commit that is under way is overdue.
type deadline struct {
	ctx context.Context
	end context.CancelFunc
}

func newDeadline() deadline {
	ctx, end := context.WithCancel(context.Background())
	return deadline{ctx, end}
}

func newCommitter(t *telemetry.Store, e *events.Log, now func() time.Time, every time.Duration, log *slog.Logger) *committer {
	return &committer{
		telemetry: t, events: e, now: now, every: every, log: log, live: make(chan job, liveLength), backlog: make(chan job, backlogLength),
		liveRoom: semaphore.NewWeighted(liveRoom), backlogRoom: semaphore.NewWeighted(backlogRoom),
		allow: func(j *job, kind *allowance) bool { return j.from.allow(kind) }, onTime: newDeadline(),
	}
}

// errOverdue is for who would wait for a commit that is overdue: his stream stands still
// meanwhile, and the node, of which nothing is read, would be taken for gone.
var errOverdue = errors.New("a commit is overdue")

// prompt returns a context that ends with ctx, or while a commit is overdue.
func (c *committer) prompt(ctx context.Context) (prompt context.Context, done func()) {
	c.mu.Lock()
	onTime := c.onTime.ctx
	c.mu.Unlock()
	prompt, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(onTime, cancel)
	return prompt, func() {
		stop()
		cancel()
	}
}

// timed runs a commit; those who wait for it are told once it is overdue.
func (c *committer) timed(commit func() error) error {
	timer := time.AfterFunc(overdueAfter, c.onTime.end) // nobody else changes onTime
	err := commit()
	if !timer.Stop() {
		c.mu.Lock()
		c.onTime = newDeadline()
		c.mu.Unlock()
	}
	return err
}

// admit waits until there is room for a batch, or returns errOverdue.
func (c *committer) admit(ctx context.Context, j *job) error {
	room := c.liveRoom
	if j.late {
		room = c.backlogRoom
	}
	if !room.TryAcquire(j.cost) {
		prompt, done := c.prompt(ctx)
		defer done()
		if err := room.Acquire(prompt, j.cost); err != nil {
			return cmp.Or(ctx.Err(), errOverdue)
		}
	}
	j.room = room
	return nil
}

// put hands a job over; it waits while its queue is full, or returns errOverdue.
func (c *committer) put(ctx context.Context, j job) error {
	queue := c.live
	if j.late {
		queue = c.backlog
	}
	select {
	case queue <- j:
		return nil
	default: // it is full
	}
	prompt, done := c.prompt(ctx)
	defer done()
	select {
	case queue <- j:
		return nil
	case <-prompt.Done():
		j.release()
		return cmp.Or(ctx.Err(), errOverdue)
	}
}

// isLate tells of a stamp, in Unix milliseconds, whether it is of a backlog.
func (c *committer) isLate(at int64) bool { return at < c.now().Add(-backlogAge).UnixMilli() }

// run commits until ctx ends or the database is found damaged. The first job
// after a quiet time is committed at once.
func (c *committer) run(ctx context.Context) error {
	last := time.Now().Add(-c.every)
	for {
		group := c.gather(ctx, last)
		if len(group) == 0 {
			return nil
		}
		last = time.Now()
		err := c.timed(func() error { return c.commit(ctx, group) })
		for i := range group {
			group[i].release()
		}
		if err != nil {
			return err
		}
	}
}

// gather waits for a job, and then for others until it is time for a commit, the last of
// which was then; nil: ctx has ended. What is live goes first, and backlogs fill the group
// up. Who has a group committed before its time pays for that, once: its next jobs in it,
// and those of others, ride along.
func (c *committer) gather(ctx context.Context, last time.Time) (group []job) {
	timer := time.NewTimer(time.Until(last.Add(c.every)))
	defer timer.Stop()
	due := timer.C
	bytes, room, hurry, over := 0, int64(0), false, false
	take := func(j job, backlog bool) {
		group, bytes, room = append(group, j), bytes+j.bytes(), room+j.cost
		switch {
		case over:
		case j.urgent():
			over = c.allow(&j, &urgentCommits)
		case backlog && !hurry && c.allow(&j, &backlogCommits):
			hurry = true
			timer.Reset(max(0, time.Until(last.Add(min(c.every, backlogEvery)))))
		}
	}
	for len(group) < groupMost && bytes < groupBytes && room < groupRoom {
		select {
		case j := <-c.live:
			take(j, false)
			continue
		default: // nothing that is live waits
		}
		if over {
			break
		}
		wait := due
		if len(group) == 0 {
			wait = nil // there is nothing to commit
		}
		select {
		case <-ctx.Done():
			return nil
		case j := <-c.live:
			take(j, false)
		case j := <-c.backlog:
			take(j, true)
		case <-wait:
			over, due = true, nil
		}
		if len(group) == 1 && !time.Now().Before(last.Add(c.every)) {
			over = true // a quiet time: what waits with it, and no more
		}
	}
	for len(group) < groupMost && bytes < groupBytes && room < groupRoom {
		select {
		case j := <-c.backlog:
			take(j, true)
			continue
		default: // no backlog waits
		}
		break
	}
	// Batches that unfold to a lot fill a group with next to nothing: that alone is no commit
	// before its time.
	if room >= groupRoom && !over && !hurry && !sleep(ctx, time.Until(last.Add(min(c.every, backlogEvery)))) {
		return nil
	}
	return group
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (c *committer) commit(ctx context.Context, group []job) error {
	var batches []job
	byNode := map[string][]job{}
	for _, j := range group {
		if j.batch != nil {
			batches = append(batches, j)
		} else {
			byNode[j.node] = append(byNode[j.node], j)
		}
	}
	// First, since they are few and may be alarms: telemetry that has no room takes its time.
	for node, jobs := range byNode {
		if err := c.record(ctx, node, jobs); err != nil {
			return err
		}
	}
	return c.batches(ctx, batches)
}

// record commits a node's events.
func (c *committer) record(ctx context.Context, node string, jobs []job) error {
	list := make([]model.Event, len(jobs))
	for i, j := range jobs {
		list[i] = *j.event
	}
	unfit, err := c.events.Record(ctx, node, list)
	switch {
	case errors.Is(err, store.ErrCorrupt) || ctx.Err() != nil:
		return err
	case errors.Is(err, store.ErrUnavailable):
		for _, j := range jobs {
			j.from.refuseEvent(unavailable, j.id())
		}
		return nil
	case err != nil:
		c.log.Error("events could not be stored", "node", node, "err", err)
		return nil
	}
	for _, i := range unfit { // it is acknowledged with the others: the node need not keep what never fits
		jobs[i].from.server.report("event.malformed", node, "an event of the node's cannot be stored and is lost", jobs[i].from.remote)
	}
	for _, j := range jobs {
		j.from.ackEvent(j.id())
	}
	return nil
}

// unavailable is said of what is refused since its database takes nothing.
const unavailable = "the gateway's card, or its database, takes nothing at present"

// batches commits a group. Should one batch be refused by the database for a
// reason of its own, the group is taken apart to find it.
func (c *committer) batches(ctx context.Context, jobs []job) error {
	if len(jobs) == 0 {
		return nil
	}
	entries := make([]telemetry.Entry, len(jobs))
	for i, j := range jobs {
		entries[i] = *j.batch
	}
	outcomes, err := c.telemetry.Append(ctx, entries)
	switch {
	case errors.Is(err, store.ErrCorrupt) || ctx.Err() != nil:
		return err
	case errors.Is(err, store.ErrUnavailable):
		for _, j := range jobs {
			j.from.refuse(wire.RefuseBusy, unavailable, j.id())
		}
		return nil
	case err != nil && len(jobs) > 1:
		half := len(jobs) / 2
		return errors.Join(c.batches(ctx, jobs[:half]), c.batches(ctx, jobs[half:]))
	case err != nil:
		c.log.Error("a batch could not be stored", "node", jobs[0].node, "batch", jobs[0].id(), "err", err)
		jobs[0].from.refuse(wire.RefuseBatch, "the gateway cannot store this batch", jobs[0].id())
		return nil
	}
	for i, j := range jobs {
		if outcomes[i] != telemetry.Busy {
			j.from.had(&nodeOctets, int(j.weight))
		}
		switch outcomes[i] {
		case telemetry.Conflict:
			j.from.server.report("telemetry.conflict", j.node, "batch "+j.id().String()+" came again with other content; the first one is kept", j.from.remote)
		case telemetry.NoSchema:
			j.from.refuse(wire.RefuseUnknownSchema, "send schema "+j.batch.Batch.Schema.String(), j.id())
			continue
		case telemetry.Unfit:
			j.from.refuse(wire.RefuseBatch, "its stamps are too far apart", j.id())
			continue
		case telemetry.Busy:
			j.from.refuse(wire.RefuseBusy, noRoom, j.id())
			continue
		}
		j.from.ack(j.id())
	}
	return nil
}
