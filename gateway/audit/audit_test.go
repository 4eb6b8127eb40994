package audit

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// ledger is a log in a database of its own.
type ledger struct {
	*Log
	t testing.TB
}

func newLedger(t testing.TB, keep, slack int64) *ledger {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.db")
	storetest.PutConfig(t, path)
	return openLedger(t, path, keep, slack)
}

func openLedger(t testing.TB, path string, keep, slack int64) *ledger {
	t.Helper()
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l := &ledger{New(db, clock.New(time.Now, time.Unix(1_800_000_000, 0))), t}
	l.keep, l.slack = keep, slack
	return l
}

// restarted is the log of another process.
func (l *ledger) restarted() *ledger {
	next := &ledger{New(l.db, l.clock), l.t}
	next.keep, next.slack = l.keep, l.slack
	return next
}

// onlooker is the log of another process that takes nothing in and has written
// nothing: what it finds, the rows alone say.
func (l *ledger) onlooker() *ledger {
	next := l.restarted()
	next.sealed = true
	return next
}

func (l *ledger) record(actor string, status int) int64 {
	l.t.Helper()
	id, err := l.Record(l.t.Context(), apitype.AuditEntry{Actor: actor, Action: "revoke-node", Target: "n1", Remote: "192.0.2.9", Status: status})
	if err != nil {
		l.t.Fatal(err)
	}
	return id
}

func (l *ledger) complete(id int64, target string, status int) {
	l.t.Helper()
	if err := l.Complete(l.t.Context(), id, target, status); err != nil {
		l.t.Fatal(err)
	}
}

// exec is somebody who changes the database by himself.
func (l *ledger) exec(query string, args ...any) {
	l.t.Helper()
	err := l.db.Write(l.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) verified() apitype.AuditVerification {
	l.t.Helper()
	v, err := l.Verify(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	if v.Intact != (v.Fault == nil) {
		l.t.Errorf("intact %v with the fault %v", v.Intact, v.Fault)
	}
	return v
}

func (l *ledger) intact() apitype.AuditVerification {
	l.t.Helper()
	v := l.verified()
	if !v.Intact {
		l.t.Fatalf("not intact: %+v", *v.Fault)
	}
	return v
}

// listed is the whole list, oldest first, in pages of limit.
func (l *ledger) listed(limit int) []string {
	l.t.Helper()
	var list []string
	for cursor := ""; ; {
		page, err := l.List(l.t.Context(), cursor, limit)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, e := range page.Items {
			list = append(list, fmt.Sprintf("%d %s %s %s %s %d", e.ID, e.Actor, e.Action, e.Target, e.Remote, e.Status))
		}
		if cursor = page.Next; cursor == "" {
			slices.Reverse(list)
			return list
		}
	}
}

func (l *ledger) head() auditlog.Head {
	l.t.Helper()
	var h auditlog.Head
	err := l.read(l.t.Context(), func(tx *sql.Tx) (err error) {
		h, err = tail(l.t.Context(), tx)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// trace is what somebody finds who remembers a head.
func (l *ledger) trace(from auditlog.Head) error {
	l.t.Helper()
	return auditlog.Trace(from, l.head(), l.keep, func(after int64) ([][]byte, error) {
		list, err := l.Records(l.t.Context(), after, "", 7)
		var records [][]byte
		for _, r := range list.Items {
			records = append(records, r.Record)
		}
		return records, err
	})
}

// For people there is one entry of a request, whose outcome comes to it.
func TestAnEntryAndItsOutcomeAreOne(t *testing.T) {
	l := newLedger(t, 100, 10)
	empty := l.intact()
	if empty.Head != (apitype.AuditHead{}) || empty.Records != 0 || empty.Since != nil {
		t.Errorf("an empty log: %+v", empty)
	}
	a := l.record("user:root", 0)
	b := l.record("token:b", 0)
	c := l.record("user:login", 200) // the outcome alone
	l.complete(b, "n2", 204)
	d := l.record("user:root", 0) // its outcome never comes
	l.complete(a, "n1", 404)
	want := []string{
		fmt.Sprint(a, " user:root revoke-node n1 192.0.2.9 404"), fmt.Sprint(b, " token:b revoke-node n2 192.0.2.9 204"),
		fmt.Sprint(c, " user:login revoke-node n1 192.0.2.9 200"), fmt.Sprint(d, " user:root revoke-node n1 192.0.2.9 0"),
	}
	for _, limit := range []int{1, 2, 100} {
		if got := l.listed(limit); !slices.Equal(got, want) {
			t.Errorf("in pages of %d:\n%s\nwant\n%s", limit, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	v := l.intact()
	page, err := l.List(t.Context(), "", 1)
	if err != nil || page.Head != v.Head || v.Head.ID != 6 || v.Records != 6 || v.Since == nil || time.Since(*v.Since) > time.Hour && v.Since.Unix() != 1_800_000_000 {
		t.Errorf("got %+v, the list's head %+v, %v", v, page.Head, err)
	}
	for name, id := range map[string]int64{"twice": a, "of nothing": 99, "of an outcome": b + 2} {
		if err := l.Complete(t.Context(), id, "n1", 200); err == nil {
			t.Errorf("an outcome %s was taken", name)
		}
	}
	if _, err := l.List(t.Context(), "x", 1); err == nil {
		t.Error("a cursor of somebody's own was taken")
	}
	if after := l.intact(); after.Head != v.Head {
		t.Errorf("what was refused is in the log: %+v", after)
	}
}

func TestTheOldestAreDroppedAndTheRestVerifies(t *testing.T) {
	const keep, slack = 20, 5
	l := newLedger(t, keep, slack)
	var first int64
	for n := int64(1); n <= 3*(keep+slack); n++ {
		if id := l.record("user:root", 0); n == 1 {
			first = id
		}
		v := l.intact()
		if n > keep && (v.Records < keep || v.Records > keep+slack) || n <= keep && v.Records != n {
			t.Fatalf("after %d there are %d", n, v.Records)
		}
	}
	if err := l.Complete(t.Context(), first, "n1", 200); err == nil {
		t.Error("an entry that is gone was completed")
	}
	// An entry goes before its outcome; the outcome alone is nothing to list.
	id := l.record("user:root", 0)
	l.complete(id, "n1", 200)
	for l.record("user:eve", 200) < id+keep+slack {
	}
	if list := l.listed(10); strings.Contains(strings.Join(list, "\n"), "user:root") {
		t.Errorf("got %q", list)
	}
	l.intact()
	l.restarted().intact()
}

// Nobody waits for another, and no two records take the same place.
func TestManyAtOnce(t *testing.T) {
	const people, each = 6, 10
	l := newLedger(t, 1000, 10)
	ctx, stop := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for ctx.Err() == nil {
			v, err := l.Verify(t.Context())
			if err != nil || !v.Intact {
				t.Errorf("meanwhile: %+v, %v", v.Fault, err)
				return
			}
		}
	})
	for p := range people {
		writers.Go(func() {
			for n := range each {
				id, err := l.Record(t.Context(), apitype.AuditEntry{Actor: fmt.Sprint("user:", p)})
				if err == nil {
					err = l.Complete(t.Context(), id, fmt.Sprint(p), 200+n)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
	if v := l.intact(); v.Records != 2*people*each {
		t.Errorf("%d records, want %d", v.Records, 2*people*each)
	}
	seen := map[string]int{}
	for _, line := range l.listed(100) {
		var id, status int
		var actor, target string
		if _, err := fmt.Sscanf(strings.ReplaceAll(line, "  ", " "), "%d %s %s %d", &id, &actor, &target, &status); err != nil || actor != "user:"+target || status != 200+seen[actor] {
			t.Errorf("got %q", line)
		}
		seen[actor]++
	}
	if len(seen) != people {
		t.Errorf("got %v", seen)
	}
}

// While a walk is under way the log grows and drops what comes next.
func TestAWalkIsOvertaken(t *testing.T) {
	const keep = 3 * verifyPage
	l := newLedger(t, keep, 10)
	bulk := func(n int) {
		t.Helper()
		err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
			for range n {
				h, err := l.append(t.Context(), tx, auditlog.Record{Actor: "user:root"})
				if err == nil {
					err = l.drop(t.Context(), tx, h.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	bulk(keep)
	w := walk{keep: keep}
	for n := 0; ; n++ {
		full, err := l.page(t.Context(), &w)
		if err != nil || w.fault != nil {
			t.Fatal(w.fault, err)
		}
		if !full {
			break
		}
		if n == 0 {
			bulk(keep) // all that has been walked is gone, and more
		}
	}
	if v := w.result(); !v.Intact || v.Head.ID != 2*keep || v.Records < keep || v.Records > keep+10 {
		t.Errorf("got %+v", v)
	}
}

// before makes the database as the release before the chain left it.
func before(t *testing.T, path string, rows int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("../store/config"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	formerRelease(t, tx, rows)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// formerRelease does what that release does with the log, n times.
func formerRelease(t *testing.T, tx *sql.Tx, n int) {
	t.Helper()
	for range n {
		var id int64
		err := tx.QueryRow(`INSERT INTO audit (time, actor, action, target, remote, status) VALUES (?, ?, ?, ?, ?, ?) RETURNING id`, 1_700_000_000_000, "user:old", "update-node", "", "::1", 0).Scan(&id)
		if err == nil {
			_, err = tx.Exec(`DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?`, 50)
		}
		if err == nil {
			_, err = tx.Exec(`UPDATE audit SET target = ?, status = ? WHERE id = ?`, "gw", 200, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestALogOfAFormerRelease(t *testing.T) {
	for _, tc := range []struct {
		name        string
		rows        int
		first, last int64 // of what is there
	}{{"empty", 0, 1, 0}, {"some", 7, 1, 7}, {"full", 80, 31, 80}} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			before(t, path, tc.rows)
			l := openLedger(t, path, 50, 10)
			v := l.intact()
			n := tc.last - tc.first + 1
			if n > 0 {
				n++ // the log's own record of it
			}
			if v.Records != n {
				t.Errorf("%d records, want %d", v.Records, n)
			}
			list := l.listed(10)
			if int64(len(list)) != n {
				t.Errorf("%d entries, want %d", len(list), n)
			}
			if n > 0 {
				own := fmt.Sprintf("%d system seal-audit-log entries %d to %d  200", tc.last+1, tc.first, tc.last)
				if list[0] != fmt.Sprint(tc.first, " user:old update-node gw ::1 200") || list[len(list)-1] != own {
					t.Errorf("from %q to %q, want at the end %q", list[0], list[len(list)-1], own)
				}
			}
			id := l.record("user:new", 0)
			l.complete(id, "n1", 200)
			for range 30 {
				l.record("user:new", 200)
			}
			l.intact()
			if again := l.restarted(); again.intact().Head != l.intact().Head {
				t.Error("another start has written something")
			}
		})
	}
}

// An update may go back to the release before, which knows nothing of the chain.
func TestBackToTheReleaseBeforeAndForth(t *testing.T) {
	l := newLedger(t, 50, 10)
	for range 20 {
		l.complete(l.record("user:new", 0), "n1", 200)
	}
	remembered := l.head()
	former := func(n int) {
		t.Helper()
		err := l.db.Write(t.Context(), func(tx *sql.Tx) error { formerRelease(t, tx, n); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	former(15) // it drops five, which leave an anchor
	l = l.restarted()
	v := l.intact()
	if v.Head.ID != 56 || v.Records != 51 {
		t.Errorf("got %+v", v)
	}
	if err := l.trace(remembered); err != nil {
		t.Error(err)
	}
	list := l.listed(100)
	if got, want := list[len(list)-1], "56 system seal-audit-log entries 41 to 55  200"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	former(200) // all that was chained is gone
	l = l.restarted()
	if v := l.intact(); v.Head.ID != 257 || v.Records != 51 {
		t.Errorf("got %+v", v)
	}
	if err := l.trace(remembered); err != auditlog.ErrDropped {
		t.Errorf("got %v, want %v", err, auditlog.ErrDropped)
	}
}
