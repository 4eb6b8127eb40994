package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model/apitype"
)

// site is a gateway's card over its starts.
type site struct {
	*Engine
	t     *testing.T
	dir   string
	db    *store.DB
	kinds []Kind
	boot  uint64
	stop  func()
}

func newSite(t *testing.T, kinds ...Kind) *site {
	s := &site{t: t, dir: t.TempDir(), kinds: kinds}
	storetest.PutConfig(t, filepath.Join(s.dir, "config.db"))
	s.start()
	return s
}

// start is a start of gateway-api after it was killed.
func (s *site) start() {
	s.t.Helper()
	db, _, err := store.OpenConfig(s.t.Context(), filepath.Join(s.dir, "config.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.db = db
	s.boot++
	s.Engine, err = New(s.t.Context(), Config{
		DB: db, Clock: clock.New(time.Now, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), Epoch: func() uint64 { return 40_000 }, Boot: s.boot,
		Files: filepath.Join(s.dir, "jobs"), Log: slog.New(slog.DiscardHandler), Kinds: s.kinds,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(s.stop)
}

func (s *site) restart() {
	s.stop()
	s.start()
}

func (s *site) add(kind string) apitype.Job {
	s.t.Helper()
	j, _, err := s.Add(s.t.Context(), Request{Kind: kind, By: "user:root", Body: map[string]int{"a": 1}})
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

// until waits until a job is in that state.
func (s *site) until(id int64, state string) apitype.Job {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		j, err := s.Wait(s.t.Context(), id, 200*time.Millisecond)
		if err != nil {
			s.t.Fatal(err)
		}
		if j.State == state {
			return j
		}
		if j.Final() || time.Now().After(deadline) {
			s.t.Fatalf("job %d is %s (%s), want %s", id, j.State, j.Message, state)
		}
	}
}

func problem(t *testing.T, err error, status int, typ string) {
	t.Helper()
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok || p.Status != status || p.Type != typ {
		t.Errorf("got %v, want %d %s", err, status, typ)
	}
}

func TestAJobFromQueuedToDone(t *testing.T) {
	half, on := make(chan struct{}), make(chan struct{})
	s := newSite(t, Kind{Name: "test", Run: func(ctx context.Context, task *Task) (Outcome, error) {
		task.Progress(50, "half of it")
		close(half)
		<-on
		return Outcome{Value: map[string]string{"found": "it"}, File: []byte("a file"), FileType: "text/plain"}, nil
	}})
	j := s.add("test")
	<-half
	j = s.until(j.ID, apitype.JobRunning)
	if j.Progress != 50 || j.Message != "half of it" || j.Started == nil || string(j.Request) != `{"a":1}` {
		t.Errorf("got %+v", j)
	}
	close(on)
	j = s.until(j.ID, apitype.JobDone)
	if j.Progress != 100 || j.Message != "" || string(j.Result) != `{"found":"it"}` || j.Ended == nil || *j.File != (apitype.JobFile{Bytes: 6, Type: "text/plain"}) {
		t.Errorf("got %+v", j)
	}
	if _, b, err := s.File(t.Context(), j.ID); err != nil || string(b) != "a file" {
		t.Errorf("file %q, %v", b, err)
	}
	s.restart()
	if again, err := s.Get(t.Context(), j.ID); err != nil || again.State != apitype.JobDone || again.File == nil {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if _, b, err := s.File(t.Context(), j.ID); err != nil || string(b) != "a file" {
		t.Errorf("after a restart: file %q, %v", b, err)
	}
}

func TestHowJobsFail(t *testing.T) {
	s := newSite(t, Kind{Name: "test", Workers: 4, Run: func(_ context.Context, task *Task) (Outcome, error) {
		switch task.By {
		case "plain":
			return Outcome{}, errors.New("no reason")
		case "typed":
			return Outcome{}, fmt.Errorf("wrapped: %w", &Refusal{State: apitype.JobRefused, Code: "no-led", Text: "none"})
		case "big":
			return Outcome{Value: strings.Repeat("x", maxResult)}, nil
		}
		return Outcome{File: make([]byte, maxFile+1)}, nil
	}})
	for by, want := range map[string]apitype.Job{
		"plain": {State: apitype.JobFailed, Message: "no reason"}, "typed": {State: apitype.JobRefused, Code: "no-led", Message: "none"},
		"big": {State: apitype.JobFailed, Message: "expected a result of at most 65536 octets, got 65538"}, "file": {State: apitype.JobFailed, Message: "expected a file of at most 2097152 octets, got 2097153"},
	} {
		j, _, err := s.Add(t.Context(), Request{Kind: "test", By: by})
		if err != nil {
			t.Fatal(err)
		}
		if j = s.until(j.ID, want.State); j.Code != want.Code || j.Message != want.Message {
			t.Errorf("%s: got %s %q", by, j.Code, j.Message)
		}
	}
}

func TestJobsAreTakenBack(t *testing.T) {
	running := make(chan struct{}, 8)
	s := newSite(t, Kind{Name: "test", Run: func(ctx context.Context, _ *Task) (Outcome, error) {
		running <- struct{}{}
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}})
	first, second := s.add("test"), s.add("test")
	<-running
	if j, err := s.Cancel(t.Context(), second.ID); err != nil || j.State != apitype.JobCancelled {
		t.Errorf("one that waits: %+v, %v", j, err)
	}
	if j, err := s.Cancel(t.Context(), first.ID); err != nil || !j.Cancelled && j.State != apitype.JobCancelled {
		t.Errorf("one that runs: %+v, %v", j, err)
	}
	s.until(first.ID, apitype.JobCancelled)
	_, err := s.Cancel(t.Context(), first.ID)
	problem(t, err, 409, apitype.ProblemJobOver)
	_, err = s.Cancel(t.Context(), 999)
	problem(t, err, 404, "about:blank")
	third := s.add("test")
	<-running // what was taken back while it waited has not run
	if n := len(running); n != 0 {
		t.Errorf("%d more have run", n)
	}
	if _, err := s.Cancel(t.Context(), third.ID); err != nil {
		t.Error(err)
	}
	s.until(third.ID, apitype.JobCancelled)
}

// One that begins while it cannot be stored that it was taken back has found it taken back,
// and ends so: whoever asked for that is told.
func TestAJobBeginsWhileItIsTakenBack(t *testing.T) {
	busy := make(chan struct{})
	s := newSite(t, Kind{Name: "test", Run: func(ctx context.Context, _ *Task) (Outcome, error) {
		select {
		case <-busy:
			return Outcome{File: []byte("x")}, nil // of one that has ended already: nothing is written
		case <-ctx.Done():
			return Outcome{}, ctx.Err()
		}
	}})
	first, second := s.add("test"), s.add("test")
	s.until(first.ID, apitype.JobRunning)
	if err := s.Finish(t.Context(), first.ID, End{State: apitype.JobFailed}); err != nil {
		t.Fatal(err)
	}
	other, err := s.db.Read().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExecContext(t.Context(), `PRAGMA query_only = 0; BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		apitype.Job
		err error
	}
	got := make(chan answer, 1)
	go func() {
		j, err := s.Cancel(t.Context(), second.ID) // waits for the lock, in vain
		got <- answer{j, err}
	}()
	within := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			s.mu.Lock()
			is := ok()
			s.mu.Unlock()
			if is {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it never came: %s", what)
			}
		}
	}
	within("it is taken back", func() bool { return s.live[second.ID].Cancelled })
	busy <- struct{}{}
	within("it begins", func() bool { return s.live[second.ID].cancel != nil })
	if a := <-got; a.err != nil || !a.Cancelled {
		t.Errorf("got %+v", a)
	}
	_, err = other.ExecContext(t.Context(), `ROLLBACK; PRAGMA query_only = 1`)
	if err := errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
	s.until(second.ID, apitype.JobCancelled)
}

// A process that ends in the middle: per kind, what ran is run again or interrupted;
// what waited still waits; what is driven from outside is as it was.
func TestJobsOutliveTheProcess(t *testing.T) {
	ran := make(chan string, 16)
	block := true
	run := func(ctx context.Context, task *Task) (Outcome, error) {
		ran <- task.Kind
		if block {
			<-ctx.Done()
			return Outcome{}, ctx.Err()
		}
		return Outcome{}, nil
	}
	s := newSite(t, Kind{Name: "again", Resume: true, Run: run}, Kind{Name: "once", Run: run}, Kind{Name: "outside"}, Kind{Name: "forgotten"})
	again, once, waits := s.add("again"), s.add("once"), s.add("once")
	outside, idle, forgotten := s.add("outside"), s.add("outside"), s.add("forgotten")
	for range 2 {
		<-ran
	}
	s.until(again.ID, apitype.JobRunning)
	s.until(once.ID, apitype.JobRunning)
	if err := s.Begin(t.Context(), outside.ID); err != nil {
		t.Fatal(err)
	}
	s.stop()
	block = false
	s.kinds = s.kinds[:3]
	s.start()
	s.until(again.ID, apitype.JobDone)
	s.until(waits.ID, apitype.JobDone)
	s.until(once.ID, apitype.JobInterrupted)
	s.until(forgotten.ID, apitype.JobInterrupted) // of a release that knew it
	list, origins := s.Unfinished()
	if len(list) != 2 || list[0].ID != outside.ID || list[0].State != apitype.JobRunning || list[1].ID != idle.ID || list[1].State != apitype.JobQueued || origins[0] != (Origin{40_000, 1}) {
		t.Errorf("driven from outside: %+v, %+v", list, origins)
	}
	if err := s.Finish(t.Context(), outside.ID, End{State: apitype.JobDone}); err != nil {
		t.Error(err)
	}
}

func TestTheSameKeyIsTheSameJob(t *testing.T) {
	s := newSite(t, Kind{Name: "test"}, Kind{Name: "other"})
	add := func(r Request) (apitype.Job, bool, error) { return s.Add(t.Context(), r) }
	r := Request{Kind: "test", Node: "n-a", By: "user:root", Key: "k1", Body: 1}
	first, again, err := add(r)
	if err != nil || again {
		t.Fatal(again, err)
	}
	if err := s.Finish(t.Context(), first.ID, End{State: apitype.JobDone}); err != nil {
		t.Fatal(err)
	}
	if j, again, err := add(r); err != nil || !again || j.ID != first.ID || j.State != apitype.JobDone {
		t.Errorf("once more: %+v, %v, %v", j, again, err)
	}
	for name, change := range map[string]func(*Request){"kind": func(r *Request) { r.Kind = "other" }, "node": func(r *Request) { r.Node = "n-b" }, "body": func(r *Request) { r.Body = 2 }} {
		o := r
		change(&o)
		_, _, err := add(o)
		if err == nil {
			t.Errorf("another %s under the same key was taken", name)
			continue
		}
		problem(t, err, 422, apitype.ProblemKeyReused)
	}
	o := r
	o.By = "user:ada" // whose keys are her own
	if j, again, err := add(o); err != nil || again || j.ID == first.ID {
		t.Errorf("somebody else's: %+v, %v, %v", j, again, err)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	s := newSite(t, Kind{Name: "test", Most: 3}, Kind{Name: "other"})
	var r Request
	for i := range 3 {
		r = Request{Kind: "test", By: "user:root", Key: fmt.Sprint(i)}
		if _, _, err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := s.Add(t.Context(), Request{Kind: "test", By: "user:root"})
	problem(t, err, 429, apitype.ProblemRateLimited)
	if _, again, err := s.Add(t.Context(), r); err != nil || !again {
		t.Errorf("one that is there, asked for once more: %v, %v", again, err)
	}
	if j := s.add("other"); j.ID == 0 {
		t.Error("another kind has no room")
	}
}

// What has ended is kept for a while, of each kind, and files and big results while
// there is room; IDs are never used again.
func TestWhatHasEndedIsBounded(t *testing.T) {
	s := newSite(t, Kind{Name: "busy", Keep: 3}, Kind{Name: "rare", Keep: 3})
	end := func(kind string, e End) int64 {
		j := s.add(kind)
		if err := s.Finish(t.Context(), j.ID, e); err != nil {
			t.Fatal(err)
		}
		return j.ID
	}
	rare := end("rare", End{State: apitype.JobDone, Outcome: Outcome{File: bytes.Repeat([]byte{1}, maxFile)}})
	var last int64
	for range 9 {
		last = end("busy", End{State: apitype.JobDone, Outcome: Outcome{Value: 1, File: bytes.Repeat([]byte{1}, maxFile)}})
	}
	list, _, err := s.List(t.Context(), Query{Kinds: []string{"busy"}, Limit: 10})
	if err != nil || len(list) != 3 || list[0].ID != last {
		t.Errorf("got %+v, %v", list, err)
	}
	if j, err := s.Get(t.Context(), rare); err != nil || j.File == nil {
		t.Errorf("another kind: %+v, %v", j, err)
	}
	files, err := os.ReadDir(filepath.Join(s.dir, "jobs"))
	if err != nil || len(files) != 4 {
		t.Errorf("%d files, %v, want those of the four jobs", len(files), err)
	}
	s.kinds[0].Keep = 100
	s.restart()
	for range 9 {
		last = end("busy", End{State: apitype.JobDone, Outcome: Outcome{File: bytes.Repeat([]byte{1}, maxFile)}})
	}
	if files, err = os.ReadDir(filepath.Join(s.dir, "jobs")); err != nil || len(files) != maxFiles/maxFile {
		t.Errorf("%d files, %v, want %d", len(files), err, maxFiles/maxFile)
	}
	if _, _, err := s.File(t.Context(), rare); err == nil {
		t.Error("the oldest file is still there")
	}
	if j, err := s.Get(t.Context(), rare); err != nil || j.File != nil || j.State != apitype.JobDone {
		t.Errorf("a job without its file: %+v, %v", j, err)
	}
	if j := s.add("rare"); j.ID <= last {
		t.Errorf("ID %d was used again", j.ID)
	}
}

// An end that was only assumed gives way to the one that is told later.
func TestALateEnd(t *testing.T) {
	s := newSite(t, Kind{Name: "test"})
	j := s.add("test")
	for _, tc := range []struct {
		end  End
		over bool
		want string
	}{
		{End{State: apitype.JobFailed, Code: "timeout"}, false, apitype.JobFailed},
		{End{State: apitype.JobDone}, true, apitype.JobFailed},
		{End{State: apitype.JobDone, Late: []string{"timeout", "unanswered"}}, false, apitype.JobDone},
		{End{State: apitype.JobFailed, Late: []string{"timeout"}}, true, apitype.JobDone},
	} {
		if err := s.Finish(t.Context(), j.ID, tc.end); errors.Is(err, ErrOver) != tc.over {
			t.Errorf("%+v: %v", tc.end, err)
		}
		if got, err := s.Get(t.Context(), j.ID); err != nil || got.State != tc.want {
			t.Errorf("after %+v: %s, %v", tc.end, got.State, err)
		}
	}
}

func TestListsPage(t *testing.T) {
	s := newSite(t, Kind{Name: "test"})
	for i := range 7 {
		j, _, err := s.Add(t.Context(), Request{Kind: "test", Node: fmt.Sprint("n-", i%2), By: "user:root"})
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			if err := s.Finish(t.Context(), j.ID, End{State: apitype.JobDone}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		q    Query
		want string
	}{
		"all": {Query{}, "7 6 5 4 3 2 1"}, "of a node": {Query{Nodes: []string{"n-1"}}, "6 4 2"}, "of two": {Query{Nodes: []string{"n-1", "n-0"}}, "7 6 5 4 3 2 1"}, "active": {Query{Active: true}, "7 6 5 4"},
		"of no kind": {Query{Kinds: []string{"none", "nil"}}, ""}, "of kinds": {Query{Kinds: []string{"none", "test"}, Nodes: []string{"n-0"}}, "7 5 3 1"},
	} {
		var got []string
		for q := tc.q; ; {
			q.Limit = 2
			list, next, err := s.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range list {
				got = append(got, fmt.Sprint(j.ID))
			}
			if q.Before = next; next == 0 {
				break
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: got %v, want %s", name, got, tc.want)
		}
	}
}

// A power cut comes between a file and its row.
func TestFilesThatNobodyHasAreRemoved(t *testing.T) {
	s := newSite(t, Kind{Name: "test"})
	dir := filepath.Join(s.dir, "jobs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"17", ".tmp-123"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.restart()
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestWaitEndsInTime(t *testing.T) {
	s := newSite(t, Kind{Name: "test"})
	j := s.add("test")
	begin := time.Now()
	if got, err := s.Wait(t.Context(), j.ID, 30*time.Millisecond); err != nil || got.State != apitype.JobQueued || time.Since(begin) < 30*time.Millisecond {
		t.Errorf("got %+v, %v after %s", got, err, time.Since(begin))
	}
	waited := make(chan apitype.Job, 1)
	go func() {
		got, _ := s.Wait(t.Context(), j.ID, time.Minute)
		waited <- got
	}()
	for s.Progress(j.ID, 10, "it moves"); ; {
		select {
		case got := <-waited:
			if got.Progress == 0 {
				t.Errorf("got %+v", got)
			}
			return
		case <-time.After(10 * time.Millisecond): // whoever waits may have begun later
			got, err := s.Get(t.Context(), j.ID)
			if err != nil {
				t.Fatal(err)
			}
			s.Progress(j.ID, got.Progress+1, "")
		}
	}
}
