package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const (
	settingRetention = "retention of events" // apitype.EventRetention
	retainEvery      = time.Hour
	// agedAtOnce is how much of what is kept of a severity goes for its age in one pass: a
	// clock that is years ahead for an hour must not take all of the log.
	agedAtOnce = 8
)

// DefaultRetention is how long events are kept where nobody has said otherwise.
func DefaultRetention() apitype.EventRetention {
	return apitype.EventRetention{
		Info:    apitype.RetentionRule{Days: 90, Count: 30_000},
		Warning: apitype.RetentionRule{Days: 365, Count: 30_000},
		Error:   apitype.RetentionRule{Days: 730, Count: 30_000},
	}
}

// Retention returns how long events are kept.
func (l *Log) Retention(ctx context.Context) (apitype.EventRetention, error) {
	r := DefaultRetention()
	v, err := l.db.Setting(ctx, settingRetention, func() []byte { b, _ := json.Marshal(r); return b })
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(v, &r); err != nil {
		return r, fmt.Errorf("stored %s: %w", settingRetention, err)
	}
	return r, nil
}

// SetRetention says how long events are kept, from now on and of those that are there,
// where what was said before meets the condition.
func (l *Log) SetRetention(ctx context.Context, m etag.Match, r apitype.EventRetention) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := l.Retention(ctx); err != nil { // there is one from here on
		return err
	}
	if err := l.db.Write(ctx, func(tx *sql.Tx) error {
		var kept []byte
		if err := tx.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, settingRetention).Scan(&kept); err != nil {
			return err
		}
		var before apitype.EventRetention
		if err := json.Unmarshal(kept, &before); err != nil {
			return fmt.Errorf("stored %s: %w", settingRetention, err)
		}
		if err := m.Check(etag.Of(before)); err != nil {
			return err
		}
		return store.PutSetting(ctx, tx, settingRetention, b)
	}); err != nil {
		return err
	}
	// That is said, and holds: Run drops what is not dropped now.
	if err := l.retain(context.WithoutCancel(ctx)); err != nil {
		l.log.Warn("events are not dropped yet as people have just said", "err", err)
	}
	return nil
}

// retain drops what is older, or more, than is to be kept of each severity. A clock
// that is a guess ages nothing.
func (l *Log) retain(ctx context.Context) error {
	r, err := l.Retention(ctx)
	if err != nil {
		return err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	aged, known := l.clock.Aged(), l.clock.Quality() != model.ClockNone
	err = l.db.Write(ctx, func(tx *sql.Tx) error {
		most := limits{all: l.most, exact: true}
		for i, rule := range []apitype.RetentionRule{r.Info, r.Warning, r.Error} {
			most.of = append(most.of, int64(rule.Count))
			if !known {
				continue
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE severity = ?1 AND received < ?2 ORDER BY id
				LIMIT (SELECT count(*) / ?3 + 1 FROM events WHERE severity = ?1)) AND id < (SELECT max(id) FROM events)`, i, store.Millis(aged.AddDate(0, 0, -rule.Days)), agedAtOnce); err != nil {
				return err
			}
		}
		if err := l.count(ctx, tx); err != nil {
			return err
		}
		return l.trim(ctx, tx, most)
	})
	if err != nil {
		l.shares = nil // of what was not dropped after all
	}
	return err
}
