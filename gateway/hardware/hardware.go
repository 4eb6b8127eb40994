// Package hardware knows what is on the buses of the network's nodes: chips that are read,
// those that a person has to choose for, and those that are gone. Each node tells its
// inventory when it is another one, and it is kept, so that what a node that is off has is
// known too: in RAM at once, on the card at a pace that a node which tells of another one
// all the time cannot wear it out by. People's names and places of sensors are kept beside
// it, and templates of people's, which all nodes get.
package hardware

import (
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/drivers/i2c"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Config is what New needs.
type Config struct {
	DB     *store.DB
	Clock  *clock.Clock
	Events *events.Log
	Log    *slog.Logger
	// Command has a node that is there do something in the network's own name.
	Command func(ctx context.Context, node string, c model.Command) error
}

// Book may be used from any goroutine. Run has to be running for templates to reach nodes.
type Book struct {
	Config
	wake chan struct{}

	mu        sync.Mutex // guards what follows
	nodes     map[string]*kept
	said      map[string]words // by sensor ID
	templates map[string]template
	owed      map[string]map[string]*owed // by node and place
	due       map[string]bool             // nodes of which is to be looked at what they lack
	tried     map[string]time.Time        // "node name digest" or "node @place": when it was given to the node last
}

// kept is the inventory of a node.
type kept struct {
	digest string
	at     time.Time
	model.Inventory
	by   time.Time // when the card is to have it; zero: it has
	pace *rate.Limiter
}

// words are what people say of a sensor.
type words struct{ name, place string }

type template struct {
	digest, text, actor string
	former              []string // digests of its texts before, the newest last
	deleted             bool
	at                  time.Time
}

// Bounds.
const (
	maxSaid      = 16384
	maxText      = 128
	tryAgain     = time.Hour // before a node is given the same template again
	maxTried     = 4096
	maxTemplates = model.MaxTemplates
	keptDeleted  = 128 // templates that are remembered as deleted
	keptFormer   = 64  // texts of a template that are
)

// Inventories are written as they come, some of a node's, and then seldom: it can tell of
// another one every two minutes, and an inventory may have tens of kilobytes. What the card
// lacks when the power goes nodes are asked for anew.
const (
	writeBurst  = 4
	writeEvery  = 30 * time.Minute
	writeAgain  = time.Minute // after the card did not take it
	lastWrite   = 5 * time.Second
	forgetEvery = time.Hour // nodes that are members no more
)

// Events; fields template, by.
const (
	EventTemplate        = "sensor.template.stored"
	EventTemplateDeleted = "sensor.template.deleted"
)

// New reads what is kept.
func New(ctx context.Context, c Config) (*Book, error) {
	b := &Book{Config: c, wake: make(chan struct{}, 1), nodes: map[string]*kept{}, said: map[string]words{}, templates: map[string]template{}, owed: map[string]map[string]*owed{}, due: map[string]bool{}, tried: map[string]time.Time{}}
	rows, err := c.DB.Read().QueryContext(ctx, `SELECT node, digest, body, time FROM inventories`)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var node, body string
		var at int64
		k := newKept()
		if err := rows.Scan(&node, &k.digest, &body, &at); err != nil {
			return nil, store.Classify(err)
		}
		if err := json.Unmarshal([]byte(body), &k.Inventory); err != nil || k.Check() != nil {
			continue // of another release: the node tells it anew
		}
		k.at = store.Time(at)
		b.nodes[node] = k
	}
	if err := rows.Err(); err != nil {
		return nil, store.Classify(err)
	}
	if err := b.loadWords(ctx); err != nil {
		return nil, err
	}
	if err := b.loadOwed(ctx); err != nil {
		return nil, err
	}
	return b, b.loadTemplates(ctx)
}

func newKept() *kept { return &kept{pace: rate.NewLimiter(rate.Every(writeEvery), writeBurst)} }

func (b *Book) loadWords(ctx context.Context) error {
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT node, key, name, place FROM sensors`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var node, key string
		var w words
		if err := rows.Scan(&node, &key, &w.name, &w.place); err != nil {
			return store.Classify(err)
		}
		b.said[model.SensorID(key, node)] = w
	}
	return store.Classify(rows.Err())
}

func (b *Book) loadTemplates(ctx context.Context) error {
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT name, digest, former, text, actor, time FROM sensor_templates`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, former string
		var t template
		var text sql.Null[string]
		var at int64
		if err := rows.Scan(&name, &t.digest, &former, &text, &t.actor, &at); err != nil {
			return store.Classify(err)
		}
		t.former, t.text, t.deleted, t.at = strings.Fields(former), text.V, !text.Valid, store.Time(at)
		b.templates[name] = t
	}
	return store.Classify(rows.Err())
}

// Knows tells whether a node that is there has an inventory that is known by that digest.
// One that was off may lack templates, and what is said of its sensors, of which it is told
// then.
func (b *Book) Knows(node, digest string) bool {
	b.mu.Lock()
	k := b.nodes[node]
	known := k != nil && k.digest == digest
	look := known && len(b.templates)+len(b.owed[node]) > 0
	if look {
		b.due[node] = true
	}
	b.mu.Unlock()
	if look {
		b.look()
	}
	return known
}

// Report keeps what a node tells of its buses.
func (b *Book) Report(_ context.Context, node, digest string, v model.Inventory) error {
	if err := v.Check(); err != nil {
		return err
	}
	if _, err := json.Marshal(v); err != nil { // a number that is none
		return err
	}
	now := time.Now()
	b.mu.Lock()
	k := b.nodes[node]
	if k == nil {
		k = newKept()
		b.nodes[node] = k
	}
	k.digest, k.at, k.Inventory = digest, b.Clock.Now(), v
	if k.by.IsZero() {
		k.by = now.Add(k.pace.ReserveN(now, 1).DelayFrom(now))
	}
	b.due[node] = true
	b.mu.Unlock()
	b.look()
	return nil
}

// unwritten is an inventory that the card lacks.
type unwritten struct {
	node, digest, body string
	at                 int64
}

// save writes the inventories whose time has come, or all, in one transaction.
func (b *Book) save(ctx context.Context, now time.Time, all bool) error {
	var list []unwritten
	b.mu.Lock()
	for node, k := range b.nodes {
		if k.by.IsZero() || !all && k.by.After(now) {
			continue
		}
		k.by = time.Time{} // what comes while this is written is to be written, too
		body, err := json.Marshal(k.Inventory)
		if err != nil {
			continue // Report has tried
		}
		list = append(list, unwritten{node, k.digest, string(body), store.Millis(k.at)})
	}
	b.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		for _, u := range list { // unless it is a member no more
			if _, err := tx.ExecContext(ctx, `INSERT INTO inventories (node, digest, body, time) SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM nodes WHERE id = ?1 AND NOT revoked)
				ON CONFLICT (node) DO UPDATE SET digest = excluded.digest, body = excluded.body, time = excluded.time`, u.node, u.digest, u.body, u.at); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range list {
		if k := b.nodes[u.node]; k != nil {
			k.by = now.Add(writeAgain)
		}
	}
	return err
}

// next is when something is to be written; zero: there is nothing.
func (b *Book) next() (by time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.nodes {
		if !k.by.IsZero() && (by.IsZero() || k.by.Before(by)) {
			by = k.by
		}
	}
	return by
}

// forget forgets what is on the buses of nodes that are members no more, and what people
// say of sensors of those that nobody knows any more.
func (b *Book) forget(ctx context.Context) error {
	inventories, words := map[string]bool{}, map[string]bool{}
	b.mu.Lock()
	for node := range b.nodes {
		inventories[node] = true
	}
	for node := range b.owed {
		inventories[node] = true
	}
	for id := range b.said {
		if _, node, ok := model.SplitSensorID(id); ok {
			words[node] = true
		}
	}
	b.mu.Unlock()
	rows, err := b.DB.Read().QueryContext(ctx, `SELECT id, revoked FROM nodes`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var revoked bool
		if err := rows.Scan(&id, &revoked); err != nil {
			return store.Classify(err)
		}
		if delete(words, id); !revoked {
			delete(inventories, id)
		}
	}
	if err := rows.Err(); err != nil || len(inventories)+len(words) == 0 {
		return store.Classify(err)
	}
	err = b.DB.Write(ctx, func(tx *sql.Tx) error {
		for _, q := range []string{
			`DELETE FROM inventories WHERE node NOT IN (SELECT id FROM nodes WHERE NOT revoked)`,
			`DELETE FROM sensor_assignments WHERE node NOT IN (SELECT id FROM nodes WHERE NOT revoked)`,
			`DELETE FROM sensors WHERE node NOT IN (SELECT id FROM nodes)`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for node := range inventories {
		delete(b.nodes, node)
		delete(b.owed, node)
	}
	for id := range b.said {
		if _, node, ok := model.SplitSensorID(id); ok && words[node] {
			delete(b.said, id)
		}
	}
	return nil
}

func (b *Book) look() {
	select {
	case b.wake <- struct{}{}:
	default: // it is about to
	}
}

// Adopt has what is known of a node's sensors be another's, within the transaction of that
// (registry.Registry.OnAdopt). Adopted has to be called once it is committed.
func (b *Book) Adopt(ctx context.Context, tx *sql.Tx, old, node string) error {
	if err := b.inherit(ctx, tx, old, node); err != nil {
		return err
	}
	for _, q := range []string{
		`INSERT INTO sensors (node, key, name, place, time) SELECT ?2, key, name, place, time FROM sensors WHERE node = ?1 ON CONFLICT DO NOTHING`,
		`DELETE FROM sensors WHERE node = ?1`,
		`DELETE FROM inventories WHERE node = ?1`,
	} {
		if _, err := tx.ExecContext(ctx, q, old, node); err != nil {
			return err
		}
	}
	return nil
}

// Adopted has that be so in RAM.
func (b *Book) Adopted(old, node string) {
	defer b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, w := range b.said {
		key, of, _ := model.SplitSensorID(id)
		if of != old {
			continue
		}
		if delete(b.said, id); b.said[model.SensorID(key, node)] == (words{}) {
			b.said[model.SensorID(key, node)] = w
		}
	}
	b.inherited(old, node)
	delete(b.nodes, old)
}

// Nodes tells the name of a node and whether it is there; known is false of one that is
// no member.
type Nodes func(node string) (name string, online, known bool)

// Query selects sensors.
type Query struct {
	Node  string // canonical ID
	State model.SensorState
}

// List returns all sensors that are asked for, by ID.
func (b *Book) List(q Query, at Nodes) []apitype.Sensor {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []apitype.Sensor{}
	for node, k := range b.nodes {
		if q.Node != "" && node != q.Node {
			continue
		}
		if _, _, known := at(node); !known {
			continue
		}
		for _, s := range k.Sensors {
			if q.State == "" || s.State == q.State {
				list = append(list, b.shown(node, s, at))
			}
		}
	}
	slices.SortFunc(list, func(a, b apitype.Sensor) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// shown is a sensor as the API has it; the caller holds the lock.
func (b *Book) shown(node string, s model.SensorChip, at Nodes) apitype.Sensor {
	id := model.SensorID(s.Key(), node)
	w := b.said[id]
	out := apitype.Sensor{ID: id, Node: node, Name: w.name, Place: w.place, SensorChip: s}
	out.NodeName, out.Online, _ = at(node)
	return out
}

// Get returns a sensor; key is its place on the node with that canonical ID.
func (b *Book) Get(key, node string, at Nodes) (apitype.Sensor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := b.get(key, node)
	if err != nil {
		return apitype.Sensor{}, err
	}
	return b.shown(node, s, at), nil
}

func (b *Book) get(key, node string) (model.SensorChip, error) {
	if k := b.nodes[node]; k != nil {
		for _, s := range k.Sensors {
			if s.Key() == key {
				return s, nil
			}
		}
	}
	return model.SensorChip{}, apitype.Refuse(http.StatusNotFound, "", "there is no sensor %.120q: GET /v1/sensors lists them", model.SensorID(key, node))
}

// Tag returns the entity tag of a sensor: of what people say of it.
func Tag(s apitype.Sensor) string { return etag.Of([2]string{s.Name, s.Place}) }

// Update gives a sensor a name or a place.
func (b *Book) Update(ctx context.Context, key, node string, m etag.Match, u apitype.UpdateSensor, at Nodes) (apitype.Sensor, error) {
	s, err := b.Get(key, node, at)
	if err != nil {
		return s, err
	}
	if err := m.Check(Tag(s)); err != nil {
		return s, err
	}
	if u.Name != nil {
		s.Name = strings.TrimSpace(*u.Name)
	}
	if u.Place != nil {
		s.Place = strings.TrimSpace(*u.Place)
	}
	if len(s.Name) > maxText || len(s.Place) > maxText {
		return s, apitype.Refuse(http.StatusUnprocessableEntity, "", "name, place: expected at most %d octets", maxText)
	}
	b.mu.Lock()
	full := len(b.said) >= maxSaid
	b.mu.Unlock()
	if full {
		return s, apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "expected at most %d sensors with names", maxSaid)
	}
	err = b.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sensors (node, key, name, place, time) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (node, key) DO UPDATE SET name = excluded.name, place = excluded.place, time = excluded.time`, node, key, s.Name, s.Place, store.Millis(b.Clock.Now()))
		return err
	})
	if err != nil {
		return s, err
	}
	b.mu.Lock()
	b.said[s.ID] = words{s.Name, s.Place}
	b.mu.Unlock()
	return s, nil
}

// Inventory returns what is on the buses of a node, and when it said so.
func (b *Book) Inventory(node string) (model.Inventory, time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.nodes[node]
	if k == nil {
		return model.Inventory{}, time.Time{}, apitype.Refuse(http.StatusNotFound, "", "%.64s has not said what is on its buses: it was not there yet, or its release does not tell", node)
	}
	return k.Inventory, k.at, nil
}

// Condition tells how a sensor is; known is false of one that is not there.
func (b *Book) Condition(key, node string) (s model.SensorChip, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := b.get(key, node)
	return s, err == nil
}

// Lint tells what is wrong with a template, or what its author may have overlooked.
func Lint(name, text string) []model.TemplateFinding {
	list := []model.TemplateFinding{}
	for _, f := range i2c.Lint(name+".toml", []byte(text)) {
		list = append(list, model.TemplateFinding{File: f.File, Line: f.Line, Key: f.Key, Text: f.Text, Warning: f.Warning})
	}
	return list
}

// Pack is a template as nodes are given it.
func Pack(text string) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil && b.Len() > model.MaxTemplateSent {
		err = fmt.Errorf("expected a template of at most %d octets when it is deflated, got %d", model.MaxTemplateSent, b.Len())
	}
	return b.Bytes(), err
}

// known returns the templates that are there, by name; the caller holds the lock.
func (b *Book) known() (names []string, deleted []string) {
	for name, t := range b.templates {
		if t.deleted {
			deleted = append(deleted, name)
		} else {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.SortFunc(deleted, func(x, y string) int { return b.templates[x].at.Compare(b.templates[y].at) })
	return names, deleted
}

// Templates lists the templates of people's and those of the release, by name.
func (b *Book) Templates(at Nodes) []apitype.SensorTemplate {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []apitype.SensorTemplate{}
	names, _ := b.known()
	for _, d := range i2c.Builtin() {
		if s := d.Spec(); !slices.Contains(names, s.Name) {
			_, text := d.(*i2c.Template)
			list = append(list, apitype.SensorTemplate{Name: s.Name, Title: s.Title, BuiltIn: true, Driver: !text, Role: model.Component(s.Role)})
		}
	}
	for _, name := range names {
		list = append(list, b.template(name, at))
	}
	slices.SortFunc(list, func(a, b apitype.SensorTemplate) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// template is one of people's as the API has it; the caller holds the lock.
func (b *Book) template(name string, at Nodes) apitype.SensorTemplate {
	t := b.templates[name]
	out := apitype.SensorTemplate{Name: name, Digest: t.digest, By: t.actor, Changed: &t.at, Role: model.Sensor}
	if p, err := i2c.Parse(name+".toml", []byte(t.text)); err == nil {
		out.Title, out.Role = p.Spec().Title, model.Component(p.Spec().Role)
	}
	for node, k := range b.nodes {
		if _, _, known := at(node); !known {
			continue
		}
		i := slices.IndexFunc(k.Templates, func(t model.NodeTemplate) bool { return t.Name == name })
		switch {
		case i >= 0 && k.Templates[i].Digest == t.digest && k.Templates[i].Problem == "":
			out.On++
		default:
			out.Missing++
		}
	}
	return out
}

// Template returns one with its text.
func (b *Book) Template(name string, at Nodes) (apitype.SensorTemplateText, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, ok := b.templates[name]; ok && !t.deleted {
		return apitype.SensorTemplateText{SensorTemplate: b.template(name, at), Text: t.text}, nil
	}
	for _, d := range i2c.Builtin() {
		s := d.Spec()
		if s.Name != name {
			continue
		}
		text, err := i2c.BuiltinText(name + ".toml")
		if err != nil {
			return apitype.SensorTemplateText{}, apitype.Refuse(http.StatusNotFound, "", "%s is a driver of the release's, and no template", name)
		}
		return apitype.SensorTemplateText{SensorTemplate: apitype.SensorTemplate{Name: name, Title: s.Title, BuiltIn: true, Role: model.Component(s.Role)}, Text: string(text)}, nil
	}
	return apitype.SensorTemplateText{}, noTemplate(name)
}

func noTemplate(name string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no template %.40q: GET /v1/sensor-templates lists them", name)
}

// TemplateTag returns the entity tag of a template: of its text.
func TemplateTag(t apitype.SensorTemplateText) string { return etag.Of(t.Text) }

// PutTemplate keeps a template and has all nodes get it.
func (b *Book) PutTemplate(ctx context.Context, name, text, actor string, m etag.Match, at Nodes) (apitype.SensorTemplateText, error) {
	none := apitype.SensorTemplateText{}
	if !model.TemplateForm.MatchString(name) {
		return none, apitype.Refuse(http.StatusUnprocessableEntity, "", "name: expected 1 to 32 small letters, digits, - and _, got %.40q", name)
	}
	for _, f := range Lint(name, text) {
		if !f.Warning {
			return none, apitype.Refuse(http.StatusUnprocessableEntity, "", "%s:%d: %s: %s", f.File, f.Line, f.Key, f.Text)
		}
	}
	if _, err := Pack(text); err != nil {
		return none, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	condition := m.CheckNone()
	if was, err := b.Template(name, at); err == nil {
		condition = m.Check(TemplateTag(was))
	}
	if condition != nil {
		return none, condition
	}
	b.mu.Lock()
	names, deleted := b.known()
	b.mu.Unlock()
	if !slices.Contains(names, name) && len(names) >= maxTemplates {
		return none, apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "expected at most %d templates besides those of the release", maxTemplates)
	}
	t := template{digest: i2c.Digest([]byte(text)), text: text, actor: actor, at: b.Clock.Now()}
	b.mu.Lock()
	if was, ok := b.templates[name]; ok {
		t.former = append(slices.Clone(was.former), was.digest)
		t.former = slices.DeleteFunc(t.former, func(d string) bool { return d == t.digest })
		t.former = slices.Compact(t.former[max(0, len(t.former)-keptFormer):])
	}
	b.mu.Unlock()
	if err := b.write(ctx, name, t, deleted); err != nil {
		return none, err
	}
	b.Events.Add(EventTemplate, model.Info, "", fmt.Sprintf("the I2C template %s goes to all nodes", name), map[string]string{"template": name, "by": actor})
	return b.Template(name, at)
}

// DeleteTemplate removes a template of people's from all nodes.
func (b *Book) DeleteTemplate(ctx context.Context, name, actor string, m etag.Match, at Nodes) error {
	was, err := b.Template(name, at)
	if err != nil {
		return err
	}
	if was.BuiltIn {
		return apitype.Refuse(http.StatusConflict, "", "the template %s is the release's: another of its name takes its place", name)
	}
	if err := m.Check(TemplateTag(was)); err != nil {
		return err
	}
	b.mu.Lock()
	t := b.templates[name]
	_, deleted := b.known()
	b.mu.Unlock()
	t.text, t.deleted, t.actor, t.at = "", true, actor, b.Clock.Now()
	if err := b.write(ctx, name, t, deleted); err != nil {
		return err
	}
	b.Events.Add(EventTemplateDeleted, model.Info, "", fmt.Sprintf("the I2C template %s is taken from all nodes", name), map[string]string{"template": name, "by": actor})
	return nil
}

// write keeps a template, and forgets those that were deleted long ago.
func (b *Book) write(ctx context.Context, name string, t template, deleted []string) error {
	var over []string
	if n := len(deleted) - keptDeleted; n > 0 {
		over = deleted[:n]
	}
	err := b.DB.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range over {
			if _, err := tx.ExecContext(ctx, `DELETE FROM sensor_templates WHERE name = ?`, o); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sensor_templates (name, digest, former, text, actor, time) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, former = excluded.former, text = excluded.text, actor = excluded.actor, time = excluded.time`,
			name, t.digest, strings.Join(t.former, " "), sql.Null[string]{V: t.text, Valid: !t.deleted}, t.actor, store.Millis(t.at))
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	for _, o := range over {
		delete(b.templates, o)
	}
	b.templates[name] = t
	for node := range b.nodes {
		b.due[node] = true
	}
	b.mu.Unlock()
	b.look()
	return nil
}

// give is one template that a node is to be given, or to give up, or what it is to be told
// of a sensor.
type give struct {
	node, try string
	command   model.Command
	owed      *owed // nil: it is about a template
}

// wants returns what nodes are to be told, and of which sensors nothing is to be said any
// more.
func (b *Book) wants(now time.Time) (list []give, over []spot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.tried) > maxTried {
		clear(b.tried)
	}
	for node := range b.due {
		delete(b.due, node)
		k := b.nodes[node]
		if k == nil {
			continue
		}
		before := len(list)
		for name, t := range b.templates {
			i := slices.IndexFunc(k.Templates, func(s model.NodeTemplate) bool { return s.Name == name })
			has := i >= 0 && k.Templates[i].Digest == t.digest
			if t.deleted && i >= 0 && slices.Contains(t.former, k.Templates[i].Digest) {
				has = true // it was off when there was another
			}
			if has != t.deleted { // it has what it should, or has not what it should not
				continue
			}
			g := give{node: node, try: node + " " + name + " " + t.digest + fmt.Sprint(t.deleted)}
			if last, ok := b.tried[g.try]; ok && now.Sub(last) < tryAgain {
				continue
			}
			c := &model.SensorCommand{Do: model.SensorDeleteTemplate, Name: name}
			if !t.deleted {
				text, err := Pack(t.text)
				if err != nil {
					continue // PutTemplate has tried
				}
				c.Do, c.Text = model.SensorPutTemplate, text
			}
			g.command = model.Command{Kind: model.CommandSensor, Sensor: c}
			b.tried[g.try] = now
			list = append(list, g)
		}
		if len(list) > before {
			continue // its sensors may be read by those: it tells when it has them
		}
		said, known := b.untold(node, k, now)
		list, over = append(list, said...), append(over, known...)
	}
	slices.SortFunc(list, func(a, b give) int { return cmp.Compare(a.try, b.try) })
	return list, over
}

// Run gives nodes the templates that they lack, tells them what they are to know of their
// sensors, and writes what they tell, until ctx ends; then it writes what is not written
// yet.
func (b *Book) Run(ctx context.Context) error {
	forget := time.NewTicker(forgetEvery)
	defer forget.Stop()
	b.forgetGone(ctx)
	for {
		var due <-chan time.Time
		var timer *time.Timer
		if by := b.next(); !by.IsZero() {
			timer = time.NewTimer(time.Until(by))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			return b.save(last, time.Now(), true)
		case <-b.wake:
		case <-due:
		case <-forget.C:
			b.forgetGone(ctx)
		}
		if timer != nil {
			timer.Stop()
		}
		b.giveAll(ctx, time.Now())
		// The database tells of itself when it takes nothing; what was to be written waits in RAM.
		_ = b.save(ctx, time.Now(), false)
	}
}

func (b *Book) forgetGone(ctx context.Context) {
	if err := b.forget(ctx); err != nil && ctx.Err() == nil {
		b.Log.Debug("what is known of nodes that are no members stays", "err", err)
	}
}

// giveAll gives nodes what they are to have now. Those that are off are told when they are
// there again.
func (b *Book) giveAll(ctx context.Context, now time.Time) {
	list, over := b.wants(now)
	for _, s := range over {
		if err := b.Settle(ctx, s.node, s.key); err != nil {
			b.Log.Debug("what a node knows of a sensor is kept for it still", "node", s.node, "sensor", s.key, "err", err)
		}
	}
	for _, g := range list {
		err := b.Command(ctx, g.node, g.command)
		b.mu.Lock()
		switch {
		case err != nil:
			delete(b.tried, g.try)
		case g.owed != nil:
			g.owed.tries++
		}
		b.mu.Unlock()
		if err != nil {
			b.Log.Debug("a node is not told of a template or a sensor", "node", g.node, "template", g.command.Sensor.Name, "address", g.command.Sensor.Address, "err", err)
		}
	}
}
