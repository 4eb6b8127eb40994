package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/auditlog"
)

// saved are the tables of a log, to be brought back after somebody was at them.
type saved struct {
	l       *ledger
	trigger string
}

func (l *ledger) save() saved {
	l.t.Helper()
	s := saved{l: l}
	if err := l.db.Read().QueryRow(`SELECT sql FROM sqlite_master WHERE name = 'audit_dropped'`).Scan(&s.trigger); err != nil {
		l.t.Fatal(err)
	}
	l.exec(`DROP TABLE IF EXISTS saved_audit; CREATE TABLE saved_audit AS SELECT * FROM audit;
		DROP TABLE IF EXISTS saved_anchor; CREATE TABLE saved_anchor AS SELECT * FROM audit_anchor`)
	return s
}

func (s saved) restore() {
	s.l.t.Helper()
	s.l.exec(`DROP TRIGGER IF EXISTS audit_dropped;
		DELETE FROM audit; INSERT INTO audit SELECT * FROM saved_audit;
		DELETE FROM audit_anchor; INSERT INTO audit_anchor SELECT * FROM saved_anchor; ` + s.trigger)
}

// shift makes room for a row at id.
func (l *ledger) shift(id int64) {
	l.exec(`UPDATE audit SET id = -(id + 1) WHERE id >= ?; UPDATE audit SET id = -id WHERE id < 0`, id)
}

// rewrite computes all hashes anew: they are no secret.
func (l *ledger) rewrite() {
	l.t.Helper()
	l.exec(`UPDATE audit SET hash = NULL`)
	if err := l.restarted().seal(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.exec(`DELETE FROM audit WHERE action = '` + sealAction + `'`)
	l.exec(`UPDATE audit_anchor SET id = (SELECT min(id) - 1 FROM audit)`) // the trigger has moved it
}

const blind = `DROP TRIGGER audit_dropped` // who knows the log does not trip over that

// change is one way of tampering. at is a row in the middle, newest the last.
type change struct {
	name string
	do   func(l *ledger, at, newest int64)
	rest bool // the rest fits: who remembers a head finds it, the gateway only if too few records are left
	from bool // it concerns the newest, or what is from at on
}

var changes = []change{
	{name: "an actor edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET actor = actor || 'x' WHERE id = ?`, at) }},
	{name: "an action edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET action = 'login' WHERE id = ?`, at) }},
	{name: "a target edited", do: func(l *ledger, at, _ int64) {
		l.exec(`UPDATE audit SET target = 'another' WHERE id = ?`, at)
	}},
	{name: "an address edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET remote = '::1' WHERE id = ?`, at) }},
	{name: "texts moved across columns", do: func(l *ledger, at, _ int64) {
		l.exec(`UPDATE audit SET actor = actor || action, action = '' WHERE id = ?`, at)
	}},
	{name: "a time edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET time = time - 1 WHERE id = ?`, at) }},
	{name: "a status edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET status = 403 WHERE id = ?`, at) }},
	{name: "a status that is no number", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET status = 'done' WHERE id = ?`, at) }},
	{name: "a row hidden from the list", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET completes = -1 WHERE id = ?`, at) }},
	{name: "a row hidden by a type", do: func(l *ledger, at, _ int64) {
		l.exec(`UPDATE audit SET completes = CAST(CAST(completes AS TEXT) AS BLOB) WHERE id = ?`, at)
	}},
	{name: "a hash edited", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET hash = randomblob(32) WHERE id = ?`, at) }},
	{name: "a hash taken away", do: func(l *ledger, at, _ int64) { l.exec(`UPDATE audit SET hash = NULL WHERE id = ?`, at) }},
	{name: "a row edited and hashed anew", do: func(l *ledger, at, _ int64) {
		l.exec(`UPDATE audit SET actor = 'user:eve' WHERE id = ?`, at)
		l.rehash(at)
	}},
	{name: "a row deleted", do: func(l *ledger, at, _ int64) { l.exec(`DELETE FROM audit WHERE id = ?`, at) }},
	{name: "a row deleted blindly", do: func(l *ledger, at, _ int64) { l.exec(blind+`; DELETE FROM audit WHERE id = ?`, at) }},
	{name: "a row deleted, the gap closed", do: func(l *ledger, at, _ int64) {
		l.exec(blind)
		l.exec(`DELETE FROM audit WHERE id = ?`, at)
		l.exec(`UPDATE audit SET id = -(id - 1) WHERE id > ?`, at)
		l.exec(`UPDATE audit SET id = -id WHERE id < 0`)
	}},
	{name: "the oldest deleted", do: func(l *ledger, at, _ int64) { l.exec(`DELETE FROM audit WHERE id <= ?`, at) }},
	{name: "the oldest deleted blindly", do: func(l *ledger, _, _ int64) {
		l.exec(blind)
		l.exec(`DELETE FROM audit WHERE id = (SELECT min(id) FROM audit)`)
	}},
	{name: "the newest deleted", from: true, do: func(l *ledger, at, _ int64) { l.exec(`DELETE FROM audit WHERE id >= ?`, at) }},
	{name: "all deleted", from: true, do: func(l *ledger, _, _ int64) { l.exec(`DELETE FROM audit`) }},
	{name: "the newest deleted blindly", from: true, rest: true, do: func(l *ledger, at, _ int64) { l.exec(blind+`; DELETE FROM audit WHERE id >= ?`, at) }},
	{name: "the newest deleted blindly, others added", from: true, rest: true, do: func(l *ledger, at, newest int64) {
		l.exec(blind)
		l.exec(`DELETE FROM audit WHERE id >= ?`, at)
		for next := l.restarted(); next.record("user:root", 200) < newest; {
		}
	}},
	{name: "all written anew", rest: true, do: func(l *ledger, at, _ int64) {
		l.exec(blind)
		l.exec(`UPDATE audit SET actor = 'user:eve' WHERE id = ?`, at)
		l.rewrite()
	}},
	{name: "two contents swapped", do: func(l *ledger, at, _ int64) {
		l.exec(`UPDATE audit AS a SET (time, actor, action, target, remote, status, hash) =
			(SELECT time, actor, action, target, remote, status, hash FROM audit AS b WHERE b.id = ?1 + ?2 - a.id) WHERE id IN (?1, ?2)`, at, at+1)
	}},
	{name: "two rows swapped", do: func(l *ledger, at, newest int64) {
		l.exec(`UPDATE audit SET id = -1 WHERE id = ?`, at)
		l.exec(`UPDATE audit SET id = ? WHERE id = ?`, at, newest)
		l.exec(`UPDATE audit SET id = ? WHERE id = -1`, newest)
	}},
	{name: "a row inserted", do: func(l *ledger, at, _ int64) {
		l.shift(at)
		l.exec(`INSERT INTO audit (id, time, actor, action, target, remote, status, hash) SELECT ?, time, 'user:eve', action, target, remote, status, hash FROM audit WHERE id = ?`, at, at+1)
	}},
	{name: "a row added without a hash", from: true, do: func(l *ledger, _, _ int64) {
		l.exec(`INSERT INTO audit (time, actor, action, target, remote, status) VALUES (1, 'user:eve', '', '', '', 200)`)
	}},
	{name: "a row added with a hash", from: true, do: func(l *ledger, _, _ int64) {
		l.exec(`INSERT INTO audit (time, actor, action, target, remote, status, hash) VALUES (1, 'user:eve', '', '', '', 200, randomblob(32))`)
	}},
	{name: "a row before all others", do: func(l *ledger, _, _ int64) {
		l.exec(`INSERT INTO audit (id, time, actor, action, target, remote, status, hash) SELECT -5, 1, 'user:eve', '', '', '', 200, hash FROM audit_anchor`)
	}},
	{name: "the anchor's ID raised", do: func(l *ledger, _, _ int64) { l.exec(`UPDATE audit_anchor SET id = id + 1`) }},
	{name: "the anchor's ID lowered", do: func(l *ledger, _, _ int64) { l.exec(`UPDATE audit_anchor SET id = id - 1`) }},
	{name: "the anchor's hash edited", do: func(l *ledger, _, _ int64) { l.exec(`UPDATE audit_anchor SET hash = randomblob(32)`) }},
	{name: "the anchor of another type", do: func(l *ledger, _, _ int64) { l.exec(`UPDATE audit_anchor SET id = 'none'`) }},
	{name: "the anchor deleted", do: func(l *ledger, _, _ int64) { l.exec(`DELETE FROM audit_anchor`) }},
}

// rehash gives a row the hash that would fit.
func (l *ledger) rehash(id int64) {
	l.t.Helper()
	tx, err := l.db.Read().Begin()
	if err != nil {
		l.t.Fatal(err)
	}
	before, err := newest(l.t.Context(), tx, `SELECT id, hash FROM audit WHERE id < ? ORDER BY id DESC LIMIT 1`, id)
	if err != nil {
		l.t.Fatal(err)
	}
	rows, err := readRows(l.t.Context(), tx, id-1, 1)
	if err = errors.Join(err, tx.Rollback()); err != nil {
		l.t.Fatal(err)
	}
	rows[0].Before = before.Hash
	l.exec(`UPDATE audit SET hash = ? WHERE id = ?`, rows[0].Hash(), id)
}

// Whatever was recorded, completed and dropped before: the log is intact and says
// what was done, and each single kind of tampering is found, by the gateway or by
// who remembers a head.
func TestTamperingIsFound(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 6))
			keep := 8 + random.Int64N(25)
			l := newLedger(t, keep, 1+random.Int64N(6))
			var want []string // what has to be listed
			var ids, open []int64
			text := func() string {
				b := make([]byte, random.IntN(6))
				for i := range b {
					b[i] = byte(random.IntN(256))
				}
				return string(b)
			}
			// Enough for something to have been dropped, but in the first round.
			for range min(seed*40, 1)*uint64(keep) + 12 {
				if len(open) > 0 && random.IntN(2) == 0 {
					at := random.IntN(len(open))
					id, target := open[at], text()
					open = slices.Delete(open, at, at+1)
					if i := slices.Index(ids, id); l.Complete(t.Context(), id, target, 204) == nil {
						want[i] = fmt.Sprintf("%d %s revoke-node %s 192.0.2.9 204", id, strings.Fields(want[i])[1], target)
					}
					continue
				}
				who, status := fmt.Sprint("user:", random.IntN(100)), random.IntN(2)*200
				id := l.record(who, status)
				ids, want = append(ids, id), append(want, fmt.Sprintf("%d %s revoke-node n1 192.0.2.9 %d", id, who, status))
				if status == 0 {
					open = append(open, id)
				}
			}
			for l.head().ID%2 != int64(seed%2) { // the newest is an entry or an outcome
				id := l.record("user:last", 0)
				ids, want = append(ids, id), append(want, fmt.Sprintf("%d user:last revoke-node n1 192.0.2.9 0", id))
			}
			v := l.intact()
			newest := v.Head.ID
			oldest := newest - v.Records + 1
			for ids[0] < oldest {
				ids, want = ids[1:], want[1:]
			}
			if got := l.listed(1 + random.IntN(10)); !slices.Equal(got, want) {
				t.Fatalf("listed are\n%q\nwant\n%q", got, want)
			}
			head := l.head()
			if err := l.trace(head); err != nil {
				t.Fatal(err)
			}

			s := l.save()
			for _, c := range changes {
				at := oldest + 1 + random.Int64N(newest-oldest-1) // neither end
				c.do(l, at, newest)
				switch v := l.onlooker().verified(); {
				case v.Intact && !c.rest, !v.Intact && c.rest && oldest == 1: // the second is what nobody but others can find
					t.Errorf("%s, at %d of %d to %d: found %v", c.name, at, oldest, newest, v.Fault)
				case !c.from && !c.rest && v.Fault.ID > at+1:
					t.Errorf("%s, at %d of %d to %d: found at %d", c.name, at, oldest, newest, v.Fault.ID)
				}
				if c.rest {
					err := l.trace(head)
					if _, ok := errors.AsType[*auditlog.BreakError](err); !ok {
						t.Errorf("%s, at %d of %d to %d: who remembers the head gets %v", c.name, at, oldest, newest, err)
					}
					if v := l.verified(); v.Intact {
						t.Errorf("%s, at %d of %d to %d: the process that wrote it does not find it", c.name, at, oldest, newest)
					}
				}
				s.restore()
			}
			if v := l.onlooker().intact(); v.Head.ID != newest {
				t.Errorf("brought back: %+v", v)
			}
		})
	}
}

// The finding says where, what was expected and what came.
func TestWhatIsSaidOfAFinding(t *testing.T) {
	l := newLedger(t, 6, 1)
	for range 12 {
		l.record("user:root", 200)
	}
	oldest, newest := l.intact().Head.ID-l.intact().Records+1, l.head().ID
	s := l.save()
	for _, tc := range []struct {
		name, sql      string
		id             int64
		expected, came string // parts
	}{
		{"edited", `UPDATE audit SET actor = 'user:eve' WHERE id = 9`, 9, "the hash ", ""},
		{"no hash", `UPDATE audit SET hash = NULL WHERE id = 9`, 9, "the hash ", "none"},
		{"type", `UPDATE audit SET status = 'done' WHERE id = 9`, 9, "a record as the log writes it", "the column status holds string"},
		{"gap", blind + `; DELETE FROM audit WHERE id IN (9, 10)`, 9, "record 9", "record 11"},
		{"early", `DELETE FROM audit WHERE id <= 9`, 9, "the newest 6 records at least", "those until 9 are gone"},
		{"before the anchor", `INSERT INTO audit (id, time, actor, action, target, remote, status) VALUES (2, 1, '', '', '', '', 0)`, 2, fmt.Sprint("record ", oldest), "record 2"},
		{"anchor gone", `DELETE FROM audit_anchor`, 0, "the anchor", "none"},
		{"end gone", blind + `; DELETE FROM audit WHERE id >= 12`, 12, "which this gateway wrote since it started", "the end at 11"},
	} {
		l.exec(tc.sql)
		v := l.verified()
		if v.Fault == nil || v.Fault.ID != tc.id || !strings.Contains(v.Fault.Expected, tc.expected) || !strings.Contains(v.Fault.Came, tc.came) {
			t.Errorf("%s: got %+v, want record %d, %q, %q", tc.name, v.Fault, tc.id, tc.expected, tc.came)
		}
		s.restore()
	}
	if v := l.intact(); v.Head.ID != newest {
		t.Errorf("brought back: %+v", v)
	}
}

// The log goes on whatever was done to it: what is not recorded is not done, and
// who tampers must not be able to lock people out.
func TestATamperedLogGoesOn(t *testing.T) {
	l := newLedger(t, 20, 2)
	for range 10 {
		l.record("user:root", 200)
	}
	s := l.save()
	for _, c := range changes {
		c.do(l, 5, 10)
		next := l.restarted()
		for range 3 {
			id := next.record("user:root", 0)
			next.complete(id, "n2", 200)
		}
		if list := next.listed(10); !strings.HasSuffix(list[len(list)-1], "user:root revoke-node n2 192.0.2.9 200") {
			t.Errorf("%s: listed last is %q", c.name, list[len(list)-1])
		}
		s.restore()
	}
}

// What is added without a hash while no gateway runs looks like a row of a former
// release. It is taken in, and everybody sees that.
func TestWhatIsTakenInIsListed(t *testing.T) {
	l := newLedger(t, 20, 2)
	l.record("user:root", 200)
	l.exec(`INSERT INTO audit (time, actor, action, target, remote, status) VALUES (1, 'user:eve', '', '', '', 200)`)
	l.exec(`INSERT INTO audit (time, actor, action, target, remote, status) VALUES (1, 'user:eve', '', '', '', 'done')`)
	v := l.restarted().verified()
	if v.Intact || v.Fault.ID != 3 {
		t.Errorf("a row that no release writes: %+v", v.Fault)
	}
	l.exec(`UPDATE audit SET status = 200 WHERE id = 3`)
	if list := l.listed(10); list[3] != "4 system seal-audit-log entries 2 to 3  200" {
		t.Errorf("got %q", list)
	}
}

// A finding is told of once, however often the gateway starts, and another is
// another event.
func TestAFindingIsAnEventOnce(t *testing.T) {
	l := newLedger(t, 20, 2)
	for range 10 {
		l.record("user:root", 200)
	}
	boot := uint64(0)
	start := func() (told []model.Event) {
		t.Helper()
		boot++
		log := events.New(l.db, l.clock, boot, slog.New(slog.DiscardHandler))
		ended, cancel := context.WithCancel(t.Context())
		watched := make(chan error)
		ctx, stop := context.WithCancel(t.Context())
		next := l.onlooker()
		if v := next.verified(); v.Fault != nil {
			if err := tell(t.Context(), log, *v.Fault); err != nil {
				t.Fatal(err)
			}
		}
		go func() { watched <- next.Watch(ctx, log, slog.New(slog.DiscardHandler)) }()
		stop()
		if err := <-watched; err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := log.Run(ended); err != nil { // writes what waits
			t.Fatal(err)
		}
		list, _, err := log.List(t.Context(), events.Query{Kind: "audit.", Severity: model.Error, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			told = append(told, e.Event)
		}
		return told
	}
	if told := start(); len(told) != 0 {
		t.Errorf("of an intact log: %+v", told)
	}
	l.exec(`UPDATE audit SET actor = 'user:eve' WHERE id = 5`)
	start()
	start()
	if told := start(); len(told) != 1 || told[0].Kind != "audit.tampered" || told[0].Fields["record"] != "5" || told[0].Fields["came"] == "" {
		t.Errorf("got %+v", told)
	}
	l.exec(`UPDATE audit SET actor = 'user:eve' WHERE id = 3`)
	start()
	if told := start(); len(told) != 2 || told[0].Fields["record"] != "3" {
		t.Errorf("got %+v", told)
	}
}
