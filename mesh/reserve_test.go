package mesh

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/dns"
	"halo.internal/mesh/events"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/ntp"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// reserving returns a node whose card is below root, and which serves that network.
func reserving(t *testing.T, root string, clients string) *core {
	t.Helper()
	return reservingAs(t, model.RoleNode, root, clients)
}

func reservingAs(t *testing.T, role model.Role, root string, clients string) *core {
	t.Helper()
	network, key := identity.New(), identity.New()
	log := slog.New(slog.DiscardHandler)
	now := func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockRTC }
	m := &core{Config: Config{Root: root, Role: role, Log: log}}
	m.store = state.New(paths.Dir(filepath.Join(root, paths.State)), nil)
	m.events = events.Open(filepath.Join(root, "events.json"), key.Public().ID(), 1, now, log)
	m.lan = lan.New(lan.Config{
		Role: role, Network: network.Public(), Node: key.Public(), Root: root,
		Clock: func() ntp.Reading { return ntp.Reading{} }, Notify: func(model.Event) {}, Log: log,
	})
	m.loadReservations()
	w := lan.Wanted{Name: "mast", Hosts: []dns.Host{{Name: "gateway"}}}
	if clients != "" {
		w.Clients = netip.MustParsePrefix(clients)
	}
	m.lan.Set(w)
	return m
}

func reservation(mac, address, name string) model.Reservation {
	r := model.Reservation{MAC: mac, Name: name}
	r.Address, _ = netip.ParseAddr(address) // what is none stays invalid
	return r
}

func TestReservations(t *testing.T) {
	root := t.TempDir()
	m := reserving(t, root, "10.43.7.0/24")
	camera, printer := reservation("02:00:00:00:00:20", "10.43.7.20", "camera"), reservation("02:00:00:00:00:21", "10.43.7.5", "")
	for _, r := range []model.Reservation{reservation("02-00-00-00-00-20", "10.43.7.20", "camera"), printer, camera} {
		if err := m.PutReservation(r); err != nil {
			t.Fatal(err)
		}
	}
	want := []model.Reservation{printer, camera}
	if got, err := m.Reservations(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	for name, tc := range map[string]struct {
		r    model.Reservation
		kind error
		text string
	}{
		"no MAC":                   {reservation("camera", "10.43.7.30", ""), api.ErrInvalid, "mac: expected"},
		"a group's MAC":            {reservation("01:00:5e:00:00:01", "10.43.7.30", ""), api.ErrInvalid, "mac: expected"},
		"a MAC of eight octets":    {reservation("02:00:00:00:00:00:00:20", "10.43.7.30", ""), api.ErrInvalid, "mac: expected"},
		"nobody's MAC":             {reservation("00:00:00:00:00:00", "10.43.7.30", ""), api.ErrInvalid, "mac: expected"},
		"IPv6":                     {reservation("02:00:00:00:00:30", "fd00::1", ""), api.ErrInvalid, "address: expected IPv4"},
		"no address":               {reservation("02:00:00:00:00:30", "", ""), api.ErrInvalid, "address: expected IPv4"},
		"another device's network": {reservation("02:00:00:00:00:30", "10.43.8.30", ""), api.ErrInvalid, "expected a host's in 10.43.7.0/24"},
		"the device itself":        {reservation("02:00:00:00:00:30", "10.43.7.1", ""), api.ErrInvalid, "expected a host's in 10.43.7.0/24 other than this device's own, 10.43.7.1, got"},
		"the broadcast":            {reservation("02:00:00:00:00:30", "10.43.7.255", ""), api.ErrInvalid, "expected a host's in 10.43.7.0/24"},
		"the network":              {reservation("02:00:00:00:00:30", "10.43.7.0", ""), api.ErrInvalid, "expected a host's in 10.43.7.0/24"},
		"the mesh, at a node":      {reservation("02:00:00:00:00:30", "10.41.0.20", ""), api.ErrInvalid, "the gateway gives those of 10.41.0.0/16, got 10.41.0.20: ask the gateway"},
		"another's address":        {reservation("02:00:00:00:00:30", "10.43.7.20", ""), api.ErrInvalid, "reserved for 02:00:00:00:00:20"},
		"another's name":           {reservation("02:00:00:00:00:30", "10.43.7.30", "camera"), api.ErrInvalid, "camera is 02:00:00:00:00:20"},
		"a name that is none":      {reservation("02:00:00:00:00:30", "10.43.7.30", "My Camera"), api.ErrInvalid, "name: expected"},
		"a device's name":          {reservation("02:00:00:00:00:30", "10.43.7.30", "gateway"), api.ErrInvalid, "a device of the network"},
	} {
		if err := m.PutReservation(tc.r); !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %v, want …%s…", name, err, tc.text)
		}
	}
	if got, _ := m.Reservations(); !reflect.DeepEqual(got, want) {
		t.Errorf("what was refused left %+v", got)
	}

	// Another address for a client takes the place of the one before.
	camera.Address = netip.MustParseAddr("10.43.7.4")
	if err := m.PutReservation(camera); err != nil {
		t.Fatal(err)
	}
	want = []model.Reservation{camera, printer}

	// They are on the card, and wait while the clients have another network.
	m = reserving(t, root, "10.43.9.0/24")
	for i := range want {
		want[i].Waits = true
	}
	if got, err := m.Reservations(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: got %+v, %v, want %+v", got, err, want)
	}
	if err := m.DeleteReservation("02-00-00-00-00-21"); err != nil {
		t.Error(err)
	}
	if err := m.DeleteReservation(printer.MAC); !errors.Is(err, api.ErrNone) {
		t.Errorf("twice: %v", err)
	}
	if err := m.DeleteReservation("camera"); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("no MAC: %v", err)
	}
	if got, _ := m.Reservations(); len(got) != 1 {
		t.Errorf("got %+v", got)
	}
	var kinds []string
	for _, e := range m.events.After(0, 0) {
		kinds = append(kinds, e.Kind+" "+e.Fields["mac"])
	}
	if got := strings.Join(kinds, ", "); !strings.Contains(got, eventReserved+" "+camera.MAC) || strings.Count(got, eventReserved+" ") != 3 || strings.Count(got, eventNotReserved+" "+printer.MAC) != 1 {
		t.Errorf("events: %s", got)
	}
}

// TestReservationsOfTheMesh: a gateway keeps addresses for guests of bridged ports too.
func TestReservationsOfTheMesh(t *testing.T) {
	root := t.TempDir()
	m := reservingAs(t, model.RoleGateway, root, "10.43.0.0/24")
	guest, pooled, camera := reservation("02:00:00:00:00:20", "10.41.0.20", ""), reservation("02:00:00:00:00:21", "10.41.7.255", ""), reservation("02:00:00:00:00:22", "10.43.0.20", "camera")
	for _, r := range []model.Reservation{camera, pooled, guest} {
		if err := m.PutReservation(r); err != nil {
			t.Fatal(err)
		}
	}
	want := []model.Reservation{guest, pooled, camera}
	if got, err := m.Reservations(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	const ranges = "expected a host's in 10.43.0.0/24 other than this device's own, 10.43.0.1, or a host's in 10.41.0.0/16 other than this device's own, 10.41.0.1, got "
	for name, tc := range map[string]struct {
		r    model.Reservation
		text string
	}{
		"the gateway itself":   {reservation("02:00:00:00:00:30", "10.41.0.1", ""), ranges + "10.41.0.1"},
		"the mesh":             {reservation("02:00:00:00:00:30", "10.41.0.0", ""), ranges + "10.41.0.0"},
		"its broadcast":        {reservation("02:00:00:00:00:30", "10.41.255.255", ""), ranges + "10.41.255.255"},
		"the overlay":          {reservation("02:00:00:00:00:30", "10.42.0.7", ""), ranges + "10.42.0.7"},
		"another's clients":    {reservation("02:00:00:00:00:30", "10.43.1.7", ""), ranges + "10.43.1.7"},
		"somebody's at home":   {reservation("02:00:00:00:00:30", "192.168.1.7", ""), ranges + "192.168.1.7"},
		"a name in the mesh":   {reservation("02:00:00:00:00:30", "10.41.0.30", "printer"), "only hosts in the network of clients have one"},
		"another's there":      {reservation("02:00:00:00:00:30", "10.41.0.20", ""), "reserved for 02:00:00:00:00:20"},
		"the same, named like": {reservation("02:00:00:00:00:30", "10.43.0.30", "camera"), "camera is 02:00:00:00:00:22"},
	} {
		if err := m.PutReservation(tc.r); !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %v, want …%s…", name, err, tc.text)
		}
	}

	// After a restart they hold before there is a network of clients.
	m = reservingAs(t, model.RoleGateway, root, "")
	want[2].Waits = true
	if got, err := m.Reservations(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: got %+v, %v, want %+v", got, err, want)
	}
	if err := m.PutReservation(reservation("02:00:00:00:00:23", "10.43.0.23", "")); !errors.Is(err, api.ErrBusy) {
		t.Errorf("a client's address before there are clients: %v", err)
	}
	moved := reservation(guest.MAC, "10.41.255.254", "")
	if err := m.PutReservation(moved); err != nil {
		t.Error(err)
	}
	if got, _ := m.Reservations(); len(got) != 3 || got[1] != moved {
		t.Errorf("got %+v", got)
	}
}

func TestReservationsWithoutANetworkOrACard(t *testing.T) {
	r := reservation("02:00:00:00:00:20", "10.43.7.20", "")
	root := t.TempDir()
	if err := reserving(t, root, "").PutReservation(r); !errors.Is(err, api.ErrBusy) {
		t.Errorf("a device without a network of clients: %v", err)
	}
	alone := &core{}
	if _, err := alone.Reservations(); !errors.Is(err, api.ErrNone) {
		t.Errorf("a device without a network: %v", err)
	}
	if err := errors.Join(alone.PutReservation(r)); !errors.Is(err, api.ErrNone) {
		t.Errorf("a device without a network: %v", err)
	}

	m := reserving(t, root, "10.43.7.0/24")
	if err := m.PutReservation(r); err != nil {
		t.Fatal(err)
	}
	m.store.Hold(fs.ErrPermission)
	other := reservation("02:00:00:00:00:21", "10.43.7.21", "")
	if err := m.PutReservation(other); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a card that keeps nothing: %v", err)
	}
	if got, _ := m.Reservations(); len(got) != 1 || got[0] != r {
		t.Errorf("what was not kept holds: %+v", got)
	}

	// Damage is told, and no reason to serve nobody.
	file := filepath.Join(root, paths.State, paths.Reservations)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[3] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m = reserving(t, root, "10.43.7.0/24")
	if got, err := m.Reservations(); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if all := m.events.After(0, 0); len(all) == 0 || all[len(all)-1].Kind != eventReserveLost {
		t.Errorf("events: %+v", all)
	}
	if err := m.PutReservation(other); err != nil {
		t.Errorf("after the damage: %v", err)
	}
}

func FuzzReservations(f *testing.F) {
	list := []model.Reservation{reservation("02:00:00:00:00:20", "10.43.7.20", "camera"), reservation("02:00:00:00:00:21", "10.43.7.21", "")}
	f.Add(marshalReservations(list))
	f.Add([]byte("null4b1a1a5c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseReservations(b)
		if err != nil {
			return
		}
		again, err := parseReservations(marshalReservations(got))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
		if len(got) > maxReservations {
			t.Fatalf("%d reservations", len(got))
		}
	})
}
