package mesh

import (
	"slices"
	"testing"

	"halo.internal/mesh/lan"
	"halo.internal/mesh/port"
	"halo.internal/model"
)

// Of a gateway's ports for clients those are on trial that nobody has pinned.
func TestPortsOnTrial(t *testing.T) {
	ports := []model.Port{
		{Iface: "eth0", Role: port.Uplink}, {Iface: "eth1", Role: port.Client, Pinned: true}, {Iface: "eth2", Role: port.Client},
		{Iface: "eth3", Role: port.Mesh}, {Iface: "eth4", Role: port.Searching},
	}
	for role, trial := range map[model.Role][]string{model.RoleGateway: {"eth2"}, model.RoleNode: nil} {
		m := &core{Config: Config{Role: role}}
		var w lan.Wanted
		m.place(&w, ports)
		if !slices.Equal(w.Trial, trial) || !slices.Equal(w.Ports, []string{"eth1", "eth2"}) || !slices.Equal(w.Uplinks, []string{"eth0"}) {
			t.Errorf("%s: got %+v, want %v on trial", role, w, trial)
		}
	}
}
