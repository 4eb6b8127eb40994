package firewall

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"halo.internal/model"
)

// Status is what was applied last, with the kernel's counters. They count from
// the first Apply of a boot on, through restarts of the process.
func (f *Firewall) Status() (model.FirewallStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts, err := counts()
	if err != nil {
		return model.FirewallStatus{}, fmt.Errorf("firewall: status: %w", err)
	}
	s := model.FirewallStatus{Zones: []model.FirewallZone{}, Rules: []model.FirewallCount{}}
	zone := map[model.Zone]int{}
	for i, z := range slices.Concat(model.Zones, []model.Zone{""}) {
		zone[z] = i
		names := append([]string{}, f.config.Interfaces[z]...)
		slices.Sort(names)
		s.Zones = append(s.Zones, model.FirewallZone{Zone: z, Interfaces: names, Drops: []model.FirewallCount{}})
	}
	for _, t := range f.applied {
		for _, c := range t.counters {
			n := counts[key{t.family(), c.name}]
			count := model.FirewallCount{Rule: c.words, Name: c.name, Packets: n.Packets, Bytes: n.Bytes}
			if c.drop {
				z := &s.Zones[zone[c.zone]]
				z.Drops = append(z.Drops, count)
			} else {
				s.Rules = append(s.Rules, count)
			}
		}
	}
	return s, nil
}

type key struct {
	family nftables.TableFamily
	name   string
}

func counts() (map[key]expr.Counter, error) {
	there, err := list()
	if err != nil {
		return nil, err
	}
	n := map[key]expr.Counter{}
	for _, t := range there {
		for _, o := range t.objs {
			if o, ok := o.(*nftables.NamedObj); ok {
				if c, ok := o.Obj.(*expr.Counter); ok {
					n[key{t.table.Family, o.Name}] = *c
				}
			}
		}
	}
	return n, nil
}
