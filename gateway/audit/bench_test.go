package audit

import (
	"context"
	"database/sql"
	"testing"

	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// fill adds n records, as if requests had come one after the other.
func (l *ledger) fill(n int) {
	l.t.Helper()
	err := l.db.Write(context.Background(), func(tx *sql.Tx) error {
		for range n {
			if _, err := l.append(context.Background(), tx, auditlog.Record{Actor: "user:root", Action: "update-node", Target: "n-aaaaaaaaaaaaaaaaaaaa", Remote: "fd12::1", Status: 200}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// BenchmarkVerify walks a full log.
func BenchmarkVerify(b *testing.B) {
	l := newLedger(b, auditlog.Kept, dropAtOnce)
	l.fill(auditlog.Kept)
	for b.Loop() {
		if v, err := l.Verify(b.Context()); err != nil || !v.Intact {
			b.Fatal(v.Fault, err)
		}
	}
	b.ReportMetric(float64(auditlog.Kept)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkSeal takes in a full log of a former release: once after the update.
func BenchmarkSeal(b *testing.B) {
	l := newLedger(b, auditlog.Kept, dropAtOnce)
	l.fill(auditlog.Kept)
	l.exec(blind)
	for b.Loop() {
		b.StopTimer()
		l.exec(`UPDATE audit SET hash = NULL; DELETE FROM audit WHERE action = '` + sealAction + `'`)
		b.StartTimer()
		if err := l.restarted().seal(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequest is an entry and its outcome, each committed.
func BenchmarkRequest(b *testing.B) {
	l := newLedger(b, auditlog.Kept, dropAtOnce)
	l.fill(auditlog.Kept)
	for b.Loop() {
		id, err := l.Record(b.Context(), apitype.AuditEntry{Actor: "user:root", Action: "update-node"})
		if err == nil {
			err = l.Complete(b.Context(), id, "n1", 200)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
