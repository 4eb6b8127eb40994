package network

import (
	"net"

	"halo.internal/lab/air"
	"halo.internal/lab/air/rogue"
)

// Radio is one of a machine's, or the rogue's.
type Radio struct {
	air.RadioStatus
	On bool `json:"on" doc:"its machine runs and has made it"`
}

// AirStatus is the air and who could be in it.
type AirStatus struct {
	Profile  string        `json:"profile"`
	WidthMHz float64       `json:"width_mhz"`
	Radios   []Radio       `json:"radios"`
	Links    []air.Link    `json:"links" doc:"between those that are on"`
	Jammers  []air.Jammer  `json:"jammers,omitempty"`
	Rogue    *rogue.Status `json:"rogue,omitempty"`
}

// Of returns the radios of a machine.
func (s AirStatus) Of(machine string) (list []Radio) {
	for _, r := range s.Radios {
		if r.Machine == machine {
			list = append(list, r)
		}
	}
	return list
}

// AirStatus returns it, the radios in the order of their machines.
func (n *Network) AirStatus() (AirStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Air == nil {
		return AirStatus{}, ErrNoAir
	}
	s := n.Air.Status()
	st := AirStatus{Profile: s.Profile, WidthMHz: s.WidthMHz, Radios: []Radio{}, Links: s.Links, Jammers: s.Jammers}
	on := map[string]air.RadioStatus{}
	for _, r := range s.Radios {
		on[r.Name] = r
	}
	for _, r := range n.radios {
		seen, ok := on[r.Name]
		if !ok {
			seen = air.RadioStatus{
				Name: r.Name, Machine: r.Machine, Address: net.HardwareAddr(r.Address).String(), Position: r.Position, PowerDBm: r.PowerDBm, FigureDB: r.FigureDB,
			}
		}
		st.Radios = append(st.Radios, Radio{seen, ok})
	}
	if stranger, ok := on[Rogue]; ok && n.rogue != nil {
		st.Radios = append(st.Radios, Radio{stranger, true})
		status := n.rogue.Status()
		st.Rogue = &status
	}
	return st, nil
}
