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
	var newest int64
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		unfit, newest = nil, 0
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
			id, err := l.insert(ctx, tx, source, e)
			if errors.Is(err, errUnfit) {
				unfit = append(unfit, i)
			} else if err != nil {
				return err
			}
			newest = max(newest, id)
		}
		return l.trim(ctx, tx)
	})
	if err != nil {
		l.shares = nil // counted for nothing: count again
	} else {
		l.tell(newest)
	}
	return unfit, err
}

// tell notes that events up to that ID are committed; 0: none came.
func (l *Log) tell(newest int64) {
	l.telling.Lock()
	defer l.telling.Unlock()
	if newest > l.newest {
		l.newest = newest
		l.bell.Ring()
	}
}

// News returns the ID of the newest event, and a channel that the next one closes.
func (l *Log) News(ctx context.Context) (newest int64, next <-chan struct{}, err error) {
	l.telling.Lock()
	defer l.telling.Unlock()
	if l.newest == 0 { // none came in this process yet
		if err := l.db.Read().QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM events`).Scan(&l.newest); err != nil {
			return 0, nil, store.Classify(err)
		}
	}
	return l.newest, l.bell.Next(), nil
}

// Oldest returns the ID of the oldest event that is kept, or 0.
func (l *Log) Oldest(ctx context.Context) (id int64, err error) {
	err = l.db.Read().QueryRowContext(ctx, `SELECT coalesce(min(id), 0) FROM events`).Scan(&id)
	return id, store.Classify(err)
}

// errUnfit is wrapped where an event will never be stored, now or later: the
// others must not wait for it.
var errUnfit = errors.New("event cannot be stored")

// insert returns the event's ID; 0: it is there already.
func (l *Log) insert(ctx context.Context, tx *sql.Tx, source string, e model.Event) (id int64, err error) {
	e.Severity = levels[level(e.Severity)]
	about := e.Node
	if about == "" && source != Source {
		about = source
	}
	body, err := json.Marshal(e)
	if err != nil { // such as a year beyond 9999
		return 0, fmt.Errorf("%w: %w", errUnfit, err)
	}
	var who string
	err = tx.QueryRowContext(ctx, `INSERT INTO events (received, source, boot, seq, kind, severity, node, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, boot, seq) DO NOTHING RETURNING id, `+owner,
		store.Millis(l.clock.Now()), source, int64(e.Boot), int64(e.Seq), e.Kind, level(e.Severity), about, string(body)).Scan(&id, &who)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case store.Unfit(err):
		return 0, fmt.Errorf("%w: %w", errUnfit, err)
	case err != nil:
		return 0, err
	}
	l.shares[who] = l.shares[who].plus(int64(len(body)))
	return id, nil
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
