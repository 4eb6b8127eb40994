package mesh

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"halo.internal/mesh/api"
	"halo.internal/mesh/dhcp/server"
	"halo.internal/mesh/dns"
	"halo.internal/mesh/lan"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// Kinds of events; fields mac, address, name.
const (
	eventReserved    = "clients.reserved"
	eventNotReserved = "clients.unreserved"
	eventReserveLost = "clients.reservations-damaged"
)

// maxReservations bounds what a device keeps for hosts of all its networks, of which
// that of clients has 253.
const maxReservations = 512

// reserver keeps which hosts have an address of their own, of those to which a device
// gives them.
type reserver struct {
	mu   sync.Mutex // guards what follows and serialises changes
	list []model.Reservation
}

// loadReservations takes up what the card keeps. What is damaged is gone, and told:
// clients get addresses all the same.
func (m *core) loadReservations() {
	var list []model.Reservation
	_, err := m.store.Get(paths.Reservations, "", func(b []byte) (err error) {
		list, err = parseReservations(b)
		return err
	})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.events.Add(eventReserveLost, model.Warning, "kept reservations of addresses are damaged, and hold no more: "+err.Error())
		}
		return
	}
	m.reserved.list = list
	if err := m.lan.Reserve(leased(list)); err != nil {
		m.Log.Warn("reservations of addresses do not hold", "err", err)
	}
}

// marshalReservations writes JSON and a checksum of it.
func marshalReservations(list []model.Reservation) []byte {
	b, err := json.Marshal(list)
	if err != nil {
		panic("mesh: reservations: " + err.Error()) // of strings and addresses
	}
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b))
}

func parseReservations(b []byte) ([]model.Reservation, error) {
	const sum = 8
	if len(b) < sum {
		return nil, errors.New("reservations: expected a checksum at the end")
	}
	body := b[:len(b)-sum]
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)); string(b[len(body):]) != want {
		return nil, errors.New("reservations: checksum differs")
	}
	var list []model.Reservation
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("reservations: %w", err)
	}
	var checked []model.Reservation
	for _, r := range list {
		r, err := settleReservation(r)
		if err != nil {
			return nil, err
		}
		if checked, err = withReservation(checked, r); err != nil {
			return nil, err
		}
	}
	if len(checked) != len(list) {
		return nil, errors.New("reservations: expected each MAC once")
	}
	return checked, nil
}

// settleReservation returns it in its usual form, or what is wrong with it by itself.
func settleReservation(r model.Reservation) (model.Reservation, error) {
	mac, err := net.ParseMAC(r.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
		return r, fmt.Errorf("%w: mac: expected that of one host, such as 02:00:00:00:00:07, got %.40q", api.ErrInvalid, r.MAC)
	}
	if !r.Address.Is4() {
		return r, fmt.Errorf("%w: address: expected IPv4, got %s", api.ErrInvalid, r.Address)
	}
	if r.Name != "" && server.Hostname(r.Name) != r.Name {
		return r, fmt.Errorf("%w: name: expected lower-case letters, digits and hyphens, up to 63 and not digits alone, got %.80q", api.ErrInvalid, r.Name)
	}
	return model.Reservation{MAC: mac.String(), Address: r.Address, Name: r.Name}, nil
}

// withReservation returns the list with one more, or in the place of that of the same
// MAC.
func withReservation(list []model.Reservation, r model.Reservation) ([]model.Reservation, error) {
	out := slices.DeleteFunc(slices.Clone(list), func(o model.Reservation) bool { return o.MAC == r.MAC })
	for _, o := range out {
		switch {
		case o.Address == r.Address:
			return nil, fmt.Errorf("%w: address: %s is reserved for %s already; remove that first", api.ErrInvalid, r.Address, o.MAC)
		case r.Name != "" && o.Name == r.Name:
			return nil, fmt.Errorf("%w: name: %s is %s already; choose another", api.ErrInvalid, r.Name, o.MAC)
		}
	}
	if len(out) >= maxReservations {
		return nil, fmt.Errorf("%w: expected %d reservations at most", api.ErrInvalid, maxReservations)
	}
	out = append(out, r)
	order.By(out, func(a, b model.Reservation) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.MAC, b.MAC))
	})
	return out, nil
}

// leased is the list as the DHCP server has it.
func leased(list []model.Reservation) []server.Reservation {
	out := make([]server.Reservation, len(list))
	for i, r := range list {
		mac, _ := net.ParseMAC(r.MAC) // settleReservation has checked it
		out[i] = server.Reservation{MAC: mac, Address: r.Address, Name: r.Name}
	}
	return out
}

// Reservations are the addresses that are kept for hosts by this device.
func (m *core) Reservations() ([]model.Reservation, error) {
	networks, err := m.networks()
	if err != nil {
		return nil, err
	}
	m.reserved.mu.Lock()
	defer m.reserved.mu.Unlock()
	out := make([]model.Reservation, len(m.reserved.list))
	for i, r := range m.reserved.list {
		r.Waits = !mayHave(networks, r.Address)
		out[i] = r
	}
	return out, nil
}

// networks are those of which this device gives addresses; none: it has none yet.
func (m *core) networks() ([]netip.Prefix, error) {
	if m.lan == nil {
		return nil, fmt.Errorf("%w: this device gives no addresses", api.ErrNone)
	}
	return m.lan.Networks(), nil
}

func mayHave(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return lan.MayHave(n, a) })
}

// mayKeep returns why this device can't keep an address for a host.
func (m *core) mayKeep(networks []netip.Prefix, r model.Reservation) error {
	var ranges []string
	for _, n := range networks {
		ranges = append(ranges, fmt.Sprintf("a host's in %s other than this device's own, %s", n, n.Addr().Next()))
	}
	switch {
	case mayHave(networks, r.Address):
		if r.Name != "" && paths.UnderlayNet.Contains(r.Address) {
			return fmt.Errorf("%w: name: only hosts in the network of clients have one, got %s for %s: leave it out", api.ErrInvalid, r.Name, r.Address)
		}
		return nil
	case m.Role == model.RoleNode && paths.UnderlayNet.Contains(r.Address):
		return fmt.Errorf("%w: address: the gateway gives those of %s, got %s: ask the gateway to keep it", api.ErrInvalid, paths.UnderlayNet, r.Address)
	case len(networks) == 0 || paths.ClientsNet.Contains(r.Address) && !slices.ContainsFunc(networks, paths.ClientsNet.Overlaps):
		return fmt.Errorf("%w: this device has no network for clients yet", api.ErrBusy)
	}
	return fmt.Errorf("%w: address: expected %s, got %s", api.ErrInvalid, strings.Join(ranges, ", or "), r.Address)
}

// PutReservation keeps an address for a host, in the place of what was kept for it.
func (m *core) PutReservation(r model.Reservation) error {
	networks, err := m.networks()
	if err != nil {
		return err
	}
	if r, err = settleReservation(r); err != nil {
		return err
	}
	if err := m.mayKeep(networks, r); err != nil {
		return err
	}
	if r.Name != "" && m.lan.Named(dns.Label(r.Name)) {
		return fmt.Errorf("%w: name: %s is that of a device of the network; choose another", api.ErrInvalid, r.Name)
	}
	m.reserved.mu.Lock()
	defer m.reserved.mu.Unlock()
	list, err := withReservation(m.reserved.list, r)
	if err != nil {
		return err
	}
	if slices.Equal(list, m.reserved.list) {
		return nil
	}
	if err := m.reserve(list); err != nil {
		return err
	}
	m.events.Add(eventReserved, model.Info, fmt.Sprintf("%s is kept for the client %s", r.Address, r.MAC), "mac", r.MAC, "address", r.Address.String(), "name", r.Name)
	return nil
}

// DeleteReservation gives the address that was kept for a client back.
func (m *core) DeleteReservation(mac string) error {
	if _, err := m.networks(); err != nil {
		return err
	}
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("%w: mac: expected one such as 02:00:00:00:00:07, got %.40q", api.ErrInvalid, mac)
	}
	m.reserved.mu.Lock()
	defer m.reserved.mu.Unlock()
	i := slices.IndexFunc(m.reserved.list, func(r model.Reservation) bool { return r.MAC == hw.String() })
	if i < 0 {
		return fmt.Errorf("%w: no address is kept for %s", api.ErrNone, hw)
	}
	r := m.reserved.list[i]
	if err := m.reserve(slices.Delete(slices.Clone(m.reserved.list), i, i+1)); err != nil {
		return err
	}
	m.events.Add(eventNotReserved, model.Info, fmt.Sprintf("%s is not kept for the client %s any more", r.Address, r.MAC), "mac", r.MAC, "address", r.Address.String(), "name", r.Name)
	return nil
}

// reserve has a list hold, and the card keep it; where either fails, all stays as it
// was. m.reserved.mu is held.
func (m *core) reserve(list []model.Reservation) error {
	before := m.reserved.list
	switch err := m.lan.Reserve(leased(list)); {
	case errors.Is(err, server.ErrInUse):
		return ofKind{err, api.ErrBusy}
	case err != nil:
		return ofKind{err, api.ErrInvalid}
	}
	if _, err := m.store.Put(paths.Reservations, "", marshalReservations(list)); err != nil {
		_ = m.lan.Reserve(leased(before)) // it held a moment ago
		return fmt.Errorf("the card does not keep it: %w", err)
	}
	m.reserved.list = list
	return nil
}
