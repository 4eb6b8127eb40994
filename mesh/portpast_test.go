package mesh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"halo.internal/mesh/port"
	"halo.internal/model/paths"
)

func portMAC(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i) }

func TestPortPasts(t *testing.T) {
	p := &portPasts{changed: make(chan struct{}, 1)}
	for i, past := range []port.Past{{Mesh: true}, {Uplink: true}, {Mesh: true, Uplink: true}} {
		p.Remember(portMAC(i), past)
	}
	b := p.marshal()
	got, err := parsePortPasts(b)
	if err != nil || !slices.Equal(got, p.list) || len(got) != 3 {
		t.Errorf("got %+v, %v, want %+v", got, err, p.list)
	}
	p.Remember(portMAC(0), port.Past{})
	if p.Past(portMAC(0)) != (port.Past{}) || len(p.list) != 2 {
		t.Errorf("what was forgotten is there: %+v", p.list)
	}
	for i := range 3 * maxPortPasts {
		p.Remember(portMAC(i), port.Past{Uplink: true})
	}
	if len(p.list) != maxPortPasts || p.Past(portMAC(3*maxPortPasts-1)) != (port.Past{Uplink: true}) {
		t.Errorf("expected the last %d ports, got %+v", maxPortPasts, p.list)
	}
	if _, err := parsePortPasts(p.marshal()); err != nil {
		t.Error(err)
	}
	many := slices.Clone(p.list)
	for i := range many {
		many[i].Past = port.Past{Mesh: true, Uplink: true}
	}
	if _, err := parsePortPasts(marshalPortPasts(many)); err != nil {
		t.Error(err)
	}
	twice := marshalPortPasts([]portPast{{portMAC(1), port.Past{Mesh: true}}, {portMAC(1), port.Past{Uplink: true}}})
	upper := marshalPortPasts([]portPast{{"02:00:00:00:00:AA", port.Past{Mesh: true}}})
	long := marshalPortPasts([]portPast{{"02:00:00:00:00:00:00:01", port.Past{Mesh: true}}})
	over := marshalPortPasts(append(many, portPast{portMAC(99), port.Past{Mesh: true, Uplink: true}}))
	for _, bad := range []string{"", "\n", "x", string(b[:len(b)-2]), string(b) + "x", string(b) + string(b), strings.Replace(string(b), "mesh\n", "uplink\n", 1), string(twice), string(upper), string(long), string(over), strings.Repeat("a", 1<<20)} {
		if got, err := parsePortPasts([]byte(bad)); err == nil {
			t.Errorf("%.80q was taken for %+v", bad, got)
		}
	}
}

func FuzzPortPasts(f *testing.F) {
	f.Add(marshalPortPasts(nil))
	f.Add(marshalPortPasts([]portPast{{portMAC(1), port.Past{Mesh: true}}, {portMAC(2), port.Past{Mesh: true, Uplink: true}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parsePortPasts(b)
		if err == nil && (len(list) > maxPortPasts || string(marshalPortPasts(list)) != string(b)) {
			t.Errorf("%q was taken for %+v", b, list)
		}
	})
}

// changingVault tells of the write that is under way.
type changingVault struct {
	ramVault
	during func()
}

func (v *changingVault) Put(name string, b []byte) error {
	v.during()
	return v.ramVault.Put(name, b)
}

// A port that changes in the middle of a write, and then the stop: the change is written.
func TestThePortPastOfAStopIsKept(t *testing.T) {
	s := newSite(t, 0, 0)
	v := &changingVault{ramVault: ramVault{m: map[string][]byte{}}}
	s.vault = v
	synctest.Test(t, func(t *testing.T) {
		m := s.core()
		m.ports = m.loadPortPasts()
		ctx, cancel := context.WithCancel(t.Context())
		v.during = func() {
			m.ports.Remember(portMAC(1), port.Past{Mesh: true})
			cancel()
		}
		m.ports.Remember(portMAC(1), port.Past{Uplink: true})
		if err := m.keepPortPasts(ctx); err != nil {
			t.Error(err)
		}
	})
	if got, want := s.core().loadPortPasts().Past(portMAC(1)), (port.Past{Mesh: true}); got != want {
		t.Errorf("after a start: got %+v, want %+v", got, want)
	}
}

// What ports were outlives a power cut and the loss of either copy, and is written seldom.
func TestPortPastsAreKept(t *testing.T) {
	s := newSite(t, 0, 0)
	v := &ramVault{m: map[string][]byte{}}
	s.vault = v
	file := filepath.Join(s.root, paths.State, paths.PortPasts)
	want := port.Past{Mesh: true}
	synctest.Test(t, func(t *testing.T) {
		m := s.core()
		m.ports = m.loadPortPasts()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := m.keepPortPasts(ctx); err != nil {
				t.Error(err)
			}
		}()
		for i := range 600 { // somebody pulls the cable each second, for ten minutes
			m.ports.Remember(portMAC(1), port.Past{Mesh: i%2 == 0, Uplink: i%2 == 1})
			pause(ctx, portPastsSoon/10)
		}
		m.ports.Remember(portMAC(1), want)
		cancel()
		<-ended
	})
	if v.puts > 12 {
		t.Errorf("ten minutes of changes cost %d writes", v.puts)
	}
	known := func() port.Past { return s.core().loadPortPasts().Past(portMAC(1)) }
	if got := known(); got != want {
		t.Errorf("after a start: got %+v, want %+v", got, want)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := known(); got != want {
		t.Errorf("without the file: got %+v, want %+v", got, want)
	}
	delete(v.m, paths.VaultPortPasts)
	if got := known(); got != want {
		t.Errorf("without the vault: got %+v, want %+v", got, want)
	}
	v.m[paths.VaultPortPasts] = []byte("rotten")
	if err := os.WriteFile(file, []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := known(); got != (port.Past{}) {
		t.Errorf("of what is damaged: got %+v", got)
	}
}
