package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Level is the stored form of a severity.
func Level(s model.Severity) int { return level(s) }

// SeverityOf reads the stored form.
func SeverityOf(n int) model.Severity { return levels[min(max(n, 0), len(levels)-1)] }

// columns of an event and of who has taken note of it.
const columns = `e.id, e.received, e.source, e.body, a.time, a.actor, a.note FROM events e LEFT JOIN event_acks a ON a.event = e.id`

func scan(row interface{ Scan(...any) error }) (e apitype.Event, err error) {
	var received int64
	var body string
	var at sql.NullInt64
	var by, note sql.NullString
	if err := row.Scan(&e.ID, &received, &e.Source, &body, &at, &by, &note); err != nil {
		return e, store.Classify(err)
	}
	if err := json.Unmarshal([]byte(body), &e.Event); err != nil {
		e.Event = model.Event{Kind: "event.unreadable", Severity: model.Error, Message: "this event cannot be read: " + err.Error()}
	}
	e.Received = store.Time(received)
	if t := store.TimePtr(at); t != nil {
		e.Acknowledged = &apitype.Acknowledgement{Time: *t, By: by.String, Note: note.String}
	}
	return e, nil
}

func noEvent(id int64) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no event %d; it may have been dropped for its age", id)
}

// Get returns an event.
func (l *Log) Get(ctx context.Context, id int64) (apitype.Event, error) {
	e, err := scan(l.db.Read().QueryRowContext(ctx, `SELECT `+columns+` WHERE e.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return e, noEvent(id)
	}
	return e, err
}

// Acknowledge notes that somebody has taken note of an event. Who does so last counts.
func (l *Log) Acknowledge(ctx context.Context, id int64, by, note string) (apitype.Event, error) {
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		var there bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events WHERE id = ?)`, id).Scan(&there); err != nil {
			return err
		}
		if !there {
			return noEvent(id)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO event_acks (event, time, actor, note) VALUES (?, ?, ?, ?)
			ON CONFLICT (event) DO UPDATE SET time = excluded.time, actor = excluded.actor, note = excluded.note`, id, store.Millis(l.clock.Now()), by, note)
		return err
	})
	if err != nil {
		return apitype.Event{}, err
	}
	return l.Get(ctx, id)
}
