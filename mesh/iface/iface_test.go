package iface

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

func TestAnInterfaceIsFoundAndMissed(t *testing.T) {
	near, _ := nstest.Cable(t, "iface-a", "iface-b")
	i, err := Find("iface-a")
	if err != nil || i.Index != near.Attrs().Index {
		t.Fatalf("got %+v, %v, want index %d", i, err, near.Attrs().Index)
	}
	if err := i.Check(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Watch(ctx); err != nil {
		t.Errorf("a watch that was ended: got %v", err)
	}
	watched := make(chan error)
	go func() { watched <- i.Watch(t.Context()) }()
	if err := netlink.LinkDel(near); err != nil {
		t.Fatal(err)
	}
	if err := i.Check(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("gone: got %v", err)
	}
	if err := <-watched; err == nil || !strings.HasPrefix(err.Error(), "interface iface-a: ") {
		t.Errorf("watched until it was gone: got %v", err)
	}
	nstest.Cable(t, "iface-a", "iface-b")
	if err := i.Check(); !errors.Is(err, ErrAnew) {
		t.Errorf("made anew: got %v", err)
	}
	if _, err := Find("a name that is far too long"); err == nil {
		t.Error("a name that no interface can have was found")
	}
}
