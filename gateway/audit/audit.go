// Package audit keeps who changed what, when and from where. The API begins an
// entry for every request that may change something and was authenticated,
// before it is acted upon, and completes it with the outcome: what a crash
// leaves is an entry whose outcome is unknown. Entry and outcome are records of
// a chain of hashes (model/auditlog) to which records are only added, and from
// which only the oldest are dropped; a change of any other kind shows.
package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
)

// dropAtOnce is how many records above those that are kept make the log drop
// its oldest: each time wears the card.
const dropAtOnce = 500

// Log is the audit log. Its methods may be called from any goroutine.
type Log struct {
	db    *store.DB
	clock *clock.Clock
	keep  int64 // records
	slack int64 // that may be there beyond those

	sealing sync.Mutex // held while sealed is found out; guards it
	sealed  bool       // no row lacks a hash that a release before has left

	mu   sync.Mutex    // guards last
	last auditlog.Head // of what this process has written; zero: nothing yet
}

// New returns the log kept in config.db.
func New(db *store.DB, c *clock.Clock) *Log {
	return &Log{db: db, clock: c, keep: auditlog.Kept, slack: dropAtOnce}
}

// Record commits an entry and returns its ID; ID and Time are set here. A
// status of 0 says that the outcome is not known yet.
func (l *Log) Record(ctx context.Context, e apitype.AuditEntry) (id int64, err error) {
	return l.write(ctx, func(*sql.Tx) (auditlog.Record, error) {
		return auditlog.Record{Actor: e.Actor, Action: e.Action, Target: e.Target, Remote: e.Remote, Status: int64(e.Status)}, nil
	})
}

// Complete commits what came of an entry, once.
func (l *Log) Complete(ctx context.Context, id int64, target string, status int) error {
	_, err := l.write(ctx, func(tx *sql.Tx) (auditlog.Record, error) {
		r := auditlog.Record{Completes: id, Target: target, Status: int64(status)}
		err := tx.QueryRowContext(ctx, `SELECT actor, action, remote FROM audit WHERE id = ? AND completes = 0`, id).Scan(&r.Actor, &r.Action, &r.Remote)
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("the audit log has no entry %d to complete", id)
		}
		return r, err
	})
	return err
}

// write appends the record that build returns.
func (l *Log) write(ctx context.Context, build func(*sql.Tx) (auditlog.Record, error)) (int64, error) {
	if err := l.seal(ctx); err != nil {
		return 0, err
	}
	var head auditlog.Head
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		r, err := build(tx)
		if err != nil {
			return err
		}
		if head, err = l.append(ctx, tx, r); err != nil {
			return err
		}
		return l.drop(ctx, tx, head.ID)
	})
	if err != nil {
		return 0, err
	}
	l.wrote(head)
	return head.ID, nil
}

// List returns a page of entries with their outcomes, newest first, the cursor of
// the next page, or "", and the head of the chain at that moment.
func (l *Log) List(ctx context.Context, cursor string, limit int) (apitype.AuditList, error) {
	before := int64(1<<63 - 1)
	if cursor != "" {
		var err error
		if before, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return apitype.AuditList{}, apitype.Refuse(400, "", "cursor: expected the value of \"next\" of an earlier page")
		}
	}
	list := apitype.AuditList{Items: []apitype.AuditEntry{}}
	err := l.read(ctx, func(tx *sql.Tx) error {
		head, err := tail(ctx, tx)
		if err != nil {
			return err
		}
		list.Head = shown(head)
		// Cast: one row that somebody spoilt must not hide the others.
		rows, err := tx.QueryContext(ctx, `SELECT e.id, CAST(e.time AS INTEGER), e.actor, e.action, coalesce(o.target, e.target), e.remote, CAST(coalesce(o.status, e.status) AS INTEGER)
			FROM audit AS e LEFT JOIN audit AS o ON o.completes = e.id AND o.completes <> 0
			WHERE e.completes = 0 AND e.id < ? ORDER BY e.id DESC LIMIT ?`, before, limit+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e apitype.AuditEntry
			var at int64
			if err := rows.Scan(&e.ID, &at, &e.Actor, &e.Action, &e.Target, &e.Remote, &e.Status); err != nil {
				return err
			}
			e.Time = store.Time(at)
			list.Items = append(list.Items, e)
		}
		return rows.Err()
	})
	if err != nil {
		return apitype.AuditList{}, err
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = strconv.FormatInt(list.Items[limit-1].ID, 10)
	}
	return list, nil
}

// read runs f in a transaction that sees one state of the log.
func (l *Log) read(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := l.db.Read().BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.Classify(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return store.Classify(f(tx))
}
