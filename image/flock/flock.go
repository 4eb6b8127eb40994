// Package flock has builds wait for each other where they fill one folder.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// again is how soon a folder that somebody else has is looked at again.
const again = 50 * time.Millisecond

// Wait makes the folder dir if need be, and waits until nobody else has it, in this
// process or another, or ctx ends. The caller ends it by release, or by ending.
func Wait(ctx context.Context, dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	t := time.NewTicker(again)
	defer t.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // one that waits could not be told to end
		if err == nil {
			return f.Close, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return nil, errors.Join(fmt.Errorf("wait for other builds, which have %s: %w", dir, err), f.Close())
	}
}
