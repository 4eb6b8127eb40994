package store

import (
	"errors"
	"path/filepath"
	"testing"

	"halo.internal/gateway/reserve"
)

func TestBudgetIsAThirdOfTheFileSystem(t *testing.T) {
	for _, tc := range []struct{ budget, size, want int64 }{
		{128 << 20, 30 << 30, 128 << 20}, {128 << 20, 300 << 20, 100 << 20}, {128 << 20, 0, 128 << 20},
	} {
		if got := within(tc.budget, tc.size); got != tc.want {
			t.Errorf("%d on a file system of %d: got %d, want %d", tc.budget, tc.size, got, tc.want)
		}
	}
	dir := smallDisk(t, "6m")
	if got := openJournal(t, filepath.Join(dir, "t.db"), 1<<30).Budget(); got != 2<<20 {
		t.Errorf("on a file system of 6 MiB: got %d, want 2 MiB", got)
	}
}

// group stores the next batches as the ingest does, and returns the last
// sequence number and how many old ones that cost.
func group(t *testing.T, j *Journal, seq uint64, n int) (last uint64, dropped int64) {
	t.Helper()
	var entries []Entry
	var need int64
	for range n {
		seq++
		e := batch(t, "n-a", 1, seq)
		entries, need = append(entries, e), need+int64(len(e.Data))
	}
	_, err := j.Append(t.Context(), entries)
	for tries := 0; errors.Is(err, ErrFull) && tries < 3; tries++ {
		d, roomErr := j.MakeRoom(t.Context(), need)
		if dropped += d; roomErr != nil && !errors.Is(roomErr, ErrFull) {
			t.Fatal(roomErr)
		}
		if _, err = j.Append(t.Context(), entries); errors.Is(err, ErrFull) {
			_ = reserve.New(filepath.Dir(j.db.path)).Look() // as the gateway does every few seconds
		}
	}
	if err != nil {
		t.Fatalf("up to %d: %v", seq, err)
	}
	d, err := j.Trim(t.Context())
	if err != nil && !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	return seq, dropped + d
}

// However full others make the file system, new batches are stored in place of
// the oldest, and coverage tells those from losses.
func TestAFullFileSystemCostsTheOldestBatches(t *testing.T) {
	dir := smallDisk(t, "32m")
	if err := reserve.New(dir).Look(); err != nil {
		t.Fatal(err)
	}
	j := openJournal(t, filepath.Join(dir, "t.db"), 1<<30)
	var seq uint64
	var dropped, d int64
	for range 80 {
		seq, _ = group(t, j, seq, 200)
	}
	fillUp(t, dir)
	for dropped == 0 {
		seq, d = group(t, j, seq, 100)
		if dropped += d; seq > 100_000 {
			t.Fatal("nothing was ever dropped")
		}
	}
	for range 200 { // as often as it takes to go round in what is left
		seq, d = group(t, j, seq, 100)
		dropped += d
	}
	c, err := j.Coverage(t.Context(), "n-a")
	if err != nil {
		t.Fatal(err)
	}
	b := c.Boots[0]
	if b.Last != seq || len(b.Missing) != 0 || b.Dropped != uint64(dropped) || b.Count < 1000 {
		t.Errorf("got %+v, want all up to %d, of which the oldest %d dropped and a good part kept", b, seq, dropped)
	}
}

// While little is free the database does not grow, whoever takes the rest.
func TestTheReserveIsLeftFree(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 1<<30)
	const size = 4 << 20 // a reserve of 256 KiB
	free := int64(size)
	j.space = func() (int64, int64) { return size, free }
	var seq uint64
	var d int64
	for range 80 { // well beyond smallJournal
		if seq, d = group(t, j, seq, 200); d != 0 {
			t.Fatalf("%d were dropped while there was room", d)
		}
	}
	file := func() (n int64) {
		if err := j.db.read.QueryRow(`SELECT p.page_count * s.page_size FROM pragma_page_count p, pragma_page_size s`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := file()
	free = 100 << 10
	for range 40 {
		seq, _ = group(t, j, seq, 200)
	}
	if after := file(); after > before+64<<10 {
		t.Errorf("the file grew from %d to %d octets", before, after)
	}
	if used, err := j.db.Bytes(t.Context()); err != nil || used > before-(size/reservePart-free)+64<<10 {
		t.Errorf("%d of %d octets are used, %v", used, before, err)
	}
	free = size
	if _, d = group(t, j, seq, 200); d != 0 {
		t.Errorf("%d were dropped after room came back", d)
	}
}

// A full disk is not the fault of a journal that holds next to nothing: what was
// acknowledged stays, and what is new is refused.
func TestASmallJournalIsLeftAlone(t *testing.T) {
	dir := smallDisk(t, "32m")
	j := openJournal(t, filepath.Join(dir, "t.db"), 1<<30)
	seq, _ := group(t, j, 0, 200)
	fillUp(t, dir)
	j.space = func() (int64, int64) { return 32 << 20, 0 }
	if dropped, err := j.Trim(t.Context()); dropped != 0 || err != nil {
		t.Errorf("trimming dropped %d, %v", dropped, err)
	}
	if dropped, err := j.MakeRoom(t.Context(), 64<<10); dropped != 0 || err != nil {
		t.Errorf("making room dropped %d, %v", dropped, err)
	}
	c, err := j.Coverage(t.Context(), "n-a")
	if err != nil || len(c.Boots) != 1 || c.Boots[0].Count != seq || c.Boots[0].Dropped != 0 {
		t.Errorf("got %+v, %v, want all %d batches", c, err, seq)
	}
}
