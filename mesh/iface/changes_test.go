package iface

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
)

// TestTold of an address, of a link that goes, and of more than there is room for; and not
// any more once it has ended.
func TestTold(t *testing.T) {
	near, _ := nstest.Cable(t, "iface-e", "iface-f")
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan struct{}, 1), make(chan error)
	go func() {
		done <- Told(ctx, func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	}()
	await := func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: not told", what)
		}
	}
	quiet := func() { // events of what the test has made are over
		for {
			select {
			case <-told:
			case <-time.After(500 * time.Millisecond):
				return
			}
		}
	}
	await("that it listens")
	quiet()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 11), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrAdd(near, a); err != nil {
		t.Fatal(err)
	}
	await("an address")
	for range 3000 {
		if err := errors.Join(netlink.AddrDel(near, a), netlink.AddrAdd(near, a)); err != nil {
			t.Fatal(err)
		}
	}
	quiet()
	if err := netlink.LinkDel(near); err != nil {
		t.Fatal(err)
	}
	await("a link that goes")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func TestWhatChangesIsHeard(t *testing.T) {
	near, _ := nstest.Cable(t, "iface-c", "iface-d")
	var c Changes
	defer c.Close()
	settled := func() {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); c.Any(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("expected rest in the end, changes are told for ever")
			}
		}
	}
	if !c.Any() {
		t.Fatal("expected to be told to look at first")
	}
	settled()
	_, there, _ := net.ParseCIDR("198.51.100.0/24")
	for _, change := range []struct {
		what string
		make func() error
	}{
		{"an address", func() error {
			return netlink.AddrAdd(near, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 9), Mask: net.CIDRMask(24, 32)}})
		}},
		{"a route", func() error { return netlink.RouteAdd(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: there}) }},
		{"a rule", func() error {
			r := netlink.NewRule()
			r.Table, r.Priority = 77, 770
			return netlink.RuleAdd(r)
		}},
		{"a rule of IPv6", func() error {
			r := netlink.NewRule()
			r.Family, r.Table, r.Priority = unix.AF_INET6, 77, 770
			return netlink.RuleAdd(r)
		}},
		{"more than there is room for", func() error {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 10), Mask: net.CIDRMask(32, 32)}}
			for range 3000 {
				if err := netlink.AddrAdd(near, a); err != nil {
					return err
				}
				if err := netlink.AddrDel(near, a); err != nil {
					return err
				}
			}
			return nil
		}},
		{"an interface's state", func() error { return netlink.LinkSetDown(near) }},
		{"an interface", func() error { return netlink.LinkDel(near) }},
	} {
		if err := change.make(); err != nil {
			t.Fatalf("%s: %v", change.what, err)
		}
		if !c.Any() {
			t.Errorf("%s: expected to be told", change.what)
		}
		settled()
	}
	c.told = time.Now().Add(-changesAnyway)
	if !c.Any() {
		t.Error("expected to be told to look once in a while, nothing happening")
	}
}
