package ingest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/wire"
)

func batchJob(seq uint64, at time.Time, urgent bool) job {
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Urgent: urgent}, Reports: []wire.Report{{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(1)}}}}
	return job{node: "n-a", batch: &telemetry.Entry{Batch: b, Data: make([]byte, 100)}, late: at.Before(time.Now().Add(-backlogAge))}
}

func freely(*job, *allowance) bool { return true }

// When what is put in at those times is committed: what is urgent at once, a backlog within
// a second, the rest within Every.
func TestWhenGroupsAreCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitter(nil, nil, time.Now, 10*time.Second, nil)
		c.allow = freely
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			put := func(after time.Duration, j job) {
				time.Sleep(time.Until(begin.Add(after)))
				if err := c.put(ctx, j); err != nil {
					t.Error(err)
				}
			}
			fresh := func(seq uint64) job { return batchJob(seq, time.Now(), false) }
			put(0, fresh(1)) // after a quiet time
			put(2*time.Second, fresh(2))
			put(3*time.Second, job{node: "n-a", event: &model.Event{Boot: 1, Seq: 9, Severity: model.Info}})
			put(12*time.Second, batchJob(3, time.Now(), true))
			put(13*time.Second, job{node: "n-a", event: &model.Event{Boot: 1, Seq: 10, Severity: model.Warning}})
			put(14*time.Second, job{node: "n-a", event: &model.Event{Boot: 1, Seq: 11, Severity: model.Info, Kind: model.EventInputChanged}})
			put(15*time.Second, batchJob(4, time.Now().Add(-time.Hour), false))
			put(15*time.Second+100*time.Millisecond, fresh(5))
			for i := range uint64(groupMost) {
				put(15*time.Second+200*time.Millisecond, batchJob(6+i, time.Now().Add(-time.Hour), false))
			}
		}()
		last := begin.Add(-c.every)
		for i, want := range []struct {
			at time.Duration
			n  int
		}{{0, 1}, {10 * time.Second, 2}, {12 * time.Second, 1}, {13 * time.Second, 1}, {14 * time.Second, 1}, {15 * time.Second, 1}, {15*time.Second + 200*time.Millisecond, groupMost}, {16*time.Second + 200*time.Millisecond, 1}} {
			g := c.gather(ctx, last)
			last = time.Now()
			if got := last.Sub(begin); got != want.at || len(g) != want.n {
				t.Errorf("group %d: %d jobs at %s, want %d at %s", i, len(g), got, want.n, want.at)
			}
		}
	})
}

// However much of a backlog waits, what is live is in the next group.
func TestABacklogDoesNotHoldUpWhatIsLive(t *testing.T) {
	c := newCommitter(nil, nil, time.Now, time.Hour, nil)
	c.allow = freely
	for seq := range uint64(backlogLength) {
		if err := c.put(t.Context(), batchJob(seq+1, time.Now().Add(-time.Hour), false)); err != nil {
			t.Fatal(err)
		}
	}
	live := batchJob(1<<20, time.Now(), false)
	if err := c.put(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	g := c.gather(t.Context(), time.Now())
	if len(g) != groupMost || g[0].id() != live.id() {
		t.Errorf("got %d jobs of which the first is %v, want %d and what is live first", len(g), g[0].id(), groupMost)
	}
}

// However large the batches are that many nodes send at once, those that are unpacked have
// their room, and what is live has its own.
func TestRoomOfUnpackedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitter(nil, nil, time.Now, 10*time.Second, nil)
		c.allow = freely
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cost := costOf(wire.MaxReports, wire.MaxValues/wire.MaxReports, wire.MaxBatch)
		if cost > groupRoom {
			t.Fatalf("a batch may take %d octets, and a group %d", cost, groupRoom)
		}
		var admitted [2]atomic.Int64
		for node := range 100 {
			for k, late := range []bool{false, true} {
				go func() {
					j := batchJob(uint64(node)+1, time.Now(), false)
					j.late, j.cost = late, cost
					if c.admit(ctx, &j) == nil {
						admitted[k].Add(1)
						_ = c.put(ctx, j) // until the test ends
					}
				}()
			}
		}
		synctest.Wait()
		if live, late := admitted[0].Load(), admitted[1].Load(); live != liveRoom/cost || late != backlogRoom/cost {
			t.Errorf("admitted are %d and %d, want %d and %d", live, late, liveRoom/cost, backlogRoom/cost)
		}
		begin, taken := time.Now(), 0
		for taken < 200 {
			g := c.gather(ctx, time.Now())
			if size := int64(len(g)) * cost; size >= groupRoom+cost {
				t.Fatalf("a group takes %d octets", size)
			}
			taken += len(g)
			for i := range g {
				g[i].release()
			}
			synctest.Wait()
		}
		most := 100*time.Duration(cost)*backlogEvery/groupRoom + 2*backlogEvery // of what is live, for which nobody pays
		if took := time.Since(begin); took > most {
			t.Errorf("all were taken in %s, want %s at most: something waited for the time of the next commit", took, most)
		}
	})
}

// What one node calls urgent, and its backlog, do not have the card written without end:
// beyond what it may have they wait for the next commit, and others' do not.
func TestANodeThatCallsAllUrgent(t *testing.T) {
	for _, tc := range []struct {
		what string
		make func(seq uint64) job
		kind *allowance
	}{
		{"urgent readings", func(seq uint64) job { return batchJob(seq, time.Now(), true) }, &urgentCommits},
		{"events", func(seq uint64) job {
			return job{node: "n-a", event: &model.Event{Boot: 1, Seq: seq, Severity: model.Error}}
		}, &urgentCommits},
		{"a backlog", func(seq uint64) job { return batchJob(seq, time.Now().Add(-time.Hour), false) }, &backlogCommits},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var of allowances
				c := newCommitter(nil, nil, time.Now, 10*time.Second, nil)
				c.allow = func(j *job, kind *allowance) bool { return of.of(j.node, kind).Allow() }
				ctx, cancel := context.WithCancel(t.Context())
				const hours = 2 * time.Hour
				begin := time.Now()
				go func() {
					for seq := uint64(1); time.Since(begin) < hours; seq++ {
						if c.put(ctx, tc.make(seq)) != nil {
							return
						}
						time.Sleep(1500 * time.Millisecond)
					}
				}()
				var other time.Duration // what another node's alarm takes, in the end
				go func() {
					time.Sleep(hours - time.Minute - 3*time.Second)
					alarm := batchJob(1, time.Now(), true)
					alarm.node = "n-b"
					if c.put(ctx, alarm) != nil {
						t.Error("it was not taken")
					}
				}()
				commits, jobs, last := 0, 0, begin.Add(-c.every)
				for time.Since(begin) < hours-time.Minute {
					g := c.gather(ctx, last)
					last = time.Now()
					commits, jobs = commits+1, jobs+len(g)
					for i := range g {
						if g[i].node == "n-b" {
							other = time.Since(begin) - (hours - time.Minute - 3*time.Second)
						}
					}
				}
				cancel()
				time.Sleep(hours) // both have ended
				most := int(hours/c.every) + tc.kind.burst + int(hours/tc.kind.every) + 1
				if commits > most || commits < int(hours/c.every) {
					t.Errorf("%d commits, want %d at most", commits, most)
				}
				if want := int((hours - time.Minute) / (1500 * time.Millisecond)); jobs < want-8 {
					t.Errorf("%d jobs were committed, want %d", jobs, want)
				}
				if other != 0 {
					t.Errorf("another node's alarm took %s, want it to be committed at once", other)
				}
			})
		})
	}
}

// Batches that unfold to so much that few of them fill a group are committed before their time
// if somebody pays for it, and else a second after the last commit.
func TestBatchesThatUnfold(t *testing.T) {
	for _, tc := range []struct {
		name  string
		late  bool
		pays  bool
		apart time.Duration // commits are
	}{
		{"live", false, true, backlogEvery},
		{"a backlog", true, true, 0},
		{"a backlog beyond what it may have", true, false, backlogEvery},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCommitter(nil, nil, time.Now, 10*time.Second, nil)
				c.allow = func(*job, *allowance) bool { return tc.pays }
				const groups = 20
				cost := int64(groupRoom / 4)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					for seq := range uint64(4 * groups) {
						j := batchJob(seq+1, time.Now(), false)
						j.late, j.cost = tc.late, cost
						if c.put(ctx, j) != nil {
							return
						}
					}
				}()
				begin, last := time.Now(), time.Now()
				for range groups {
					if g := c.gather(ctx, last); len(g) != 4 {
						t.Fatalf("a group of %d", len(g))
					}
					last = time.Now()
				}
				if took := time.Since(begin); took != groups*tc.apart {
					t.Errorf("%d groups took %s, want %s", groups, took, groups*tc.apart)
				}
			})
		})
	}
}

// Who waits for room is told once the commit that is to make it is overdue, and so is who comes
// meanwhile; after it all wait as before.
func TestACommitThatIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitter(nil, nil, time.Now, 10*time.Second, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range liveLength {
			if err := c.put(ctx, batchJob(1, time.Now(), false)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.liveRoom.Acquire(ctx, liveRoom); err != nil {
			t.Fatal(err)
		}
		waits := map[string]func() error{
			"for the queue": func() error { return c.put(ctx, batchJob(1, time.Now(), false)) },
			"for room":      func() error { j := batchJob(1, time.Now(), false); j.cost = 1; return c.admit(ctx, &j) },
		}
		told := func(when string, want time.Duration) {
			t.Helper()
			begin := time.Now()
			var all sync.WaitGroup
			for what, wait := range waits {
				all.Go(func() {
					if err := wait(); !errors.Is(err, errOverdue) || time.Since(begin) != want {
						t.Errorf("%s, who waits %s: got %v after %s, want it to be overdue after %s", when, what, err, time.Since(begin), want)
					}
				})
			}
			all.Wait()
		}
		commit := func(takes time.Duration) (ended chan struct{}) {
			ended = make(chan struct{})
			go func() {
				defer close(ended)
				if err := c.timed(func() error { time.Sleep(takes); return nil }); err != nil {
					t.Error(err)
				}
			}()
			return ended
		}
		for range 2 {
			ended := commit(time.Minute)
			told("from the beginning", overdueAfter)
			told("when it is overdue", 0)
			<-ended
			<-commit(overdueAfter - time.Second) // one in time
			left, leave := context.WithTimeout(ctx, time.Hour)
			if err := c.put(left, batchJob(1, time.Now(), false)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("while no commit is overdue: got %v, want it to wait", err)
			}
			leave()
		}
	})
}
