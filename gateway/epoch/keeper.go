package epoch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"halo.internal/gateway/store"
	"halo.internal/model/atomicfile"
)

// Keeper holds the epoch of a gateway that runs. It may be used from any
// goroutine.
type Keeper struct {
	db   *store.DB
	file string

	// Watch is called after each raise, and when nodes are found to have heard more
	// than the gateway will follow by itself; nil: nobody wants to know. It is set
	// before the keeper is used.
	Watch func(now, heard uint64)

	raising sync.Mutex // held by the one who raises it
	telling sync.Mutex // held by the one who calls Watch
	mu      sync.Mutex // guards what follows
	now     uint64
	heard   uint64 // highest of which nodes have shown evidence in this run
}

// NewKeeper returns the keeper of an epoch that Settle has decided on.
func NewKeeper(db *store.DB, file string, settled uint64) *Keeper {
	return &Keeper{db: db, file: file, now: settled}
}

// Now returns the epoch.
func (k *Keeper) Now() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Hear notes an epoch of which nodes have shown evidence. halo-mesh forgets it
// when it restarts, the nodes do not.
func (k *Keeper) Hear(epoch uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard = max(k.heard, epoch)
}

// Heard returns the highest epoch, its own or a higher one, that nodes have heard from
// another card of this gateway; 0: none is known.
func (k *Keeper) Heard() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard < k.now {
		return 0
	}
	return k.heard
}

func (k *Keeper) report() {
	k.telling.Lock() // what is told last is what holds
	defer k.telling.Unlock()
	if k.Watch != nil {
		k.Watch(k.Now(), k.Heard())
	}
}

// ErrHighest is returned where there is no higher epoch.
var ErrHighest = errors.New("no epoch is higher")

// RaiseAbove raises the epoch as Raise does, unless it is higher than above
// already, and tells whether it did: who got no answer may ask again.
func (k *Keeper) RaiseAbove(ctx context.Context, above uint64) (now uint64, raised bool, err error) {
	k.raising.Lock()
	defer k.raising.Unlock()
	if now := k.Now(); now > above {
		return now, false, nil
	}
	now, err = k.raise(ctx)
	return now, err == nil, err
}

// Raise makes the epoch higher than it is and than nodes have heard, and returns
// it. It is written down outside the database first, as by Settle, and used only
// when it is in both places: after a power cut in between, or an error, Settle
// finds the higher one and raises it once more.
func (k *Keeper) Raise(ctx context.Context) (uint64, error) {
	k.raising.Lock()
	defer k.raising.Unlock()
	return k.raise(ctx)
}

// raise is Raise; raising is held.
func (k *Keeper) raise(ctx context.Context) (uint64, error) {
	highest := max(k.Now(), k.Heard())
	if highest >= most {
		return 0, fmt.Errorf("epoch %d: %w", highest, ErrHighest)
	}
	next := highest + 1
	if err := writeFile(k.file, next); err != nil {
		return 0, err
	}
	// Who asked may be gone by now; half a raise would be made whole by the next
	// start only.
	if err := writeDB(context.WithoutCancel(ctx), k.db, next); err != nil {
		return 0, err
	}
	k.mu.Lock()
	k.now = next
	k.mu.Unlock()
	k.report()
	return next, nil
}

func writeFile(file string, epoch uint64) error {
	if err := atomicfile.Write(file, strconv.AppendUint(nil, epoch, 10), 0o600); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	return nil
}

func writeDB(ctx context.Context, db *store.DB, epoch uint64) error {
	return db.PutSetting(ctx, setting, strconv.AppendUint(nil, epoch, 10))
}
