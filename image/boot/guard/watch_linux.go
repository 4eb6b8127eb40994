package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/card"
	"halo.internal/image/boot/perm"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
	"halo.internal/update/commit"
	"halo.internal/update/slots"
)

// watchKernel brings in the messages of the last fall and waits for the next.
func (g *Guard) watchKernel(ctx context.Context) error {
	raw := card.Crash(g.disk)
	if err := unix.Mount("pstore", "/sys/fs/pstore", "pstore", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		g.log.Warn("pstore", "err", err)
	}
	dir := paths.LastCrashDir
	if g.order.Report.Perm.State == model.PermVolatile {
		dir = ""
	}
	c, err := harvest("/sys/fs/pstore", dir, raw)
	if err != nil {
		g.problem("messages of the last fall", err)
	}
	if c != nil {
		g.log.Error("the kernel fell before this start", "cause", c.Cause, "file", c.File)
		g.update(func(r *model.BootReport) { r.Crash = c })
	}
	// Where the dying kernel can keep its messages by itself, it shall panic
	// at once. Elsewhere nothing survives a panic, so an oops must not become
	// one: the guard keeps the messages, then restarts.
	if backend, err := os.ReadFile("/sys/module/pstore/parameters/backend"); err == nil && !strings.Contains(string(backend), "null") {
		return nil
	}
	if err := os.WriteFile("/proc/sys/kernel/panic_on_oops", []byte("0"), 0); err != nil {
		return fmt.Errorf("take over the care for oopses: %w", err)
	}
	log, err := openKmsg()
	if err != nil {
		return err
	}
	go func() { // ends with the process: no message needs to come ever
		defer log.close()
		if err := awaitFall(log); err != nil {
			g.log.Error("kernel messages", "err", err)
			return
		}
		g.keepFall(raw)
		g.restart("kernel fell")
	}()
	return nil
}

// awaitFall reads messages until one speaks of a fall.
func awaitFall(log kmsg) error {
	b := make([]byte, 8<<10)
	for {
		n, err := log.Read(b)
		switch {
		case errors.Is(err, errAgain):
			if err := log.wait(); err != nil {
				return err
			}
		case errors.Is(err, errOverrun):
		case err != nil:
			return err
		default:
			if r, err := parseRecord(b[:n]); err == nil && r.falls() {
				return nil
			}
		}
	}
}

// lastWords is how long the kernel is given to say all about its fall.
const lastWords = 300 * time.Millisecond

func (g *Guard) keepFall(raw *card.Area) {
	time.Sleep(lastWords)
	log, err := openKmsg()
	if err == nil {
		defer log.close()
		var b []byte
		if b, err = messages(log, raw.Max()); err == nil {
			err = raw.Store(b)
		}
	}
	if err != nil {
		g.log.Error("last kernel messages are not kept", "err", err)
	}
}

// serve puts the report into /run, where gokrazy has mounted a file system by
// then, and answers on the socket.
func (g *Guard) serve(ctx context.Context) error {
	if err := awaitMount("/run"); err != nil {
		return err
	}
	if err := os.MkdirAll(paths.Run, 0o755); err != nil {
		return err
	}
	g.update(func(*model.BootReport) {})
	l, err := net.Listen("unix", paths.GuardSocket)
	if err != nil {
		return err
	}
	if err := os.Chmod(paths.GuardSocket, 0o600); err != nil {
		return err
	}
	return commit.Serve(ctx, l, g.commit)
}

// awaitMount waits until something is mounted at path. The descriptor is none
// of package os's: Go's own poller would watch that one too, and whoever looks
// first takes a change away from the other.
func awaitMount(path string) error {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		mounts, err := readAll(fd)
		if err != nil {
			return fmt.Errorf("read mounts: %w", err)
		}
		for line := range bytes.Lines(mounts) {
			if w := bytes.Fields(line); len(w) > 4 && string(w[4]) == path {
				return nil
			}
		}
		// Signals a change of the mounts since the last poll, not new content.
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll mounts: %w", err)
		}
	}
}

// readAll reads a file of /proc from its beginning; one read gives a page of it
// at most.
func readAll(fd int) ([]byte, error) {
	var all []byte
	b := make([]byte, 4<<10)
	for {
		n, err := unix.Pread(fd, b, int64(len(all)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return all, err
		}
		all = append(all, b[:n]...)
	}
}

// commit is the answer to "healthy".
func (g *Guard) commit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if running, err := slots.Parse(g.report.Slot); err == nil {
		s, err := g.keeper.Load(running)
		if next := s.Healthy(running); err != nil || next != s {
			if err := g.keeper.Store(next); err != nil {
				return err
			}
			s = next
		}
		g.report.Committed, g.report.Tries, g.report.Boots = true, 0, 0
		g.report.BadSlots = BadSlots(s)
	}
	if !g.report.Healthy {
		g.log.Info("healthy", "slot", g.report.Slot)
		close(g.healthy)
	}
	g.report.Healthy = true
	g.write()
	return nil
}

// BadSlots names the slots that failed, for the report.
func BadSlots(s slots.State) []string {
	var bad []string
	for _, x := range []slots.Slot{slots.A, slots.B} {
		if s.IsBad(x) {
			bad = append(bad, x.String())
		}
	}
	return bad
}

// holdTrial restarts a slot on trial that is not healthy in time. The next
// start costs it a try.
func (g *Guard) holdTrial(ctx context.Context) error {
	if g.order.Trial == 0 {
		return nil
	}
	select {
	case <-g.healthy:
	case <-ctx.Done():
	case <-time.After(g.order.Trial):
		g.restart(fmt.Sprintf("slot %s is on trial and was not healthy within %s", g.report.Slot, g.order.Trial))
	}
	return nil
}

// permInterval is how often the data partition is looked at.
const permInterval = 20 * time.Second

// watchPerm keeps the report's word on the data partition true.
func (g *Guard) watchPerm(ctx context.Context) error {
	t := time.NewTicker(permInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		size, free, readOnly, err := perm.Usage(paths.Perm)
		if err != nil {
			continue // gone for the moment of a restart
		}
		g.mu.Lock()
		was := g.report.Perm
		g.report.Perm = perm.Update(was, size, free, readOnly)
		if is := g.report.Perm; is.State != was.State {
			g.log.Warn("/perm changed", "state", is.State, "was", was.State, "free", free)
			g.write()
		}
		g.mu.Unlock()
	}
}

// problem logs what went wrong and puts it into the report.
func (g *Guard) problem(what string, err error) {
	g.log.Error(what, "err", err)
	g.update(func(r *model.BootReport) { r.Problems = append(r.Problems, problemText(what, err)) })
}

func problemText(what string, err error) string { return fmt.Sprintf("%s: %v", what, err) }

// update changes the report and writes it, once there is a place for it.
func (g *Guard) update(change func(*model.BootReport)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.report)
	g.write()
}

// write needs g.mu.
func (g *Guard) write() {
	if _, err := os.Stat(filepath.Dir(paths.BootReport)); err != nil {
		return // serve writes it as soon as there is one
	}
	b, err := json.MarshalIndent(g.report, "", "  ")
	if err == nil {
		err = atomicfile.Write(paths.BootReport, append(b, '\n'), 0o644)
	}
	if err != nil {
		g.log.Error("boot report", "err", err)
	}
}
