package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/local"
	"halo.internal/model"
)

const (
	patience = 2 * time.Minute
	goodCode = "7K3M-Q0ZT-4WXP-B2D9"
)

// device is halo-mesh as a console sees it.
type device struct {
	mu     sync.Mutex // guards what follows
	status model.MeshStatus
	err    error // of the status
	refuse error // of a good code
	tries  []model.CodeTry
}

func (d *device) Status(context.Context) (model.MeshStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status, d.err
}

func (d *device) CheckCode(_ context.Context, c model.CodeTry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries = append(d.tries, c)
	if c.Code != goodCode {
		return &local.Refusal{Status: 422, Text: "the code is not this node's"}
	}
	return d.refuse
}

// screen is the other end of a terminal: what a person types and sees.
type screen struct {
	t    *testing.T
	keys *io.PipeWriter
	in   *io.PipeReader

	mu   sync.Mutex // guards what follows
	seen strings.Builder
	from int // what was expected already
}

func newScreen(t *testing.T) *screen {
	in, keys := io.Pipe()
	t.Cleanup(func() { keys.Close() })
	return &screen{t: t, keys: keys, in: in}
}

func (s *screen) Read(b []byte) (int, error) { return s.in.Read(b) }
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(b)
}

func (s *screen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

func (s *screen) types(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, text); err != nil {
		s.t.Fatal(err)
	}
}

// shows waits for a text after what was shown before.
func (s *screen) shows(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		rest := s.seen.String()[s.from:]
		if i := strings.Index(rest, text); i >= 0 {
			s.from += i + len(text)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			s.t.Fatalf("expected %q in %q", text, rest)
		}
	}
}

// log is what commands were run, and what sessions there were.
type log struct {
	mu             sync.Mutex // guards what follows
	ran            []string
	logins, logout int
}

func (l *log) login() (func(context.Context, []string, io.Writer, Asker), func()) {
	l.mu.Lock()
	l.logins++
	l.mu.Unlock()
	return func(ctx context.Context, args []string, out io.Writer, person Asker) {
			l.mu.Lock()
			l.ran = append(l.ran, strings.Join(args, "|"))
			l.mu.Unlock()
			switch args[0] {
			case "follow":
				fmt.Fprintln(out, "following")
				<-ctx.Done()
				fmt.Fprintln(out, "no more")
			case "ask":
				name, err := person.Line(ctx, "Name: ")
				secret, err2 := person.Secret(ctx, "Secret: ")
				fmt.Fprintln(out, "got", name, len(secret), err, err2)
			default:
				fmt.Fprintln(out, "done")
			}
		}, func() {
			l.mu.Lock()
			l.logout++
			l.mu.Unlock()
		}
}

func (l *log) check(t *testing.T, logins, logouts int, ran ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.ran, ran) || l.logins != logins || l.logout != logouts {
		t.Errorf("ran %q in %d sessions, of which %d ended, want %q in %d, %d", l.ran, l.logins, l.logout, ran, logins, logouts)
	}
}

// serve begins a console whose device has joined.
func serve(t *testing.T, idle time.Duration) (*screen, *device, *log) {
	s, d, l := newScreen(t), &device{status: model.MeshStatus{Node: "n-x", Name: "mast", Network: "north-ridge", Joined: true}}, &log{}
	c := Config{Name: "tty1", Device: d, Login: l.login, Idle: idle, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, d, l
}

func (s *screen) logIn() {
	s.t.Helper()
	s.types("\r")
	s.shows("HALO mast (n-x) of north-ridge")
	s.shows("Code: ")
	s.types(goodCode + "\r")
	s.shows("mast> ")
}

func TestDialogue(t *testing.T) {
	s, d, l := serve(t, 0)
	s.types("early " + goodCode + "\r") // pasted before it was asked for
	s.shows("Code: ")
	s.types("wrong\r")
	s.shows("the code is not this node's.")
	s.types("\r")
	s.shows("Code: ")
	s.types("\r") // changed his mind
	s.logIn()
	s.types("mesh status\r")
	s.shows("done")
	s.shows("mast> ")
	s.types("haloctl event list --kind 'a b' \"\"\r")
	s.shows("done")
	s.types("node list 'x\r")
	s.shows("expected the other quotation mark")
	s.types("\r\r  \r")
	s.types("help\r")
	s.shows("done")
	s.types("half a\x03exit\r") // Ctrl-C begins anew
	s.shows("Logged out.")
	s.logIn()
	s.types("\x04") // Ctrl-D
	s.shows("Logged out.")
	l.check(t, 2, 2, "mesh|status", "event|list|--kind|a b|", "--help")
	if len(d.tries) != 3 || d.tries[0] != (model.CodeTry{Code: "wrong", Where: "console tty1"}) {
		t.Errorf("tried %+v", d.tries)
	}
	for _, secret := range []string{goodCode, "wrong", "early"} {
		if strings.Contains(s.all(), secret) {
			t.Errorf("the screen shows %q", secret)
		}
	}
}

// TestQuestionsOfCommands are put, and secrets not shown.
func TestQuestionsOfCommands(t *testing.T) {
	s, _, _ := serve(t, 0)
	s.logIn()
	s.types("ask\r")
	s.shows("Name: ")
	s.types("anna\r")
	s.shows("Secret: ")
	s.types("hunter2\r")
	s.shows("got anna 7 <nil> <nil>")
	s.shows("mast> ")
	if strings.Contains(s.all(), "hunter2") {
		t.Error("the screen shows the secret")
	}
}

func TestInterrupt(t *testing.T) {
	s, _, l := serve(t, 0)
	s.logIn()
	s.types("follow\r")
	s.shows("following")
	s.types("\x03")
	s.shows("no more")
	s.shows("mast> ")
	s.types("mesh\r")
	s.shows("done")
	l.check(t, 1, 0, "follow", "mesh")
}

// TestNobodyThere: a console is logged out when nobody presses a key, at the
// prompt, at the code and while a command runs.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, l := serve(t, patience/2)
		s.types("\r")
		s.shows("Code: ")
		s.shows("Time is up.")
		for range 2 {
			s.logIn()
			s.shows("Logged out.")
		}
		s.logIn()
		s.types("follow\r")
		s.shows("no more")
		s.shows("Logged out.")
		s.logIn()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.logout != 3 {
			t.Errorf("%d of %d sessions ended", l.logout, l.logins)
		}
	})
}

func TestNoLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		status model.MeshStatus
		err    error
		refuse error
		want   string
	}{
		"not joined":     {status: model.MeshStatus{Name: "mast", Node: "n-x", Join: model.JoinPending, JoinDetail: "an admin has to approve this node"}, want: "HALO mast (n-x): pending, an admin has to approve this node. There is no login before it has joined."},
		"no network":     {status: model.MeshStatus{Name: "node-x", Node: "n-x", Join: model.JoinNoBundle}, want: "There is no login"},
		"no halo-mesh":   {err: fmt.Errorf("%w on /run/halo/mesh.sock", local.ErrAbsent), want: "HALO: halo-mesh does not answer on /run/halo/mesh.sock."},
		"too many wrong": {status: model.MeshStatus{Name: "mast", Joined: true}, refuse: &local.Refusal{Status: 409, Text: "not now: too many wrong codes; try again in 4s"}, want: "try again in 4s."},
	} {
		t.Run(name, func(t *testing.T) {
			s, d, l := serve(t, 0)
			d.mu.Lock()
			d.status, d.err, d.refuse = tc.status, tc.err, tc.refuse
			d.mu.Unlock()
			s.types("\r")
			if tc.refuse != nil {
				s.shows("Code: ")
				s.types(goodCode + "\r")
			}
			s.shows(tc.want)
			l.check(t, 0, 0)
		})
	}
}

// TestATerminalThatFails ends its console.
func TestATerminalThatFails(t *testing.T) {
	s, l := newScreen(t), &log{}
	done := make(chan error, 1)
	go func() { done <- Config{Device: &device{}, Login: l.login}.Serve(t.Context(), s) }()
	s.keys.CloseWithError(unix.EIO)
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}

// TestMuchIsTypedAhead, and bounded.
func TestMuchIsTypedAhead(t *testing.T) {
	k := newKeys()
	for range 100 {
		k.feed(make([]byte, 1000), nil)
	}
	if len(k.typed) > maxAhead {
		t.Errorf("%d octets wait", len(k.typed))
	}
}

// TestRun speaks over real terminals, as the kernel lists them.
func TestRun(t *testing.T) {
	master, name := pty(t)
	active := filepath.Join(t.TempDir(), "active")
	if err := os.WriteFile(active, []byte("none "+name+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, d, l := &screen{t: t}, &device{status: model.MeshStatus{Name: "mast", Node: "n-x", Network: "north-ridge", Joined: true}}, &log{}
	go func() { _, _ = io.Copy(s, master) }() // until it is closed
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, active, "/dev/pts", func(name string) Config {
			return Config{Name: name, Device: d, Login: l.login, Log: slog.New(slog.DiscardHandler)}
		})
	}()
	types := func(text string) {
		if _, err := master.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	s.shows("press Enter")
	types("\r")
	s.shows("Code: ")
	types(goodCode + "\r")
	s.shows("mast> ")
	types("mesh\r")
	s.shows("done\r\n")
	if strings.Contains(s.all(), goodCode) {
		t.Error("the terminal echoes the code")
	}
	cancel()
	<-done
}

// pty makes a terminal and returns the side of its user, and its name below
// /dev/pts.
func pty(t *testing.T) (*os.File, string) {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	control, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n, set := 0, error(nil)
	err = control.Control(func(fd uintptr) {
		if set = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); set == nil {
			n, set = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, set); err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprint(n)
}

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"":                       nil,
		"  \t ":                  nil,
		"mesh  status":           {"mesh", "status"},
		`a "b c" d'e f'g ""`:     {"a", "b c", "de fg", ""},
		"$HOME `x` | y > z ; \\": {"$HOME", "`x`", "|", "y", ">", "z", ";", "\\"},
	} {
		if got, err := Split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
	if _, err := Split(`a "b`); !errors.Is(err, ErrQuote) {
		t.Errorf("got %v", err)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`a "b c"`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := Split(line)
		if err != nil {
			return
		}
		for i, w := range words {
			if strings.ContainsAny(w, `"'`) {
				continue
			}
			if again, err := Split(`"` + w + `"`); err != nil || len(again) != 1 || again[0] != w {
				t.Fatalf("word %d of %q, %q, became %q, %v", i, line, w, again, err)
			}
		}
	})
}

// FuzzKeys holds that no keys end a console or let anybody in.
func FuzzKeys(f *testing.F) {
	f.Add([]byte("\r7K3M\rexit\r\x03\x04\x1b[A\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, keys := io.Pipe()
		l := &log{}
		d := &device{status: model.MeshStatus{Name: "mast", Joined: true}, refuse: errors.New("never")}
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			done <- Config{Device: d, Login: l.login}.Serve(ctx, struct {
				io.Reader
				io.Writer
			}{in, io.Discard})
		}()
		_, _ = keys.Write(b)
		keys.Close()
		if err := <-done; err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		cancel()
		if l.logins != 0 {
			t.Fatal("somebody is in")
		}
	})
}
