package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/wire"
)

const (
	liveLength    = 256 // jobs that wait; beyond it the streams' senders wait
	backlogLength = 1024
	groupMost     = 1024
	groupBytes    = 1 << 20
	retryEvery    = 2 * time.Second

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

// committer turns jobs into few commits, and tells the sessions only after
// each commit. While a database is unavailable it tries again and takes
// nothing new: the queues fill, the streams stand still, and the nodes keep
// what they have.
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
}

func newCommitter(t *telemetry.Store, e *events.Log, now func() time.Time, every time.Duration, log *slog.Logger) *committer {
	return &committer{
		telemetry: t, events: e, now: now, every: every, log: log, live: make(chan job, liveLength), backlog: make(chan job, backlogLength),
		liveRoom: semaphore.NewWeighted(liveRoom), backlogRoom: semaphore.NewWeighted(backlogRoom),
		allow: func(j *job, kind *allowance) bool { return j.from.allow(kind) },
	}
}

// admit waits until there is room for a batch.
func (c *committer) admit(ctx context.Context, j *job) error {
	room := c.liveRoom
	if j.late {
		room = c.backlogRoom
	}
	if err := room.Acquire(ctx, j.cost); err != nil {
		return err
	}
	j.room = room
	return nil
}

// put hands a job over; it waits while its queue is full.
func (c *committer) put(ctx context.Context, j job) error {
	queue := c.live
	if j.late {
		queue = c.backlog
	}
	select {
	case queue <- j:
		return nil
	case <-ctx.Done():
		j.release()
		return ctx.Err()
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
		err := c.commit(ctx, group)
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
	if err := c.batches(ctx, batches); err != nil {
		return err
	}
	for node, jobs := range byNode {
		list := make([]model.Event, len(jobs))
		for i, j := range jobs {
			list[i] = *j.event
		}
		var unfit []int
		err := c.insist(ctx, func() (err error) {
			unfit, err = c.events.Record(ctx, node, list)
			return err
		})
		if errors.Is(err, store.ErrCorrupt) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			c.log.Error("events could not be stored", "node", node, "err", err)
			continue
		}
		for _, i := range unfit { // it is acknowledged with the others: the node need not keep what never fits
			jobs[i].from.server.report("event.malformed", node, "an event of the node's cannot be stored and is lost", jobs[i].from.remote)
		}
		for _, j := range jobs {
			j.from.ackEvent(j.id())
		}
	}
	return nil
}

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
	var outcomes []telemetry.Outcome
	err := c.insist(ctx, func() (err error) {
		outcomes, err = c.telemetry.Append(ctx, entries)
		return err
	})
	switch {
	case errors.Is(err, store.ErrCorrupt) || ctx.Err() != nil:
		return err
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

// insist repeats what fails because the database is unavailable.
func (c *committer) insist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		if !sleep(ctx, retryEvery) {
			return ctx.Err()
		}
	}
}
