package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InUseError says why a module cannot be unloaded.
type InUseError struct {
	Module string
	By     []string // what uses it, by name
	Refs   int      // uses that have no name: open files and devices
}

// Error names the users, and the next step.
func (e *InUseError) Error() string {
	by := slices.Clone(e.By)
	if e.Refs > 0 {
		by = append(by, fmt.Sprintf("%d uses that the kernel does not name (open files, devices)", e.Refs))
	}
	return fmt.Sprintf("unload %s: it is in use by %s: end that first", e.Module, strings.Join(by, ", "))
}

// Unload removes a module and, before it, all modules that need it, the last
// one loaded first. A module that is not loaded is no error. Nothing is removed
// when any of them has a user that is known by name: the error is an
// *InUseError. When ctx ends first, the kernel may go on; a driver that hangs
// there for ever leaves nothing but a restart.
func (l *Loader) Unload(ctx context.Context, name string) error {
	return l.unload(ctx, name, l.kernel.Users)
}

// ForceUnload is Unload for a module whose interfaces are up: their driver takes
// them down while it goes. Uses that the kernel counts stand in the way even so.
func (l *Loader) ForceUnload(ctx context.Context, name string) error {
	return l.unload(ctx, name, func(string) []string { return nil })
}

func (l *Loader) unload(ctx context.Context, name string, users func(string) []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(); err != nil {
		return err
	}
	n := normalize(name)
	if l.index.builtin[n] {
		return fmt.Errorf("unload %s: it is part of this kernel", n)
	}
	order := l.dependents(n, nil)
	for _, m := range order {
		if by := users(m); len(by) > 0 {
			return &InUseError{Module: m, By: by}
		}
		// What modules hold that go first, ends with them; the use of one that no
		// module needs would stop the removal half way.
		if s := l.loaded[m]; len(s.Holders) == 0 && s.Refs > 0 {
			return &InUseError{Module: m, Refs: s.Refs}
		}
	}
	for _, m := range order {
		if err := l.remove(ctx, m); err != nil {
			return err
		}
		delete(l.loaded, m)
	}
	return nil
}

// dependents returns a module behind all that need it, as far as they are
// loaded.
func (l *Loader) dependents(n string, order []string) []string {
	state, ok := l.loaded[n]
	if !ok || slices.Contains(order, n) {
		return order
	}
	for _, h := range state.Holders {
		order = l.dependents(h, order)
	}
	return append(order, n)
}

func (l *Loader) remove(ctx context.Context, n string) error {
	done := l.removing[n]
	if done != nil {
		select {
		case <-done: // of long ago; it was loaded anew
			done = nil
		default:
		}
	}
	if done == nil { // else it hangs in the kernel, where nobody can end it: no other is sent after it
		done = make(chan error, 1)
		l.removing[n] = done
		go func() { done <- l.kernel.Remove(n) }()
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("unload %s: its driver does not let go: %w: reset the device, or restart the machine", n, ctx.Err())
	case err := <-done:
		delete(l.removing, n)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT): // gone meanwhile
			return nil
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY):
			now, _ := l.kernel.Loaded()
			return &InUseError{Module: n, By: now[n].Holders, Refs: max(now[n].Refs-len(now[n].Holders), 1)}
		}
		return fmt.Errorf("unload %s: %w", n, err)
	}
}

// interfacesUp names the network interfaces that are up, below sys, whose
// device's driver is that module.
func interfacesUp(sys, name string) (all []string) {
	const up = 1 // IFF_UP
	flags, _ := filepath.Glob(filepath.Join(sys, "class/net/*/flags"))
	for _, f := range flags {
		driver, err := os.Readlink(filepath.Join(filepath.Dir(f), "device/driver/module"))
		if err != nil || normalize(filepath.Base(driver)) != normalize(name) {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it went meanwhile
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 32); err == nil && n&up != 0 {
			all = append(all, "interface "+filepath.Base(filepath.Dir(f))+" (up)")
		}
	}
	return all
}
