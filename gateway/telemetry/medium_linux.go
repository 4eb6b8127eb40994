package telemetry

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// unreadable tells whether a file that SQLite cannot open is unreadable itself, by what the
// medium has of it or for being none. Else it may be this process that can open no more.
func unreadable(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		_, err = f.Read(make([]byte, 1))
		err = errors.Join(err, f.Close())
	}
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EISDIR)
}
