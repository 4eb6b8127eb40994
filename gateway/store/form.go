package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A database without migrations says in its header which version its tables have, twice:
// as user_version and as application_id. A release that finds a version beyond those it
// knows, as after an update that was undone, leaves the file as it is, and goes on in one
// beside it (Beside); whoever knows the later version takes in what that has. Where the two
// do not agree, a bit has flipped, and it is damage. Databases of before application_id was
// used have 0 there, and version 1.

// ErrNewer is wrapped where a database is of a later release than this one.
var ErrNewer = errors.New("a later release made this database")

// Form returns the statements that say of a new database which version its tables have.
func Form(version int) string {
	return fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d;", version, version)
}

// IsLater tells whether a database is of a later version than the one that is known.
func IsLater(userVersion, applicationID, known int64) bool {
	return userVersion > known && applicationID == userVersion
}

// Offsets of SQLite's header: https://www.sqlite.org/fileformat.html, 1.3.
const (
	headerSize        = 100
	offsetUserVersion = 60
	offsetApplication = 68
)

var headerMagic = []byte("SQLite format 3\x00")

// LaterVersion returns the version of a database that is later than the one that is known,
// or 0; it reads the file's header alone. Of one that is damaged, or has a log beside it
// that is not in it yet, it need not be true.
func LaterVersion(path string, known int) (version int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var h [headerSize]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil // it is no database
		}
		return 0, err
	}
	if !bytes.HasPrefix(h[:], headerMagic) {
		return 0, nil
	}
	user, app := binary.BigEndian.Uint32(h[offsetUserVersion:]), binary.BigEndian.Uint32(h[offsetApplication:])
	if !IsLater(int64(int32(user)), int64(int32(app)), int64(known)) {
		return 0, nil
	}
	return int(user), nil
}

// Beside returns where a release that knows tables up to that version keeps what it has no
// other place for: "topology.v1.db" for "topology.db".
func Beside(path string, known int) string {
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s.v%d%s", strings.TrimSuffix(path, ext), known, ext)
}
