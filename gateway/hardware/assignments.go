package hardware

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"halo.internal/drivers/i2c"
	"halo.internal/gateway/store"
	"halo.internal/model"
)

// owed is something that a node is still to be told of a sensor. What people say of sensors
// each node keeps itself; of one whose card is lost the inventory that it told last has it,
// and the node in its place is told it again.
type owed struct {
	model.SensorCommand
	tries int // how often the node was told
}

// Bounds of that.
const (
	maxTries = 3 // a chip's name may have become another's, say
	atOnce   = 8 // of a node: people may want it to do something, too
)

// spot is the place of a sensor on a node.
type spot struct{ node, key string }

// saidOf is what people have said of the sensors of an inventory, by their places.
func saidOf(v model.Inventory) map[string]model.SensorCommand {
	all := map[string]model.SensorCommand{}
	for _, s := range v.Sensors {
		c := model.SensorCommand{Do: model.SensorAssign, Bus: s.Bus, Address: s.Address, Chip: s.Chip, Label: s.Label, IntervalS: s.IntervalS, Params: s.Params}
		whole := s.Title != "" || len(s.Values)+len(s.Outputs) > 0 // of very many the last are told without parameters
		if s.State == model.SensorIgnored {
			c.Chip, whole = model.ChipNone, true
		}
		all[s.Key()] = c
		if m := (model.Command{Kind: model.CommandSensor, Sensor: &c}); !s.Assigned || !whole || m.Check() != nil { // a chip without a template has no name
			delete(all, s.Key())
		}
	}
	return all
}

// legacy is what is to be said of the sensors of a node by the one in its place; the caller
// holds the lock.
func (b *Book) legacy(node string) map[string]model.SensorCommand {
	all := map[string]model.SensorCommand{}
	for key, o := range b.owed[node] {
		all[key] = o.SensorCommand
	}
	if k := b.nodes[node]; k != nil {
		maps.Copy(all, saidOf(k.Inventory))
	}
	return all
}

// inherit keeps what a node is to be told that takes another's place.
func (b *Book) inherit(ctx context.Context, tx *sql.Tx, old, node string) error {
	b.mu.Lock()
	all := b.legacy(old)
	b.mu.Unlock()
	for key, c := range all {
		body, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sensor_assignments (node, key, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, node, key, string(body)); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM sensor_assignments WHERE node = ?`, old)
	return err
}

// inherited has that be so in RAM; the caller holds the lock.
func (b *Book) inherited(old, node string) {
	for key, c := range b.legacy(old) {
		if b.owed[node][key] == nil {
			b.owe(node, key, c)
		}
	}
	delete(b.owed, old)
	b.due[node] = true
}

func (b *Book) owe(node, key string, c model.SensorCommand) {
	if b.owed[node] == nil {
		b.owed[node] = map[string]*owed{}
	}
	b.owed[node][key] = &owed{SensorCommand: c}
}

func (b *Book) loadOwed(ctx context.Context) error {
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT node, key, body FROM sensor_assignments`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var node, key, body string
		var c model.SensorCommand
		if err := rows.Scan(&node, &key, &body); err != nil {
			return store.Classify(err)
		}
		if err := json.Unmarshal([]byte(body), &c); err == nil {
			b.owe(node, key, c)
		}
	}
	return store.Classify(rows.Err())
}

// untold returns what a node can be told of its sensors now, and the places of which it
// need not be told any more. The caller holds the lock.
func (b *Book) untold(node string, k *kept, now time.Time) (list []give, over []spot) {
	for _, key := range slices.Sorted(maps.Keys(b.owed[node])) {
		o := b.owed[node][key]
		assigned := slices.ContainsFunc(k.Sensors, func(s model.SensorChip) bool { return s.Assigned && s.Key() == key })
		if assigned || o.tries >= maxTries {
			over = append(over, spot{node, key})
			continue
		}
		bus := slices.ContainsFunc(k.Buses, func(s model.SensorBus) bool { return s.Path == o.Bus })
		g := give{node: node, try: node + " @" + key, command: model.Command{Kind: model.CommandSensor, Sensor: &o.SensorCommand}, owed: o}
		last, tried := b.tried[g.try]
		if !bus || !k.reads(o.Chip) || tried && now.Sub(last) < tryAgain || len(list) == atOnce {
			continue
		}
		b.tried[g.try] = now
		list = append(list, g)
	}
	return list, over
}

// reads tells whether a node has a template of that name, or a driver.
func (k *kept) reads(chip string) bool {
	return chip == model.ChipNone || slices.ContainsFunc(i2c.Builtin(), func(d i2c.Driver) bool { return d.Spec().Name == chip }) ||
		slices.ContainsFunc(k.Templates, func(t model.NodeTemplate) bool { return t.Name == chip && t.Problem == "" })
}

// Settle has nothing be said of a sensor any more that was said of it on the card before:
// the node knows it, or a person says something else.
func (b *Book) Settle(ctx context.Context, node, key string) error {
	b.mu.Lock()
	o := b.owed[node][key]
	b.mu.Unlock()
	if o == nil {
		return nil
	}
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sensor_assignments WHERE node = ? AND key = ?`, node, key)
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.owed[node], key); len(b.owed[node]) == 0 {
		delete(b.owed, node)
	}
	return nil
}
