package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/model/atomicfile"
)

// SQLite has checksums in its log, but none in the database itself: a bit that rots
// within a value there is another value. So the checksum of each page is kept in a file
// beside it. Pages change only when the log is brought to its place, which this process
// decides on: the pages that the log names then get new ones, all others have to be what
// they were. Before one is written its sum is struck out, since a power cut may leave it,
// and not the file's time.
//
// Whatever else wrote to the database, such as a former release, an update of which was
// undone, has left another time or size of it. Then the sums say nothing, and are made
// anew of what is there.

const (
	sumsSuffix = ".sums"
	sumsMagic  = "halosum1"
	sumsHead   = len(sumsMagic) + 4 + 8 + 8 + 4 // page size, time, size, pages
	maxPages   = 1 << 22                        // 16 GiB
	logLimit   = 1 << 20                        // octets of the log, beyond which it is brought to its place
	logRetry   = time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums are the checksums of a database's pages.
type sums struct {
	page  int // octets of each
	at    time.Time
	size  int64
	pages []uint32 // CRC-32C; open: not known
}

// open stands for the sum of a page that is being written. One page in 2^32 has it by
// chance, and is not looked at.
const open = 0

func (s *sums) marshal() []byte {
	b := make([]byte, 0, sumsHead+4*len(s.pages)+4)
	b = append(b, sumsMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(s.page))
	b = binary.BigEndian.AppendUint64(b, uint64(s.at.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.pages)))
	for _, c := range s.pages {
		b = binary.BigEndian.AppendUint32(b, c)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// loadSums returns the sums of the database at path, nil where there are none that can
// be read: they are made anew.
func loadSums(path string) *sums {
	b, err := os.ReadFile(path + sumsSuffix)
	if err != nil || len(b) < sumsHead+4 || !bytes.HasPrefix(b, []byte(sumsMagic)) {
		return nil
	}
	body, end := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != end {
		return nil
	}
	head := body[len(sumsMagic):]
	s := &sums{
		page: int(binary.BigEndian.Uint32(head)), at: time.Unix(0, int64(binary.BigEndian.Uint64(head[4:]))),
		size: int64(binary.BigEndian.Uint64(head[12:])),
	}
	n, rest := binary.BigEndian.Uint32(head[20:]), body[sumsHead:]
	if s.page < 512 || s.page > 65536 || n > maxPages || len(rest) != 4*int(n) || s.size != int64(n)*int64(s.page) {
		return nil
	}
	s.pages = make([]uint32, n)
	for i := range s.pages {
		s.pages[i] = binary.BigEndian.Uint32(rest[4*i:])
	}
	return s
}

// fits tells whether the database is the file that the sums are of.
func (s *sums) fits(info fs.FileInfo) bool {
	return info.Size() == s.size && info.ModTime().Equal(s.at)
}

// verify reads all pages. A page that is not what was written is an error that wraps
// ErrCorrupt.
func (s *sums) verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, s.page)
	for i, want := range s.pages {
		if _, err := io.ReadFull(f, b); err != nil {
			return fmt.Errorf("page %d: %w: %w", i+1, ErrCorrupt, err)
		}
		if want != open && crc32.Checksum(b, castagnoli) != want {
			return fmt.Errorf("page %d: %w: it is not what was written", i+1, ErrCorrupt)
		}
	}
	return nil
}

// verifySums compares the database at path with its sums. It returns nil sums, and no
// error, where they say nothing.
func verifySums(path string) (*sums, error) {
	s := loadSums(path)
	if s == nil {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil || !s.fits(info) {
		return nil, nil // whoever opens it says what is wrong with it
	}
	if err := s.verify(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// update takes the database as it is: pages in changed, and those that have come, are
// good by definition; changed is nil for all. It is written down beside it.
func (s *sums) update(path string, changed map[uint32]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// SQLite does not have the file's time written (Fdatasync): with another one after a power
	// cut the sums would say nothing.
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if s.page == 0 {
		if s.page, err = pageSize(f); err != nil {
			return err
		}
	}
	n := int(info.Size() / int64(s.page))
	if int64(n)*int64(s.page) != info.Size() || n > maxPages {
		return fmt.Errorf("%s: expected whole pages of %d octets, got %d", path, s.page, info.Size())
	}
	before := len(s.pages)
	s.pages = append(s.pages[:min(n, before)], make([]uint32, max(0, n-before))...)
	b := make([]byte, s.page)
	for i := range s.pages {
		if changed != nil && !changed[uint32(i)+1] && i < before {
			continue
		}
		if _, err := f.ReadAt(b, int64(i)*int64(s.page)); err != nil {
			return err
		}
		s.pages[i] = crc32.Checksum(b, castagnoli)
	}
	s.at, s.size = info.ModTime(), info.Size()
	return s.write(path)
}

// write keeps them. On a full disk there are none until there is room: the log has to
// be brought over all the same, or it would fill what is left.
func (s *sums) write(path string) error {
	err := atomicfile.Write(path+sumsSuffix, s.marshal(), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	if err := os.Remove(path + sumsSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// strike takes the sums of pages out that are to be written.
func (s *sums) strike(path string, pages map[uint32]bool) error {
	for p := range pages {
		if p > 0 && int(p) <= len(s.pages) {
			s.pages[p-1] = open
		}
	}
	return s.write(path)
}

// struck are those that are not known.
func (s *sums) struck() map[uint32]bool {
	pages := map[uint32]bool{}
	for i, c := range s.pages {
		if c == open {
			pages[uint32(i)+1] = true
		}
	}
	return pages
}

// pageSize is in the database's header.
func pageSize(f io.ReaderAt) (int, error) {
	b := make([]byte, 18)
	if _, err := f.ReadAt(b, 0); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(b[16:]))
	if n == 1 {
		n = 65536
	}
	if n < 512 {
		return 0, fmt.Errorf("expected a page size of SQLite, got %d", n)
	}
	return n, nil
}

// logPages returns the pages that the log has, and of what size they are; none where
// there is no log. https://www.sqlite.org/fileformat2.html#walformat
func logPages(path string) (map[uint32]bool, error) {
	const logHead, frameHead, salt = 32, 24, 16
	f, err := os.Open(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return map[uint32]bool{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pages := map[uint32]bool{}
	head := make([]byte, logHead)
	if _, err := io.ReadFull(f, head); err != nil {
		return pages, ignoreEOF(err)
	}
	size := int64(binary.BigEndian.Uint32(head[8:]))
	frame := make([]byte, frameHead)
	for at := int64(logHead); ; at += frameHead + size {
		if _, err := f.ReadAt(frame, at); err != nil {
			return pages, ignoreEOF(err)
		}
		if !bytes.Equal(frame[8:16], head[salt:salt+8]) {
			return pages, nil // left there by an earlier use of the file
		}
		pages[binary.BigEndian.Uint32(frame)] = true
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// keptSums are the sums of an open database.
type keptSums struct {
	mu    sync.Mutex // held while the log is brought to its place
	tried time.Time  // when a commit has last done it
	*sums
}

// keepSums begins to keep them: those that were known, or of what is there.
func (d *DB) keepSums(known *sums) error {
	d.sums = &keptSums{sums: known}
	var pages map[uint32]bool // all
	if known == nil {
		d.sums.sums = &sums{}
	} else if pages = known.struck(); len(pages) == 0 {
		return nil
	}
	if err := d.sums.update(d.path, pages); err != nil && !errors.Is(err, io.EOF) { // an empty file has no pages yet
		return classify(fmt.Errorf("checksums of %s: %w", d.path, err))
	}
	return nil
}

// checkpoint brings the log to its place, in the mode of PRAGMA wal_checkpoint, and
// brings the sums up to date. Where that fails the database stays as it is, and the sums
// say nothing until they can be written.
func (d *DB) checkpoint(ctx context.Context, mode string) error {
	if d.sums != nil {
		d.sums.mu.Lock()
		defer d.sums.mu.Unlock()
	}
	// The only connection that writes: were there a commit between the look at the log and
	// its bringing over, pages would be written whose sums were not struck out.
	writer, err := d.write.Conn(ctx)
	if err != nil {
		return classify(err)
	}
	defer writer.Close() // gives it back
	var pages map[uint32]bool
	if d.sums != nil {
		if pages, err = logPages(d.path); err == nil && len(pages) > 0 {
			err = d.sums.strike(d.path, pages)
		}
		if err != nil {
			return classify(err)
		}
	}
	var busy, inLog, over int // https://www.sqlite.org/pragma.html#pragma_wal_checkpoint
	if err = writer.QueryRowContext(ctx, `PRAGMA wal_checkpoint(`+mode+`)`).Scan(&busy, &inLog, &over); err != nil {
		return classify(err)
	}
	if d.sums == nil || len(pages) == 0 {
		return nil
	}
	if err := d.sums.update(d.path, pages); err != nil || busy == 0 && inLog == over {
		return err
	}
	// Somebody who reads is in the way. The connection that closes last may be his, and SQLite
	// brings over the rest then, of which a power cut may leave the pages and not the file's time.
	return d.sums.strike(d.path, pages)
}

// bringOver is called after each commit.
func (d *DB) bringOver(ctx context.Context) {
	if d.sums == nil {
		return
	}
	info, err := os.Stat(d.path + "-wal")
	if err != nil || info.Size() <= logLimit {
		return
	}
	d.sums.mu.Lock()
	again := time.Since(d.sums.tried) > logRetry // somebody who reads for long can be in the way
	if again {
		d.sums.tried = time.Now()
	}
	d.sums.mu.Unlock()
	if again {
		// What is committed is committed: after an error the next commit tries again.
		_ = d.checkpoint(context.WithoutCancel(ctx), "PASSIVE")
	}
}

// Verify compares all pages with their sums, while the database is in use. The error
// wraps ErrCorrupt where one is not what was written.
func (d *DB) Verify() error {
	if d.sums == nil {
		return nil
	}
	d.sums.mu.Lock()
	defer d.sums.mu.Unlock()
	info, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if !d.sums.fits(info) {
		return nil
	}
	if err := d.sums.verify(d.path); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return nil
}
