// Package audit keeps who changed what, when and from where. The API begins an
// entry for every request that may change something and was authenticated,
// before it is acted upon, and completes it with the outcome: what a crash
// leaves is an entry whose outcome is unknown.
package audit

import (
	"context"
	"database/sql"
	"strconv"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

const maxStored = 50_000

// Log is the audit log.
type Log struct {
	db    *store.DB
	clock *clock.Clock
}

// New returns the log kept in config.db.
func New(db *store.DB, c *clock.Clock) *Log { return &Log{db: db, clock: c} }

// Record commits an entry and returns its ID; ID and Time are set here. A
// status of 0 says that the outcome is not known yet.
func (l *Log) Record(ctx context.Context, e apitype.AuditEntry) (id int64, err error) {
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `INSERT INTO audit (time, actor, action, target, remote, status) VALUES (?, ?, ?, ?, ?, ?) RETURNING id`,
			store.Millis(l.clock.Now()), e.Actor, e.Action, e.Target, e.Remote, e.Status).Scan(&id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?`, maxStored)
		return err
	})
	return id, err
}

// Complete writes into an entry what came of it.
func (l *Log) Complete(ctx context.Context, id int64, target string, status int) error {
	return l.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE audit SET target = ?, status = ? WHERE id = ?`, target, status, id)
		return err
	})
}

// List returns a page, newest first, and the cursor of the next page, or "".
func (l *Log) List(ctx context.Context, cursor string, limit int) ([]apitype.AuditEntry, string, error) {
	before := int64(1<<63 - 1)
	if cursor != "" {
		var err error
		if before, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return nil, "", apitype.Refuse(400, "", "cursor: expected the value of \"next\" of an earlier page")
		}
	}
	rows, err := l.db.Read().QueryContext(ctx, `SELECT id, time, actor, action, target, remote, status FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?`, before, limit+1)
	if err != nil {
		return nil, "", store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.AuditEntry{}
	for rows.Next() {
		var e apitype.AuditEntry
		var at int64
		if err := rows.Scan(&e.ID, &at, &e.Actor, &e.Action, &e.Target, &e.Remote, &e.Status); err != nil {
			return nil, "", store.Classify(err)
		}
		e.Time = store.Time(at)
		list = append(list, e)
	}
	next := ""
	if len(list) > limit {
		list = list[:limit]
		next = strconv.FormatInt(list[limit-1].ID, 10)
	}
	return list, next, store.Classify(rows.Err())
}
