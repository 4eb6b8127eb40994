package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/store"
)

// onSmallCard has the database be on a file system of its own.
func (k *kept) onSmallCard(size string) {
	k.t.Helper()
	dir := k.t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		k.t.Fatalf("a small file system is needed, and root to make it: %v", err)
	}
	k.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			k.t.Error(err)
		}
	})
	k.path = filepath.Join(dir, "topology.db")
}

// fill leaves so many octets free, and returns what gives the rest back.
func (k *kept) fill(but int64) (free func()) {
	k.t.Helper()
	ballast := filepath.Join(filepath.Dir(k.path), "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	var n int64
	for err == nil {
		var w int
		w, err = f.Write(make([]byte, 4096))
		n += int64(w)
	}
	if !errors.Is(err, unix.ENOSPC) {
		k.t.Fatal(err)
	}
	if err := f.Truncate(n - but); err != nil {
		k.t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := os.Remove(ballast); err != nil {
			k.t.Error(err)
		}
	})
}

// On a card that is full, the oldest frames make room in the file for the new ones: the
// commit of every five minutes succeeds, without a word.
func TestTheOldestMakeRoomOnAFullCard(t *testing.T) {
	k := newKept(t)
	k.onSmallCard("8m")
	a := k.open()
	put(t, a, 0, 400, 4000)
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The log is in its place, and its file is as long as it gets: what the card takes is new
	// pages of the database alone.
	if _, err := a.db.Read().Exec(`PRAGMA query_only = 0; PRAGMA wal_checkpoint(FULL)`); err != nil {
		t.Fatal(err)
	}
	k.fill(0)
	put(t, a, 400, 430, 4000)
	var clock sync.Mutex
	now := time.Now()
	a.mu.Lock()
	a.since = now
	a.mu.Unlock()
	a.now = func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return now
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.look()
	clock.Lock()
	now = now.Add(commitEvery)
	clock.Unlock()
	a.look()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		left, failing := len(a.pending), a.failing
		a.mu.Unlock()
		if left == 0 {
			break
		}
		if failing != nil || time.Now().After(end) {
			t.Fatalf("%d frames wait: %v", left, failing)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got, err := numbers(a, far[0], far[1])
	if err != nil || len(got) == 0 || got[0] < dropRows || got[0] > 4*dropRows || got[len(got)-1] != 429 || len(got) != 430-got[0] {
		t.Errorf("left are %d frames, from %d to %d, %v; want those from %d on", len(got), got[0], got[len(got)-1], err, dropRows)
	}
	if len(k.states) != 0 || len(k.repaired) != 0 {
		t.Errorf("told %v, %v", k.states, k.repaired)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = k.open()
	defer a.Close()
	if again, err := numbers(a, far[0], far[1]); err != nil || len(again) != len(got) {
		t.Errorf("after a restart %d frames are left, %v", len(again), err)
	}
}

// Where not even that helps, as nothing can be written at all, the frames wait in RAM, are
// answered from there, and somebody is told; with room again they are on the card.
func TestAFullCardThatTakesNothing(t *testing.T) {
	k := newKept(t)
	k.onSmallCard("4m")
	a := k.open()
	put(t, a, 0, 3, 100)
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil { // so that there is no log that could be written over
		t.Fatal(err)
	}
	a = k.open()
	free := k.fill(0)
	put(t, a, 3, 100, 2000)
	for range 3 {
		if err := a.Flush(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		k.want(a, 0, 100)
	}
	if len(k.states) != 1 || !errors.Is(k.states[0], store.ErrUnavailable) {
		t.Errorf("told %v, want that it takes nothing, once", k.states)
	}
	free()
	put(t, a, 100, 110, 2000)
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(k.states) != 2 || k.states[1] != nil {
		t.Errorf("told %v, want that it takes what comes again", k.states)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = k.open()
	defer a.Close()
	k.want(a, 0, 110)
	if len(k.repaired) != 0 {
		t.Errorf("repaired %v", k.repaired)
	}
}
