package benchgateway_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"
)

// The bare journal is what is left when a gateway does nothing but keep: batches as they
// come are rows of a table, committed in groups with fsync, and acknowledged then. Nothing
// is decoded, checked or deduplicated, and nothing can be asked.

const (
	journalAddress = "127.0.0.1:8429"
	journalGroup   = 1024
)

// frame is a batch that waits for its commit.
type frame struct {
	data []byte
	from *journalConn
}

type journalConn struct {
	net.Conn
	mu sync.Mutex
}

// ack tells of so many more that are committed.
func (c *journalConn) ack(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) // who is gone does not wait
}

func serveJournal(dir string) error {
	_, _ = sqlite.Fdatasync(true) // as the gateway's own; where there is none it stays fsync
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "journal.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=wal_autocheckpoint(256)&_txlock=immediate")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, `CREATE TABLE batches (id INTEGER PRIMARY KEY, body BLOB NOT NULL)`); err != nil {
		return err
	}
	l, err := net.Listen("tcp", journalAddress)
	if err != nil {
		return err
	}
	queue := make(chan frame, journalGroup)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			go readFrames(&journalConn{Conn: conn}, queue)
		}
	}()
	for {
		group := []frame{<-queue}
		for more := true; more && len(group) < journalGroup; {
			select {
			case f := <-queue:
				group = append(group, f)
			default:
				more = false
			}
		}
		if err := commitFrames(ctx, db, group); err != nil {
			return err
		}
		counts := map[*journalConn]int{}
		for _, f := range group {
			counts[f.from]++
		}
		for c, n := range counts {
			c.ack(n)
		}
	}
}

func readFrames(c *journalConn, queue chan<- frame) {
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(r, data); err != nil {
			return
		}
		queue <- frame{data, c}
	}
}

func commitFrames(ctx context.Context, db *sql.DB, group []frame) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	put, err := tx.PrepareContext(ctx, `INSERT INTO batches (body) VALUES (?)`)
	if err != nil {
		return err
	}
	for _, f := range group {
		if _, err := put.ExecContext(ctx, f.data); err != nil {
			return err
		}
	}
	return errors.Join(put.Close(), tx.Commit())
}

// newJournal starts a bare journal.
func newJournal(b testing.TB) *process {
	b.Helper()
	p := start(b, []string{journalFolder + "=" + b.TempDir()}, os.Args[0])
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", journalAddress)
		if err == nil {
			c.Close()
			return p
		}
		if time.Now().After(end) {
			b.Fatalf("the journal does not answer: %v: %s", err, p.Tail())
		}
	}
}

// feedJournal sends batches over a connection, at most window of them unacknowledged.
func feedJournal(list []batch, window int) error {
	c, err := net.Dial("tcp", journalAddress)
	if err != nil {
		return err
	}
	defer c.Close()
	room := make(chan struct{}, window)
	done := make(chan error, 1)
	go func() {
		for left := len(list); left > 0; {
			var n [4]byte
			if _, err := io.ReadFull(c, n[:]); err != nil {
				done <- err
				return
			}
			for range binary.BigEndian.Uint32(n[:]) {
				<-room
				left--
			}
		}
		done <- nil
	}()
	for _, b := range list {
		select {
		case room <- struct{}{}:
		case err := <-done:
			return err
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b.data))), b.data...)); err != nil {
			return err
		}
	}
	return <-done
}
