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

// Bounds of the log, besides those that people set. Beyond one of them whoever has most
// in it loses the oldest: a node that reports without end pushes out its own, and what the
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

// holder is an owner, and of how severe events.
type holder struct {
	who      string
	severity int
}

// shares counts the log, so that it need not be read to know its size.
type shares map[holder]share

func (l *Log) count(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT `+owner+`, severity, count(*), sum(octet_length(body) + ?) FROM events GROUP BY 1, 2`, rowOctets)
	if err != nil {
		return err
	}
	defer rows.Close()
	l.shares = shares{}
	for rows.Next() {
		var h holder
		var s share
		if err := rows.Scan(&h.who, &h.severity, &s.count, &s.octets); err != nil {
			return err
		}
		l.shares[h] = s
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
		return l.trim(ctx, tx, limits{all: l.most})
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

// Whole tells whether all events after that ID and up to the other are kept. IDs have no
// holes where none was dropped: the newest event never is, and the next one follows it.
func (l *Log) Whole(ctx context.Context, after, to int64) (bool, error) {
	var kept int64
	err := l.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM events WHERE id > ? AND id <= ?`, after, to).Scan(&kept)
	return kept >= to-after, store.Classify(err)
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
	h := holder{severity: level(e.Severity)}
	err = tx.QueryRowContext(ctx, `INSERT INTO events (received, source, boot, seq, kind, severity, node, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, boot, seq) DO NOTHING RETURNING id, `+owner,
		store.Millis(l.clock.Now()), source, int64(e.Boot), int64(e.Seq), e.Kind, h.severity, about, string(body)).Scan(&id, &h.who)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case store.Unfit(err):
		return 0, fmt.Errorf("%w: %w", errUnfit, err)
	case err != nil:
		return 0, err
	}
	l.shares[h] = l.shares[h].plus(int64(len(body)))
	return id, nil
}

// limits is how much there may be.
type limits struct {
	all   share
	of    []int64 // events of each severity; nil: as many as there may be in all
	exact bool    // no more than is too much goes: not for each write
}

// trim drops the oldest events of whoever has most of what there is too much of, an eighth
// of them at a time.
func (l *Log) trim(ctx context.Context, tx *sql.Tx, most limits) error {
	for {
		from, over := l.shares.over(most)
		if over == 0 {
			return nil
		}
		n := l.shares[from].count/8 + 1
		if most.exact {
			n = min(n, over)
		}
		if err := l.drop(ctx, tx, from, n); err != nil {
			return err
		}
	}
}

// over tells who has to lose some, and how many events are too much; 0: none.
func (s shares) over(most limits) (from holder, events int64) {
	var all share
	var longest, heaviest holder
	of, longestOf := map[int]int64{}, map[int]holder{}
	for h, has := range s {
		all.count, all.octets = all.count+has.count, all.octets+has.octets
		of[h.severity] += has.count
		if has.count > s[longest].count {
			longest = h
		}
		if has.octets > s[heaviest].octets {
			heaviest = h
		}
		if has.count > s[longestOf[h.severity]].count {
			longestOf[h.severity] = h
		}
	}
	switch {
	case all.octets > most.all.octets:
		return heaviest, s[heaviest].count // so many octets are so many events, which nobody knows before
	case all.count > most.all.count:
		return longest, all.count - most.all.count
	}
	for severity, n := range most.of {
		if of[severity] > n {
			return longestOf[severity], of[severity] - n
		}
	}
	return holder{}, 0
}

// drop takes the oldest events out of what somebody has. The newest of all stays, since
// numbers go on from it: where that is all he has, the oldest of that severity goes.
func (l *Log) drop(ctx context.Context, tx *sql.Tx, h holder, n int64) error {
	dropped, err := l.remove(ctx, tx, owner+` = ? AND severity = ?`, n, h.who, h.severity)
	if err == nil && dropped == 0 {
		dropped, err = l.remove(ctx, tx, `severity = ?`, 1, h.severity)
	}
	if err == nil && dropped == 0 {
		err = fmt.Errorf("events of %q: expected some of %d to drop, found none", h.who, l.shares[h].count)
	}
	return err
}

// remove drops the oldest events of those that a clause selects.
func (l *Log) remove(ctx context.Context, tx *sql.Tx, where string, n int64, args ...any) (dropped int, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE `+where+` AND id < (SELECT max(id) FROM events) ORDER BY id LIMIT ?)
		RETURNING `+owner+`, severity, octet_length(body)`, append(args, n)...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var h holder
		var octets int64
		if err := rows.Scan(&h.who, &h.severity, &octets); err != nil {
			return dropped, err
		}
		s := l.shares[h]
		if s.count, s.octets = s.count-1, s.octets-octets-rowOctets; s.count > 0 {
			l.shares[h] = s
		} else {
			delete(l.shares, h)
		}
		dropped++
	}
	return dropped, rows.Err()
}
