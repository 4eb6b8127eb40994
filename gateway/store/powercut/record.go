package powercut

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Recorder has the steps of the databases of one folder.
type Recorder struct {
	folder   string
	careless bool // nothing is taken down

	mu    sync.Mutex // guards what follows
	steps []step
	names map[string]int // of files
	files int
}

// Record begins, before anything is in the folder. What others than SQLite do to files there is
// not seen. The databases are to be closed before the test ends. Nothing is synced in earnest.
func Record(t testing.TB, folder string) *Recorder {
	t.Helper()
	return begin(t, folder, false)
}

// Careless has databases of a folder not be synced, in which nobody cuts the power: tests that
// open thousands of them need not wait for the medium.
func Careless(t testing.TB, folder string) {
	t.Helper()
	begin(t, folder, true)
}

func begin(t testing.TB, folder string, careless bool) *Recorder {
	t.Helper()
	folder, err := filepath.EvalSymlinks(folder) // as SQLite names files
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorder{folder: folder + string(filepath.Separator), careless: careless, names: map[string]int{}}
	recording.Lock()
	defer recording.Unlock()
	if recording.files == nil {
		recording.files = map[uintptr]*handle{}
		if !hook() {
			t.Fatal("SQLite takes no VFS")
		}
	}
	recording.recorders = append(recording.recorders, r)
	return r
}

// Steps is how many there are yet.
func (r *Recorder) Steps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}

// Syncs returns before how many steps something was synced.
func (r *Recorder) Syncs() (at []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.steps {
		if s.kind == syncFile || s.kind == syncFolder {
			at = append(at, i)
		}
	}
	return at
}

// Disk returns the files as they were before the first step.
func (r *Recorder) Disk() *Disk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Disk{steps: r.steps[:len(r.steps):len(r.steps)], files: map[int]*file{}, names: map[string]int{}}
}

// Writes returns before how many steps a file was written to.
func (r *Recorder) Writes(name string) (at []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.steps {
		if s.kind == write && s.name == name {
			at = append(at, i)
		}
	}
	return at
}

func (r *Recorder) add(s step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.careless {
		r.steps = append(r.steps, s)
	}
}

// opened returns a file's number: another one for each that was made.
func (r *Recorder) opened(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.names[name]
	if !ok && !r.careless {
		r.files++
		n = r.files
		r.names[name] = n
		r.steps = append(r.steps, step{kind: create, file: n, name: name})
	}
	return n
}

func (r *Recorder) removed(name string, synced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[name]; ok {
		delete(r.names, name)
		r.steps = append(r.steps, step{kind: remove, name: name})
	}
	if synced && !r.careless {
		r.steps = append(r.steps, step{kind: syncFolder})
	}
}

// recording is of the process, as what SQLite calls is: functions, which know nothing but
// what they are called with.
var recording struct {
	sync.Mutex
	recorders []*Recorder
	files     map[uintptr]*handle // by SQLite's
}

// handle is an open file.
type handle struct {
	*Recorder
	number  int
	name    string
	newName bool    // SQLite syncs the folder with it, once
	methods uintptr // SQLite's own
}

// hook puts itself in front of SQLite's own ways to files, under their names, for as long as
// the process lives: connections keep them. https://www.sqlite.org/vfs.html
func hook() bool {
	tls := libc.NewTLS()
	defer tls.Close()
	for i, name := range []string{"unix-excl", "unix"} {
		z, err := libc.CString(name)
		if err != nil {
			return false
		}
		own := sqlite3.Xsqlite3_vfs_find(tls, z)
		if own == 0 {
			return false
		}
		front := duplicate[sqlite3.Tsqlite3_vfs](tls, own)
		v := at[sqlite3.Tsqlite3_vfs](front)
		v.FpAppData, v.FxOpen, v.FxDelete = own, pointer(xOpen), pointer(xDelete)
		if sqlite3.Xsqlite3_vfs_register(tls, front, int32(i)) != sqlite3.SQLITE_OK { // the last one is the default
			return false
		}
	}
	return true
}

// at returns what is at an address of SQLite's, which is not in Go's memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func duplicate[T any](tls *libc.TLS, p uintptr) uintptr {
	q := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(*at[T](p))))
	if q == 0 {
		panic("no memory is left")
	}
	*at[T](q) = *at[T](p)
	return q
}

// pointer is what SQLite has of a function, which must not be a closure; function is the
// function again.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, synced int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	writeFunc    = func(tls *libc.TLS, file, data uintptr, n int32, at int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
)

// recorderOf returns who records a file, and its name there; nil: nobody.
func recorderOf(name uintptr) (*Recorder, string) {
	if name == 0 {
		return nil, "" // a temporary file
	}
	path := libc.GoString(name)
	recording.Lock()
	defer recording.Unlock()
	for _, r := range recording.recorders {
		if rel, ok := strings.CutPrefix(path, r.folder); ok {
			return r, rel
		}
	}
	return nil, ""
}

func xOpen(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	own := at[sqlite3.Tsqlite3_vfs](vfs).FpAppData
	rc := function[openFunc](at[sqlite3.Tsqlite3_vfs](own).FxOpen)(tls, own, name, file, flags, out)
	r, rel := recorderOf(name)
	if rc != sqlite3.SQLITE_OK || r == nil {
		return rc
	}
	f := at[sqlite3.Tsqlite3_file](file)
	h := &handle{Recorder: r, number: r.opened(rel), name: rel, methods: f.FpMethods}
	h.newName = flags&sqlite3.SQLITE_OPEN_CREATE != 0 && flags&(sqlite3.SQLITE_OPEN_MAIN_JOURNAL|sqlite3.SQLITE_OPEN_WAL) != 0
	front := duplicate[sqlite3.Tsqlite3_io_methods](tls, h.methods)
	m := at[sqlite3.Tsqlite3_io_methods](front)
	m.FxClose, m.FxWrite, m.FxTruncate, m.FxSync = pointer(xClose), pointer(xWrite), pointer(xTruncate), pointer(xSync)
	f.FpMethods = front
	recording.Lock()
	defer recording.Unlock()
	recording.files[file] = h
	return rc
}

func xDelete(tls *libc.TLS, vfs, name uintptr, synced int32) int32 {
	own := at[sqlite3.Tsqlite3_vfs](vfs).FpAppData
	remove := function[deleteFunc](at[sqlite3.Tsqlite3_vfs](own).FxDelete)
	r, rel := recorderOf(name)
	if r == nil {
		return remove(tls, own, name, synced)
	}
	rc := remove(tls, own, name, 0)
	if rc == sqlite3.SQLITE_OK {
		r.removed(rel, synced != 0)
	}
	return rc
}

// handleOf returns an open file, and SQLite's own methods of it.
func handleOf(file uintptr) (*handle, *sqlite3.Tsqlite3_io_methods) {
	recording.Lock()
	defer recording.Unlock()
	h := recording.files[file]
	return h, at[sqlite3.Tsqlite3_io_methods](h.methods)
}

func xClose(tls *libc.TLS, file uintptr) int32 {
	h, own := handleOf(file)
	f := at[sqlite3.Tsqlite3_file](file)
	libc.Xfree(tls, f.FpMethods)
	f.FpMethods = h.methods
	recording.Lock()
	delete(recording.files, file)
	recording.Unlock()
	return function[closeFunc](own.FxClose)(tls, file)
}

func xWrite(tls *libc.TLS, file, data uintptr, n int32, offset int64) int32 {
	h, own := handleOf(file)
	h.add(step{kind: write, file: h.number, name: h.name, at: offset, data: append([]byte(nil), unsafe.Slice(at[byte](data), n)...)})
	return function[writeFunc](own.FxWrite)(tls, file, data, n, offset)
}

func xTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	h, own := handleOf(file)
	h.add(step{kind: truncate, file: h.number, at: size})
	return function[truncateFunc](own.FxTruncate)(tls, file, size)
}

func xSync(_ *libc.TLS, file uintptr, _ int32) int32 {
	h, _ := handleOf(file)
	h.add(step{kind: syncFile, file: h.number})
	if h.newName {
		h.newName = false
		h.add(step{kind: syncFolder})
	}
	return sqlite3.SQLITE_OK
}
