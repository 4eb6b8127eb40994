package mesh

import (
	"fmt"

	"halo.internal/mesh/api"
	"halo.internal/model"
)

// Leases are the addresses that the device has given, by interface.
func (m *core) Leases() (map[string][]model.Lease, error) {
	return nil, fmt.Errorf("%w: this device gives no addresses", api.ErrNone)
}

// Firewall tells what the firewall does and has counted.
func (m *core) Firewall() (model.FirewallStatus, error) {
	return model.FirewallStatus{}, fmt.Errorf("%w: this device has no firewall", api.ErrNone)
}

// DNS tells what the name server knows and has done.
func (m *core) DNS() (model.DNSStatus, error) {
	return model.DNSStatus{}, fmt.Errorf("%w: this device answers no names", api.ErrNone)
}
