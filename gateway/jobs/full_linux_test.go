package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/reserve"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// small has the gateway's folder be a file system of its own.
func (s *site) small(size string) {
	s.t.Helper()
	s.dir = s.t.TempDir()
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, "size="+size); err != nil {
		s.t.Fatalf("a small file system is needed, and root to make it: %v", err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
}

// fillUp leaves so much free, or a little more.
func (s *site) fillUp(left int64) {
	s.t.Helper()
	free, err := reserve.Free(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "ballast"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for ; free > left && err == nil; free, _ = reserve.Free(s.dir) {
		_, err = f.Write(make([]byte, min(free-left, 64<<10)))
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		s.t.Fatal(err)
	}
}

func (s *site) empty() {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.dir, "ballast")); err != nil {
		s.t.Fatal(err)
	}
}

// TestFilesOnAFullCard: old ones make room for new ones, and where there is none a job ends
// all the same.
func TestFilesOnAFullCard(t *testing.T) {
	run := func(context.Context, *Task) (Outcome, error) {
		return Outcome{Value: "captured", File: bytes.Repeat([]byte{1}, maxFile), FileType: "application/vnd.tcpdump.pcap"}, nil
	}
	s := &site{t: t, kinds: []Kind{{Name: "capture", Run: run, Scope: apitype.ScopeNodesWrite}}}
	s.small("24m")
	s.start()
	old := []apitype.Job{s.until(s.add("capture").ID, apitype.JobDone), s.until(s.add("capture").ID, apitype.JobDone)}
	s.fillUp(leftFree + maxFile/2)
	j := s.until(s.add("capture").ID, apitype.JobDone)
	if _, b, err := s.File(t.Context(), j.ID); err != nil || len(b) != maxFile || j.File == nil {
		t.Errorf("the new one has %d octets, %+v, %v", len(b), j.File, err)
	}
	_, _, err := s.File(t.Context(), old[0].ID)
	problem(t, err, http.StatusNotFound, "about:blank")
	for i, want := range []bool{false, true} {
		if o, err := s.Get(t.Context(), old[i].ID); err != nil || (o.File != nil) != want || o.State != apitype.JobDone {
			t.Errorf("old job %d: %+v, %v; has a file: want %t", i, o, err, want)
		}
	}

	// Nothing is left that could make room: what is too little does not go in vain.
	s.fillUp(0)
	s.empty()
	if err := errors.Join(s.removeFile(old[1].ID), os.Truncate(s.file(j.ID), 10)); err != nil {
		t.Fatal(err)
	}
	s.fillUp(leftFree)
	failed := s.until(s.add("capture").ID, apitype.JobFailed)
	if !strings.Contains(failed.Message, "no room for its file") || failed.File != nil || string(failed.Result) != `"captured"` {
		t.Errorf("got %+v", failed)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "jobs")); err != nil || len(left) != 1 || left[0].Name() != fmt.Sprint(j.ID) {
		t.Errorf("left are %v, %v", left, err)
	}
	s.empty()
	s.until(s.add("capture").ID, apitype.JobDone)
}

// TestTheEndOfAJobWaitsForTheCard: what came of it is not lost while nothing can be stored.
func TestTheEndOfAJobWaitsForTheCard(t *testing.T) {
	on := make(chan struct{})
	run := func(context.Context, *Task) (Outcome, error) {
		<-on
		return Outcome{Value: "measured"}, nil
	}
	s := &site{t: t, kinds: []Kind{{Name: "speed", Run: run}}}
	s.small("12m")
	s.start()
	j := s.add("speed")
	s.until(j.ID, apitype.JobRunning)
	s.fillUp(0)
	var err error
	for i := 0; err == nil && i < 10_000; i++ { // what room its log has in the file
		err = s.db.PutSetting(t.Context(), fmt.Sprint("s", i), bytes.Repeat([]byte{1}, 2048))
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("the database takes all: %v", err)
	}
	close(on)
	time.Sleep(200 * time.Millisecond)
	if now, err := s.Get(t.Context(), j.ID); err != nil || now.Final() {
		t.Errorf("got %+v, %v", now, err)
	}
	s.empty()
	if got := s.until(j.ID, apitype.JobDone); string(got.Result) != `"measured"` {
		t.Errorf("got %+v", got)
	}
}

// TestAFileOfAJobThatIsOver is not kept, and takes nobody's place.
func TestAFileOfAJobThatIsOver(t *testing.T) {
	s := newSite(t, Kind{Name: "capture"})
	j := s.add("capture")
	first := End{State: apitype.JobDone, Outcome: Outcome{File: []byte("first")}}
	if err := s.Finish(t.Context(), j.ID, first); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), j.ID, End{State: apitype.JobDone, Outcome: Outcome{File: []byte("other")}}); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
	if _, b, err := s.File(t.Context(), j.ID); err != nil || string(b) != "first" {
		t.Errorf("it is %q, %v", b, err)
	}
	gone := s.add("capture")
	if err := s.Finish(t.Context(), gone.ID, End{State: apitype.JobCancelled}); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), gone.ID, first); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "jobs")); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
