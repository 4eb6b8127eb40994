package audit

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// verifyPage bounds what is in memory while the log is verified, and how long a
// connection is in use.
const verifyPage = 500

// Verify walks the whole chain. What does not fit is a finding, not an error: the
// first record of that kind, and what was expected of it. An error says that the
// log could not be read.
func (l *Log) Verify(ctx context.Context) (apitype.AuditVerification, error) {
	return l.verify(ctx, 0)
}

// verify rests that long after each page.
func (l *Log) verify(ctx context.Context, rest time.Duration) (apitype.AuditVerification, error) {
	w := walk{keep: l.keep}
	if err := l.seal(ctx); err != nil {
		return apitype.AuditVerification{}, err
	}
	w.written = l.written() // before it is read: it is in what is read then
	for {
		full, err := l.page(ctx, &w)
		if err != nil {
			return apitype.AuditVerification{}, err
		}
		if w.fault != nil || !full {
			return w.result(), nil
		}
		select {
		case <-ctx.Done():
			return apitype.AuditVerification{}, ctx.Err()
		case <-time.After(rest):
		}
	}
}

// page walks one page further and tells whether there may be another.
func (l *Log) page(ctx context.Context, w *walk) (full bool, err error) {
	err = l.read(ctx, func(tx *sql.Tx) error {
		anchor, err := readAnchor(ctx, tx, w)
		if err != nil || w.fault != nil {
			return err
		}
		if !w.begun || anchor.ID > w.at.ID { // those that were next have been dropped meanwhile
			w.begin(anchor)
		}
		after := w.at.ID
		if w.records == 0 {
			after = math.MinInt64 // what stands before the anchor should not be there
		}
		rows, err := readRows(ctx, tx, after, verifyPage)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if w.step(r); w.fault != nil {
				return nil
			}
		}
		if full = len(rows) == verifyPage; !full {
			w.end()
		}
		return nil
	})
	return full, err
}

// readAnchor returns the last record that was dropped. One that is not there or
// cannot be read is a finding.
func readAnchor(ctx context.Context, tx *sql.Tx, w *walk) (h auditlog.Head, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, hash FROM audit_anchor`)
	if err != nil {
		return h, err
	}
	defer rows.Close()
	if !rows.Next() {
		if rows.Err() == nil {
			w.fail(0, "the anchor, which is the last record that was dropped", "none")
		}
		return h, rows.Err()
	}
	var id, hash any
	if err := rows.Scan(&id, &hash); err != nil {
		return h, err
	}
	if !take(&h.ID, id) || !take(&h.Hash, hash) {
		w.fail(0, "the anchor, which is the last record that was dropped", fmt.Sprintf("%T and %T", id, hash))
	}
	return h, rows.Err()
}

// walk is how far a verification is.
type walk struct {
	keep    int64
	written auditlog.Head // of this process, before it began

	begun   bool
	anchor  auditlog.Head
	at      auditlog.Head // last record that fits
	records int64
	since   time.Time // of the first record
	fault   *apitype.AuditFault
}

func (w *walk) begin(anchor auditlog.Head) {
	w.begun, w.anchor, w.at, w.records, w.since = true, anchor, anchor, 0, time.Time{}
}

func (w *walk) fail(id int64, expected, came string) {
	w.fault = &apitype.AuditFault{ID: id, Expected: expected, Came: came}
}

// step compares the next row with what has to come.
func (w *walk) step(r row) {
	switch {
	case r.ID != w.at.ID+1:
		w.fail(min(r.ID, w.at.ID+1), fmt.Sprintf("record %d", w.at.ID+1), fmt.Sprintf("record %d", r.ID))
		return
	case r.unfit != "":
		w.fail(r.ID, "a record as the log writes it", "one that cannot be read: "+r.unfit)
		return
	}
	r.Before = w.at.Hash
	want := r.Hash()
	if !bytes.Equal(want, r.hash) {
		w.fail(r.ID, "the hash "+auditlog.Hex(want), auditlog.Hex(r.hash))
		return
	}
	if w.written.ID == r.ID && !bytes.Equal(w.written.Hash, want) {
		w.fail(r.ID, "the hash "+auditlog.Hex(w.written.Hash)+", which this gateway wrote since it started", auditlog.Hex(want))
		return
	}
	if w.records++; w.records == 1 {
		w.since = store.Time(r.Time)
	}
	w.at = auditlog.Head{ID: r.ID, Hash: want}
}

// end is called when there is no further row.
func (w *walk) end() {
	switch {
	case w.at.ID < w.written.ID:
		w.fail(w.at.ID+1, fmt.Sprintf("records until %d, which this gateway wrote since it started", w.written.ID), fmt.Sprintf("the end at %d", w.at.ID))
	case w.anchor.ID > 0 && w.at.ID-w.anchor.ID < w.keep:
		w.fail(w.anchor.ID, fmt.Sprintf("the newest %d records at least", w.keep), fmt.Sprintf("fewer: those until %d are gone", w.anchor.ID))
	}
}

func (w *walk) result() apitype.AuditVerification {
	v := apitype.AuditVerification{Intact: w.fault == nil, Head: shown(w.at), Records: w.records, Fault: w.fault}
	if w.records > 0 {
		v.Since = &w.since
	}
	return v
}

// Records returns the records after an ID as they are hashed, oldest first: those
// that are kept. With them others verify by themselves that the chain leads from
// a head that they remember to the one that is shown. A cursor takes the place
// of after.
func (l *Log) Records(ctx context.Context, after int64, cursor string, limit int) (apitype.AuditRecordList, error) {
	if cursor != "" {
		var err error
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return apitype.AuditRecordList{}, apitype.Refuse(400, "", "cursor: expected the value of \"next\" of an earlier page")
		}
	}
	if err := l.seal(ctx); err != nil {
		return apitype.AuditRecordList{}, err
	}
	list := apitype.AuditRecordList{Items: []apitype.AuditRecord{}}
	err := l.read(ctx, func(tx *sql.Tx) error {
		// The row before the first one, for its hash, and one more than asked, for whether there is a next page.
		before, err := newest(ctx, tx, `SELECT id, hash FROM audit WHERE id <= ? ORDER BY id DESC LIMIT 1`, after)
		if err != nil {
			return err
		}
		rows, err := readRows(ctx, tx, max(after, before.ID), limit+1)
		if err != nil {
			return err
		}
		for i, r := range rows {
			if i == limit {
				list.Next = strconv.FormatInt(rows[i-1].ID, 10)
				break
			}
			r.Before = before.Hash
			list.Items = append(list.Items, apitype.AuditRecord{ID: r.ID, Record: r.Encode(), Hash: hex.EncodeToString(r.hash)})
			before = auditlog.Head{ID: r.ID, Hash: r.hash}
		}
		return nil
	})
	return list, err
}
