//go:build lab

package network_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/lab/network"
)

// patience is far beyond what any of this takes on two busy cores that emulate
// everything.
const patience = 10 * time.Minute

// aloft is a network of one machine with two radios.
type aloft struct {
	t       *testing.T
	net     *network.Network
	gateway *network.Machine
}

func newAloft(t *testing.T) aloft {
	t.Helper()
	images := os.Getenv("HALO_IMAGES")
	if images == "" {
		images = "../../out"
	}
	n, err := network.New(t.Context(), network.Options{
		Name: "aloft", GatewayImage: filepath.Join(images, "halo-gateway-qemu-virt.img"), Dir: t.TempDir(), MemoryMB: 256,
		Mesh: network.ByAir, Radios: 2, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatalf("%v; `make lab-images` builds the images", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return aloft{t, n, n.Machines()[0]}
}

// radios are those of the machine that are in the air.
func (a aloft) radios() (on []string) {
	a.t.Helper()
	s, err := a.net.AirStatus()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, r := range s.Radios {
		if r.On {
			on = append(on, r.Name)
		}
	}
	return on
}

func (a aloft) await(what string, want ...string) {
	a.t.Helper()
	start := time.Now()
	for !slices.Equal(a.radios(), want) {
		if time.Since(start) > patience {
			console, _ := os.ReadFile(a.gateway.Console())
			a.t.Fatalf("%s: in the air are %v, want %v; status %+v; console:\n%s", what, a.radios(), want, a.gateway.Status(), console[max(0, len(console)-4000):])
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.t.Logf("%s: after %.1f s", what, time.Since(start).Seconds())
}

// TestRadiosAreThoseOfAMachineThatRuns has the real image make its radios at each
// start.
func TestRadiosAreThoseOfAMachineThatRuns(t *testing.T) {
	a := newAloft(t)
	both := []string{"gateway.1", "gateway.2"}
	a.await("before any start")
	if err := a.net.PowerOn(a.gateway); err != nil {
		t.Fatal(err)
	}
	a.await("first start", both...)
	if err := a.gateway.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.await("a reset takes them away")
	a.await("start after a reset", both...)
	if err := a.gateway.PowerCut(); err != nil {
		t.Fatal(err)
	}
	a.await("a power cut takes them away")
	if err := a.net.PowerOn(a.gateway); err != nil {
		t.Fatal(err)
	}
	a.await("start after a power cut", both...)
	if err := a.net.Unplug("gateway.2"); err != nil {
		t.Fatal(err)
	}
	a.await("one is unplugged", "gateway.1")
	if err := a.gateway.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.await("a reset takes the other away")
	a.await("start without the one", "gateway.1")
	if err := a.net.Replug("gateway.2"); err != nil {
		t.Fatal(err)
	}
	a.await("it is plugged in again", both...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// halo-mesh is there at some time after halo-air.
	for err := errors.New("not tried"); err != nil; {
		one, stop := context.WithTimeout(ctx, 5*time.Second)
		err = a.net.KillProcess(one, "gateway", "halo-mesh")
		stop()
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
