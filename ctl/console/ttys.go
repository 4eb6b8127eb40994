package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// reopenAfter is between two tries to open a terminal.
const reopenAfter = 5 * time.Second

// Run serves each console that the kernel writes to, as the file active
// (/sys/class/tty/console/active) lists them, until ctx ends. serve is called
// with the name of one and its terminal, raw.
func Run(ctx context.Context, active, dev string, config func(name string) Config) {
	b, err := os.ReadFile(active)
	names := strings.Fields(string(b))
	if err != nil || len(names) == 0 {
		names = []string{"console"} // the one that always is there
	}
	var running sync.WaitGroup
	for _, name := range names {
		c := config(filepath.Base(name))
		running.Go(func() { c.keep(ctx, filepath.Join(dev, filepath.Base(name))) })
	}
	running.Wait()
}

// keep serves a terminal, and opens it anew when it has failed: a screen may be
// plugged in, a serial port reset.
func (c Config) keep(ctx context.Context, path string) {
	told := false
	for ctx.Err() == nil {
		err := c.open(ctx, path)
		if err != nil && ctx.Err() == nil && !told {
			c.Log.Warn("a console is not served", "tty", c.Name, "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenAfter):
		}
	}
}

func (c Config) open(ctx context.Context, path string) error {
	// Without waiting for a carrier; not as the process's own terminal, whose Ctrl-C
	// would end it.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	restore, err := raw(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer restore()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })() // ends a read that waits
	fmt.Fprint(f, "\r\nHALO: press Enter to log in.\r\n")
	return c.Serve(ctx, f)
}

// raw has the terminal hand over keys as they are typed, without showing them.
func raw(f *os.File) (restore func(), err error) {
	control, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var old *term.State
	var set error
	err = control.Control(func(fd uintptr) { // f.Fd would make it blocking
		old, set = term.MakeRaw(int(fd))
	})
	if err := errors.Join(err, set); err != nil {
		return nil, err
	}
	return func() {
		_ = control.Control(func(fd uintptr) { _ = term.Restore(int(fd), old) }) // it may be gone
	}, nil
}
