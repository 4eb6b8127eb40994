package registry

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Events of interfaces; fields iface, mac, was or from.
const (
	kindSwapped = "node.interface.swapped" // other hardware under the same name: a radio was replaced
	kindMoved   = "node.interface.moved"   // hardware that another node had
)

const (
	maxHardware = 256         // rows of a node
	maxOwners   = 16384       // pieces of hardware whose last node is known
	tellSwap    = time.Minute // between two events of a node: it chooses its addresses
)

// hardwareKinds are interfaces that are a piece of hardware.
var hardwareKinds = []string{"ethernet", "wifi", "halow"}

// hardwareOf is what tells the hardware of an interface: its address without the bits
// that HALO's radios change by themselves from one start to the next (batman.Turned).
func hardwareOf(i model.Interface) string {
	mac, err := net.ParseMAC(i.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || !slices.Contains(hardwareKinds, i.Kind) {
		return ""
	}
	mac[0] &^= 0x0e
	return mac.String()
}

// hardware is what a node's interfaces are; r.mu guards it.
type hardware struct {
	of    map[string]string    // by name
	came  map[[2]string]string // name and hardware → address as reported, of what config.db lacks
	toldH time.Time
}

// hardwareNews is an event to be added.
type hardwareNews struct {
	node, iface, mac, was, from string
}

// hardwareCame looks at the interfaces that a heartbeat has brought; mu is held.
func (r *Registry) hardwareCame(id string, l *live, present map[string]model.Interface) (news []hardwareNews) {
	if l.hardware.of == nil {
		l.hardware.of = map[string]string{}
	}
	for name, i := range present {
		hw := hardwareOf(i)
		was, known := l.hardware.of[name]
		if hw == "" || known && was == hw {
			continue
		}
		l.hardware.of[name] = hw
		if l.hardware.came == nil {
			l.hardware.came = map[[2]string]string{}
		}
		if len(l.hardware.came) < maxHardware {
			l.hardware.came[[2]string{name, hw}] = i.MAC
		}
		n := hardwareNews{node: id, iface: name, mac: i.MAC, was: was}
		if owner := r.owners[hw]; owner != "" && owner != id {
			n.from = owner
		}
		r.owned(hw, id)
		if (known || n.from != "") && time.Since(l.hardware.toldH) >= tellSwap {
			news = append(news, n)
		}
	}
	if len(news) > 0 {
		l.hardware.toldH = time.Now()
	}
	if len(l.hardware.of) > maxInterfaces { // names are the node's to choose
		maps.DeleteFunc(l.hardware.of, func(name string, _ string) bool { _, ok := present[name]; return !ok })
	}
	return news
}

// owned notes who has had a piece of hardware last; mu is held.
func (r *Registry) owned(hw, id string) {
	if _, known := r.owners[hw]; known || len(r.owners) < maxOwners {
		r.owners[hw] = id
	}
}

func (r *Registry) tellHardware(news []hardwareNews) {
	for _, n := range news {
		fields := map[string]string{"iface": n.iface, "mac": n.mac}
		if n.from != "" {
			fields["from"] = n.from
			r.events.Add(kindMoved, model.Info, n.node, fmt.Sprintf("the hardware of %s, %s, was another node's before", n.iface, n.mac), fields)
			continue
		}
		fields["was"] = n.was
		r.events.Add(kindSwapped, model.Info, n.node, fmt.Sprintf("%s has other hardware, %s: the node stays the same", n.iface, n.mac), fields)
	}
}

// writeHardware writes down what config.db lacks, and drops the oldest beyond the bound.
func writeHardware(ctx context.Context, tx *sql.Tx, node string, fresh map[[2]string]string, now int64) error {
	for k, mac := range fresh {
		if _, err := tx.ExecContext(ctx, `INSERT INTO interface_hardware (node, name, mac, first_seen) VALUES (?, ?, ?, ?)
			ON CONFLICT (node, name, mac) DO UPDATE SET first_seen = excluded.first_seen`, node, k[0], mac, now); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM interface_hardware WHERE node = ?1 AND (name, mac) IN
		(SELECT name, mac FROM interface_hardware WHERE node = ?1 ORDER BY first_seen DESC LIMIT -1 OFFSET ?2)`, node, maxHardware)
	return err
}

// loadHardware takes what interfaces were last into RAM.
func (r *Registry) loadHardware(ctx context.Context) error {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT node, name, mac FROM interface_hardware ORDER BY first_seen`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var node, name, mac string
		if err := rows.Scan(&node, &name, &mac); err != nil {
			return store.Classify(err)
		}
		l := r.live[node]
		if hw := hardwareOf(model.Interface{MAC: mac, Kind: hardwareKinds[0]}); l != nil && hw != "" {
			if l.hardware.of == nil {
				l.hardware.of = map[string]string{}
			}
			l.hardware.of[name] = hw // the latest wins
			r.owned(hw, node)
		}
	}
	return store.Classify(rows.Err())
}

// Hardware returns what each interface of a node has been, the newest first.
func (r *Registry) Hardware(ctx context.Context, id string) (map[string][]apitype.InterfaceHardware, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT name, mac, first_seen FROM interface_hardware WHERE node = ? ORDER BY first_seen DESC, mac`, id)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	out := map[string][]apitype.InterfaceHardware{}
	for rows.Next() {
		var name string
		var h apitype.InterfaceHardware
		var since int64
		if err := rows.Scan(&name, &h.MAC, &since); err != nil {
			return nil, store.Classify(err)
		}
		h.Since = store.Time(since)
		out[name] = append(out[name], h)
	}
	return out, store.Classify(rows.Err())
}

// Conflicts are hardware addresses that several nodes say they have, by their last
// heartbeats.
func (r *Registry) Conflicts() []apitype.MACConflict {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := map[string][]string{}
	for id, l := range r.live {
		if l.online == 0 {
			continue // what it said last may be over
		}
		for _, i := range l.present {
			if mac, err := ParseMAC(i.MAC); err == nil && hardwareOf(i) != "" && !slices.Contains(of[mac], id) {
				of[mac] = append(of[mac], id)
			}
		}
	}
	out := []apitype.MACConflict{}
	for _, mac := range slices.Sorted(maps.Keys(of)) {
		if len(of[mac]) > 1 {
			slices.Sort(of[mac])
			out = append(out, apitype.MACConflict{MAC: mac, Nodes: of[mac]})
		}
	}
	return out
}
