package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/wire"
)

const (
	queueLength = 256 // messages that wait; beyond it the streams' senders wait
	groupMost   = 256
	retryEvery  = 2 * time.Second
)

// job is one batch or one event on its way to the database.
type job struct {
	node  string
	batch *store.Entry
	event *model.Event
	from  *session
}

func (j job) id() wire.BatchID {
	if j.batch != nil {
		return j.batch.Batch.BatchID
	}
	return wire.ID(j.event.Boot, j.event.Seq)
}

// committer turns jobs into few commits, and tells the sessions only after
// each commit. While a database is unavailable it tries again and takes
// nothing new: the queue fills, the streams stand still, and the nodes keep
// what they have.
type committer struct {
	journal *store.Journal
	latest  *store.Latest
	events  *events.Log
	drops   drops
	every   time.Duration // least time between commits
	log     *slog.Logger
	queue   chan job
}

// put hands a job over; it waits while the queue is full.
func (c *committer) put(ctx context.Context, j job) error {
	select {
	case c.queue <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run commits until ctx ends or the database is found damaged. The first job
// after a quiet time is committed at once.
func (c *committer) run(ctx context.Context) error {
	defer c.drops.stop()
	for {
		var group []job
		select {
		case <-ctx.Done():
			return nil
		case <-c.drops.due():
			c.drops.tell()
			continue
		case j := <-c.queue:
			group = append(group, j)
		}
	more:
		for len(group) < groupMost {
			select {
			case j := <-c.queue:
				group = append(group, j)
			default:
				break more
			}
		}
		started := time.Now()
		if err := c.commit(ctx, group); err != nil {
			return err
		}
		if !sleep(ctx, c.every-time.Since(started)) {
			return nil
		}
	}
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
	entries, need := make([]store.Entry, len(jobs)), int64(0)
	for i, j := range jobs {
		entries[i] = *j.batch
		need += int64(len(j.batch.Data))
	}
	var outcomes []store.Outcome
	err := c.insist(ctx, func() (err error) {
		if outcomes, err = c.journal.Append(ctx, entries); !errors.Is(err, store.ErrFull) {
			return err
		}
		dropped, roomErr := c.journal.MakeRoom(ctx, need)
		if c.drops.add(dropped, "the file system is full"); roomErr != nil {
			return roomErr
		}
		outcomes, err = c.journal.Append(ctx, entries)
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
		switch outcomes[i] {
		case store.Stored:
			c.latest.Apply(j.node, j.batch.Schema, j.batch.Batch)
		case store.Conflict:
			j.from.server.report("telemetry.conflict", j.node, "batch "+j.id().String()+" came again with other content; the first one is kept", j.from.remote)
		case store.NoSchema:
			j.from.refuse(wire.RefuseUnknownSchema, "send schema "+j.batch.Batch.Schema.String(), j.id())
			continue
		}
		j.from.ack(j.id())
	}
	dropped, err := c.journal.Trim(ctx)
	c.drops.add(dropped, "the telemetry store is full")
	if err != nil && !errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil {
		return fmt.Errorf("keep telemetry within its budget: %w", err)
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
