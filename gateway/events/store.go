package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

// Bounds of the log. Beyond one of them whoever has most in it loses the
// oldest: a node that reports without end pushes out its own, and what the
// others reported stays.
const (
	maxStored = 50_000
	maxOctets = 16 << 20
	rowOctets = 100 // what an event costs beside its text
)

// owner is against whom an event counts: the node that reported it; of the
// gateway's own, the node that it is about if that is a member, else the kind's
// first word, since strangers make up as many IDs as they like.
const owner = `CASE WHEN source <> '` + Source + `' THEN source
	WHEN node <> '' AND substr(kind, 1, 5) = 'node.' THEN node
	ELSE '` + Source + ` ' || substr(kind, 1, instr(kind || '.', '.') - 1) END`

// share is what an owner has in the log.
type share struct{ count, octets int64 }

func (s share) plus(octets int64) share { return share{s.count + 1, s.octets + octets + rowOctets} }

// shares counts the log, so that it need not be read to know its size.
type shares map[string]share

func (l *Log) count(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT `+owner+`, count(*), sum(octet_length(body) + ?) FROM events GROUP BY 1`, rowOctets)
	if err != nil {
		return err
	}
	defer rows.Close()
	l.shares = shares{}
	for rows.Next() {
		var who string
		var s share
		if err := rows.Scan(&who, &s.count, &s.octets); err != nil {
			return err
		}
		l.shares[who] = s
	}
	return rows.Err()
}

// store commits the events that make returns, and returns the positions of
// those that the database will never take.
func (l *Log) store(ctx context.Context, source string, make func(*sql.Tx) ([]model.Event, error)) (unfit []int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		unfit = nil
		if l.shares == nil {
			if err := l.count(ctx, tx); err != nil {
				return err
			}
		}
		events, err := make(tx)
		if err != nil {
			return err
		}
		for i, e := range events {
			if err := l.insert(ctx, tx, source, e); errors.Is(err, errUnfit) {
				unfit = append(unfit, i)
			} else if err != nil {
				return err
			}
		}
		return l.trim(ctx, tx)
	})
	if err != nil {
		l.shares = nil // counted for nothing: count again
	}
	return unfit, err
}

// errUnfit is wrapped where an event will never be stored, now or later: the
// others must not wait for it.
var errUnfit = errors.New("event cannot be stored")

func (l *Log) insert(ctx context.Context, tx *sql.Tx, source string, e model.Event) error {
	e.Severity = levels[level(e.Severity)]
	about := e.Node
	if about == "" && source != Source {
		about = source
	}
	body, err := json.Marshal(e)
	if err != nil { // such as a year beyond 9999
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	var who string
	err = tx.QueryRowContext(ctx, `INSERT INTO events (received, source, boot, seq, kind, severity, node, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, boot, seq) DO NOTHING RETURNING `+owner,
		store.Millis(l.clock.Now()), source, int64(e.Boot), int64(e.Seq), e.Kind, level(e.Severity), about, string(body)).Scan(&who)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil // it is there already
	case store.Unfit(err):
		return fmt.Errorf("%w: %w", errUnfit, err)
	case err != nil:
		return err
	}
	l.shares[who] = l.shares[who].plus(int64(len(body)))
	return nil
}

// trim drops the oldest events of whoever has most, an eighth at a time.
func (l *Log) trim(ctx context.Context, tx *sql.Tx) error {
	for {
		var all, most share
		var longest, heaviest string
		for who, s := range l.shares {
			all.count, all.octets = all.count+s.count, all.octets+s.octets
			if s.count > most.count {
				longest, most.count = who, s.count
			}
			if s.octets > most.octets {
				heaviest, most.octets = who, s.octets
			}
		}
		var err error
		switch {
		case all.octets > l.most.octets:
			err = l.drop(ctx, tx, heaviest)
		case all.count > l.most.count:
			err = l.drop(ctx, tx, longest)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l *Log) drop(ctx context.Context, tx *sql.Tx, who string) error {
	s := l.shares[who]
	rows, err := tx.QueryContext(ctx, `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE `+owner+` = ? ORDER BY id LIMIT ?) RETURNING octet_length(body)`, who, s.count/8+1)
	if err != nil {
		return err
	}
	defer rows.Close()
	before := s.count
	for rows.Next() {
		var octets int64
		if err := rows.Scan(&octets); err != nil {
			return err
		}
		s.count, s.octets = s.count-1, s.octets-octets-rowOctets
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if s.count == before {
		return fmt.Errorf("events of %q: expected some of %d to drop, found none", who, before)
	}
	if l.shares[who] = s; s.count <= 0 {
		delete(l.shares, who)
	}
	return nil
}
