// Package epoch keeps the generation of the gateway's knowledge. It is in
// everything that the gateway announces, and nodes refuse a lower one than they
// have heard: so it goes up when config.db was restored from a copy or made
// anew, and never down, whatever happens to config.db. It is therefore kept
// in a file of its own as well. While the gateway runs it goes up when an admin
// says so, or when nodes show that they have heard a higher one and the gateway
// has no list of nodes yet that could be an old one.
package epoch

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"halo.internal/gateway/store"
)

const (
	setting = "epoch"
	most    = 1<<53 - 1 // what JSON carries exactly
	perDay  = 1000      // more often than this a database is not made anew in a day
)

// start is the day on which an epoch made of the clock would be nothing.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Evidence is what is known of earlier epochs besides config.db.
type Evidence struct {
	File      string    // the copy outside the database
	Announced uint64    // what halo-mesh announced last; 0: unknown
	Restored  bool      // config.db was restored from a copy, which is older than what it replaced
	Now       time.Time // by the gateway's clock, which is never before the build
}

// Settle decides on the epoch of this start and writes it down in both places,
// outside the database first: a power cut in between raises it once more.
//
// Where nothing tells of an earlier epoch, as on a fresh card for a gateway
// whose old one is lost, the network may have seen some nevertheless. The
// first one is then made of the day, with room for a thousand raises on each.
func Settle(ctx context.Context, db *store.DB, e Evidence) (uint64, error) {
	stored, err := load(ctx, db)
	if err != nil {
		return 0, err
	}
	kept, err := read(e.File)
	if err != nil {
		return 0, err
	}
	highest := max(stored, kept, e.Announced)
	now := highest
	switch {
	case highest == 0:
		now = OfDay(e.Now)
	case e.Restored || stored < highest: // a new database has none
		now = min(highest+1, most)
	}
	if now != kept {
		if err := writeFile(e.File, now); err != nil {
			return 0, err
		}
	}
	if now != stored {
		err = writeDB(ctx, db, now)
	}
	return now, err
}

// Above returns an epoch above that one.
func Above(epoch uint64) (uint64, error) {
	if epoch >= most {
		return 0, fmt.Errorf("epoch %d: %w", epoch, ErrHighest)
	}
	return epoch + 1, nil
}

// OfDay is the epoch that a card has which knows of no other, at that time.
func OfDay(now time.Time) uint64 {
	return max(1, uint64(max(0, now.Sub(start))/(24*time.Hour))*perDay)
}

func load(ctx context.Context, db *store.DB) (uint64, error) {
	var b []byte
	err := db.Read().QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, setting).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Classify(err)
	}
	return parse(string(b)), nil
}

func read(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("epoch: %w", err)
	}
	return parse(string(b)), nil
}

// parse reads a kept epoch. One that cannot be read is as good as none: what
// is kept elsewhere decides, and is written again.
func parse(s string) uint64 {
	e, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil || e > most {
		return 0
	}
	return e
}
