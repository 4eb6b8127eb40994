// Package nstest gives tests a network of their own: the whole test binary runs
// in a fresh network namespace, in which tests make cables, hubs and further
// namespaces as they like. The host's interfaces are out of reach.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const inside = "HALO_TEST_NAMESPACE"

// Inside tells whether Main has started this process.
func Inside() bool { return os.Getenv(inside) != "" }

// Main is for TestMain: it runs the tests in a new namespace and returns the
// exit status. It starts the binary a second time, since a process that has
// threads can't move all of itself. Without root, a user namespace gives the
// rights.
func Main(m *testing.M) int {
	if Inside() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bring up loopback in the test's namespace:", err)
			return 1
		}
		return m.Run()
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		return 1
	}
	return 0
}

// Cable makes two interfaces that are each other's far end, both up. They go
// with the test.
func Cable(t testing.TB, a, b string) (netlink.Link, netlink.Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}))
	la, lb := Link(t, a), Link(t, b)
	t.Cleanup(func() {
		remove(t, la)
		remove(t, lb) // where the test has moved the other away
	})
	must(t, netlink.LinkSetUp(la))
	must(t, netlink.LinkSetUp(lb))
	return la, lb
}

// Hub joins interfaces as a switch does.
func Hub(t testing.TB, name string, ports ...netlink.Link) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	hub := Link(t, name)
	t.Cleanup(func() { remove(t, hub) })
	for _, p := range ports {
		must(t, netlink.LinkSetMaster(p, hub))
	}
	must(t, netlink.LinkSetUp(hub))
	return hub
}

// remove removes an interface, unless the test has. What stays would be in the way of
// tests that come later, by its name.
func remove(t testing.TB, l netlink.Link) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		failed := netlink.LinkDel(l)
		_, err := netlink.LinkByIndex(l.Attrs().Index)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("remove %s: %v, %v", l.Attrs().Name, failed, err)
			return
		}
	}
}

// Link finds an interface.
func Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

// Away moves the interface into a further namespace and calls f there: sockets
// that f opens stay in it.
func Away(t testing.TB, l netlink.Link, f func(netlink.Link) error) {
	t.Helper()
	done := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with the goroutine rather than serve
		// others from the wrong namespace.
		runtime.LockOSThread()
		done <- away(l, f)
	}()
	must(t, <-done)
}

func away(l netlink.Link, f func(netlink.Link) error) error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	other, err := netns.New()
	if err != nil {
		return err
	}
	defer other.Close() // f's sockets keep it
	back, err := netlink.NewHandleAt(home, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer back.Close()
	if err := back.LinkSetNsFd(l, int(other)); err != nil {
		return err
	}
	moved, err := netlink.LinkByName(l.Attrs().Name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(moved); err != nil {
		return err
	}
	return f(moved)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
