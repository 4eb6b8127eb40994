package audit

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// What the log notes of itself when it takes in rows that have no hash.
const (
	sealActor  = "system"
	sealAction = "seal-audit-log"
	sealPage   = 500
)

// shown is a head as the API has it.
func shown(h auditlog.Head) apitype.AuditHead {
	return apitype.AuditHead{ID: h.ID, Hash: hex.EncodeToString(h.Hash)}
}

// tail returns the head of the chain: the newest row, or where there is none what
// was dropped last.
func tail(ctx context.Context, tx *sql.Tx) (auditlog.Head, error) {
	return newest(ctx, tx, `SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1`)
}

// newest returns the row that a query finds, or where there is none the anchor. If
// that is gone, too, which Verify tells of, the chain begins anew.
func newest(ctx context.Context, tx *sql.Tx, query string, args ...any) (h auditlog.Head, err error) {
	err = tx.QueryRowContext(ctx, query, args...).Scan(&h.ID, &h.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.QueryRowContext(ctx, `SELECT id, hash FROM audit_anchor`).Scan(&h.ID, &h.Hash)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return auditlog.Head{}, nil
	}
	return h, err
}

// append adds a record to the chain and returns its new head.
func (l *Log) append(ctx context.Context, tx *sql.Tx, r auditlog.Record) (auditlog.Head, error) {
	before, err := tail(ctx, tx)
	if err != nil {
		return auditlog.Head{}, err
	}
	r.ID, r.Before, r.Time = before.ID+1, before.Hash, store.Millis(l.clock.Now())
	head := auditlog.Head{ID: r.ID, Hash: r.Hash()}
	_, err = tx.ExecContext(ctx, `INSERT INTO audit (id, completes, time, actor, action, target, remote, status, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.ID, r.Completes, r.Time, r.Actor, r.Action, r.Target, r.Remote, r.Status, head.Hash)
	return head, err
}

// drop drops the oldest records when there are too many. A trigger keeps the
// last of them as the anchor.
func (l *Log) drop(ctx context.Context, tx *sql.Tx, newest int64) error {
	through := newest - l.keep
	_, err := tx.ExecContext(ctx, `DELETE FROM audit WHERE id <= ? AND (SELECT min(id) FROM audit) <= ?`, through, through-l.slack)
	return err
}

// wrote notes the newest of what this process has written.
func (l *Log) wrote(h auditlog.Head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.ID > l.last.ID {
		l.last = h
	}
}

func (l *Log) written() auditlog.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// seal gives the rows at the end that have no hash, which a release before the
// chain has left, their place in it, and records that it did: until then nothing
// protected them. No such release runs beside this process, so that once is
// enough; what lacks a hash later was put there by somebody else.
func (l *Log) seal(ctx context.Context) error {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	if l.sealed {
		return nil
	}
	var head auditlog.Head
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		at, err := newest(ctx, tx, `SELECT id, hash FROM audit WHERE hash IS NOT NULL ORDER BY id DESC LIMIT 1`)
		if err != nil {
			return err
		}
		first := at.ID + 1
		for {
			rows, err := readRows(ctx, tx, at.ID, sealPage)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for _, r := range rows {
				// One that cannot be read gets a hash that never fits, and nothing else stops.
				hash := []byte{}
				if r.unfit == "" {
					r.Before = at.Hash
					hash = r.Hash()
				}
				if _, err := tx.ExecContext(ctx, `UPDATE audit SET hash = ? WHERE id = ?`, hash, r.ID); err != nil {
					return err
				}
				at = auditlog.Head{ID: r.ID, Hash: hash}
			}
		}
		if at.ID < first {
			return nil
		}
		head, err = l.append(ctx, tx, auditlog.Record{Actor: sealActor, Action: sealAction, Target: fmt.Sprintf("entries %d to %d", first, at.ID), Status: 200})
		return err
	})
	if err != nil {
		return err
	}
	l.sealed = true
	l.wrote(head)
	return nil
}

// row is a row as it is stored.
type row struct {
	auditlog.Record        // without Before
	hash            []byte // nil: none
	unfit           string // why it cannot be read; empty: it can
}

// readRows returns the rows after an ID, oldest first. A column of another type
// than the log writes makes a row unfit: SQLite would compare it otherwise than
// it is read.
func readRows(ctx context.Context, tx *sql.Tx, after int64, limit int) ([]row, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, completes, time, actor, action, target, remote, status, hash FROM audit WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []row
	for rows.Next() {
		var r row
		columns := []struct {
			name string
			to   any
		}{
			{"id", &r.ID}, {"completes", &r.Completes}, {"time", &r.Time}, {"actor", &r.Actor}, {"action", &r.Action},
			{"target", &r.Target}, {"remote", &r.Remote}, {"status", &r.Status}, {"hash", &r.hash},
		}
		values, scan := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			scan[i] = &values[i]
		}
		if err := rows.Scan(scan...); err != nil {
			return nil, err
		}
		for i, c := range columns {
			if !take(c.to, values[i]) && r.unfit == "" {
				r.unfit = fmt.Sprintf("the column %s holds %T", c.name, values[i])
			}
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// take stores v, as the driver gives it, where it has to be of that very type.
func take(to, v any) (ok bool) {
	switch to := to.(type) {
	case *int64:
		*to, ok = v.(int64)
	case *string:
		*to, ok = v.(string)
	case *[]byte:
		*to, ok = v.([]byte)
		ok = ok || v == nil
	}
	return ok
}
