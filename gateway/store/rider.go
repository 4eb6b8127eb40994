package store

import (
	"context"
	"database/sql"
	"sync/atomic"
)

// Rider is what goes along with the next write of a database that commits: it is in the
// database exactly when that is. A request that leaves a note of itself needs no second
// commit for it, and no power cut comes in between.
type Rider struct {
	db    *DB
	write func(context.Context, *sql.Tx) error
	state atomic.Int32
}

const (
	riderWaits = iota
	riderRides
	riderThere
)

type riderKey struct{}

// Ride returns a context with which the next write of d that commits runs f too, behind
// its own; an error of f fails it.
func (d *DB) Ride(ctx context.Context, f func(context.Context, *sql.Tx) error) (context.Context, *Rider) {
	r := &Rider{db: d, write: f}
	return context.WithValue(ctx, riderKey{}, r), r
}

// There tells whether a write took the rider along and was committed.
func (r *Rider) There() bool { return r.state.Load() == riderThere }

// board lets the rider of a context, if it has one that waits for this database, write
// within tx, and returns what notes whether that was committed.
func (d *DB) board(ctx context.Context, tx *sql.Tx) (arrived func(committed bool), err error) {
	r, ok := ctx.Value(riderKey{}).(*Rider)
	if !ok || r.db != d || !r.state.CompareAndSwap(riderWaits, riderRides) {
		return func(bool) {}, nil
	}
	return func(committed bool) {
		if committed {
			r.state.Store(riderThere)
		} else {
			r.state.Store(riderWaits)
		}
	}, r.write(ctx, tx)
}
