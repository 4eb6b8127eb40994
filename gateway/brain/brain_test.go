package brain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

var _ Devices = (*registry.Registry)(nil)

// network is nodes as a registry has them.
type network []apitype.Node

func (l network) Node(_ context.Context, ref string) (apitype.Node, error) {
	for _, n := range l {
		if n.ID == ref || n.Name == ref {
			return n, nil
		}
	}
	return apitype.Node{}, apitype.Refuse(http.StatusNotFound, "", "there is no node %q", ref)
}

// Nodes pages by two, so that pages are followed.
func (l network) Nodes(_ context.Context, cursor string, _ int) (apitype.NodeList, error) {
	i := 0
	if cursor != "" {
		i = slices.IndexFunc(l, func(n apitype.Node) bool { return n.Name == cursor }) + 1
	}
	list := apitype.NodeList{Items: l[i:min(i+2, len(l))]}
	if i+2 < len(l) {
		list.Next = l[i+1].Name
	}
	return list, nil
}

// id makes canonical IDs that can be told apart.
func id(name string) string { return "n-" + name + strings.Repeat("a", 20-len(name)) }

func node(name string) apitype.Node {
	return apitype.Node{ID: id(name), Name: name, Role: model.RoleNode, Online: true, State: "ok"}
}

type fixture struct {
	*Brain
	t     testing.TB
	path  string
	own   map[string]health.State
	nodes network
}

func newFixture(t testing.TB, nodes ...apitype.Node) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "config.db"), own: map[string]health.State{}, nodes: nodes}
	storetest.PutConfig(t, f.path)
	f.open()
	return f
}

// open starts the brain, as after a restart.
func (f *fixture) open() {
	f.t.Helper()
	if f.Brain != nil {
		if err := f.DB.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	db, _, err := store.OpenConfig(f.t.Context(), f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	f.Brain = New(Config{DB: db, Clock: clock.New(time.Now, time.Time{}), Devices: &f.nodes, Own: func(process string) (health.State, string, bool) {
		s, ok := f.own[process]
		return s, "a socket", ok
	}})
}

// neuron makes one whose components have these parts: "sensor mast", "memory
// halo-agent@mast".
func (f *fixture) neuron(name string, needs []model.Component, parts ...string) apitype.Neuron {
	f.t.Helper()
	n, err := f.Create(f.t.Context(), "user:root", apitype.CreateNeuron{Name: name, Needs: needs})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, p := range parts {
		c, ref, _ := strings.Cut(p, " ")
		if n, err = f.AssignPart(f.t.Context(), name, model.Component(c), etag.Match{}, partOf(ref)); err != nil {
			f.t.Fatal(err)
		}
	}
	return n
}

func partOf(ref string) model.Part {
	if strings.Contains(ref, "@") {
		return model.Part{Kind: model.PartProcess, ID: ref}
	}
	return model.Part{Kind: model.PartDevice, ID: ref}
}

// wired describes what components are assigned to.
func wired(list ...apitype.Neuron) string {
	var out []string
	for _, n := range list {
		for _, c := range n.Components {
			for _, p := range c.Parts {
				out = append(out, c.Name+"="+p.ID)
			}
		}
	}
	return strings.Join(out, " ")
}

// refused checks that an error is a problem of that status and type, and says that.
func refused(t *testing.T, err error, status int, typ, says string) {
	t.Helper()
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok || p.Status != status || p.Type != typ || !strings.Contains(p.Detail, says) {
		t.Errorf("got %v, want %d %s: …%s…", err, status, typ, says)
	}
}

const blank = "about:blank"

func TestNeuronsAreKept(t *testing.T) {
	f := newFixture(t, node("mast"), node("hill"))
	ctx := t.Context()
	made := f.neuron("n01", []model.Component{model.Send, model.Sensor, model.Send}, "sensor mast", "sensor hill", "send mast")
	if fmt.Sprint(made.Needs) != "[sensor send]" || made.By != "user:root" || time.Since(made.Created).Abs() > time.Minute || len(made.Components) != 4 {
		t.Errorf("got %+v", made)
	}
	f.neuron("n02", nil)
	f.open()
	again, err := f.Neuron(ctx, "n01")
	if err != nil || Tag(again) != Tag(made) {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	// Asked for again.
	same := apitype.CreateNeuron{Name: "n01", Needs: []model.Component{model.Sensor, model.Send}}
	if n, err := f.Create(ctx, "user:olaf", same); err != nil || Tag(n) != Tag(made) {
		t.Errorf("the same again: %+v, %v", n, err)
	}
	same.Description = "another"
	_, err = f.Create(ctx, "user:olaf", same)
	refused(t, err, http.StatusConflict, apitype.ProblemNameTaken, "n01")

	name, text := "weather", "mast and hill"
	n, err := f.Update(ctx, "n01", etag.Match{}, apitype.UpdateNeuron{Name: &name, Description: &text, Needs: &[]model.Component{}})
	if err != nil || n.Name != name || n.Description != text || n.Needs != nil || n.Components[0].Name != "brain-sensor-weather" {
		t.Errorf("got %+v, %v", n, err)
	}
	if got, want := wired(n), "brain-sensor-weather="+id("hill")+" brain-sensor-weather="+id("mast")+" brain-send-weather="+id("mast"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n, err := f.Update(ctx, name, etag.Match{}, apitype.UpdateNeuron{}); err != nil || Tag(n) == Tag(made) {
		t.Errorf("nothing to change: %+v, %v", n, err)
	}
	_, err = f.Neuron(ctx, "n01")
	refused(t, err, http.StatusNotFound, blank, "n01")
	other := "n02"
	_, err = f.Update(ctx, name, etag.Match{}, apitype.UpdateNeuron{Name: &other})
	refused(t, err, http.StatusConflict, apitype.ProblemNameTaken, "n02")
	_, err = f.Update(ctx, "n01", etag.Match{}, apitype.UpdateNeuron{})
	refused(t, err, http.StatusNotFound, blank, "n01")

	var names []string
	for cursor := ""; ; {
		l, err := f.Neurons(ctx, cursor, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Items {
			names = append(names, n.Name)
		}
		if cursor = l.Next; cursor == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[n02 weather]" {
		t.Errorf("pages have %v", names)
	}
	if err := f.Delete(ctx, name, etag.Match{}); err != nil {
		t.Fatal(err)
	}
	refused(t, f.Delete(ctx, name, etag.Match{}), http.StatusNotFound, blank, name)
	var left int
	if err := f.DB.Read().QueryRowContext(ctx, `SELECT count(*) FROM neuron_parts`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d parts of a neuron that is gone, %v", left, err)
	}
}

func TestNeuronsAreChecked(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, tc := range []struct {
		c    apitype.CreateNeuron
		says string
	}{
		{apitype.CreateNeuron{Name: "N01"}, "name"},
		{apitype.CreateNeuron{Name: ""}, "name"},
		{apitype.CreateNeuron{Name: strings.Repeat("x", 50)}, "name"},
		{apitype.CreateNeuron{Name: "n01.halo"}, "name"},
		{apitype.CreateNeuron{Name: "n01", Description: strings.Repeat("ü", 257)}, "description"},
		{apitype.CreateNeuron{Name: "n01", Needs: []model.Component{"camera"}}, "needs"},
		{apitype.CreateNeuron{Name: "n01", Needs: []model.Component{"sensor send"}}, "needs"},
	} {
		_, err := f.Create(ctx, "user:root", tc.c)
		refused(t, err, http.StatusUnprocessableEntity, blank, tc.says)
	}
	f.neuron("n01", nil)
	bad, long := "a_b", strings.Repeat("ü", 257)
	for _, u := range []apitype.UpdateNeuron{{Name: &bad}, {Description: &long}, {Needs: &[]model.Component{"x"}}} {
		_, err := f.Update(ctx, "n01", etag.Match{}, u)
		refused(t, err, http.StatusUnprocessableEntity, blank, "expected")
	}
	for i := range model.MaxNeurons - 1 {
		f.neuron(fmt.Sprintf("m%03d", i), nil)
	}
	_, err := f.Create(ctx, "user:root", apitype.CreateNeuron{Name: "one-too-many"})
	refused(t, err, http.StatusConflict, apitype.ProblemFull, "512")
}

// TestManyToMany: one board hosts several components, and one component spans boards.
func TestManyToMany(t *testing.T) {
	gateway := apitype.Node{ID: id("gw"), Name: "gw", Role: model.RoleGateway}
	gone := node("gone")
	gone.Revoked = true
	f := newFixture(t, gateway, node("mast"), node("hill"), gone)
	ctx := t.Context()
	f.neuron("n01", nil, "sensor mast", "thought gateway-api@gw", "memory gw", "send mast")
	f.neuron("n02", nil, "sensor mast", "sensor hill", "sensor halo-agent@mast", "send halo-field@hill")
	all, err := f.load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := model.ProcessID
	want := strings.Join([]string{
		"brain-sensor-n01=" + id("mast"), "brain-thought-n01=" + p("gateway-api", id("gw")), "brain-memory-n01=" + id("gw"), "brain-send-n01=" + id("mast"),
		"brain-sensor-n02=" + id("hill"), "brain-sensor-n02=" + id("mast"), "brain-sensor-n02=" + p("halo-agent", id("mast")), "brain-send-n02=" + p("halo-field", id("hill")),
	}, " ")
	if got := wired(all...); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	names, err := f.Names(ctx)
	if got, want := fmt.Sprint(names, err), fmt.Sprint([]model.BrainName{
		{Name: "brain-sensor-n01", Nodes: []string{id("mast")}}, {Name: "brain-thought-n01", Nodes: []string{id("gw")}},
		{Name: "brain-memory-n01", Nodes: []string{id("gw")}}, {Name: "brain-send-n01", Nodes: []string{id("mast")}},
		{Name: "brain-sensor-n02", Nodes: []string{id("hill"), id("mast")}}, {Name: "brain-send-n02", Nodes: []string{id("hill")}},
	}, nil); got != want {
		t.Errorf("names: got %s\nwant %s", got, want)
	}
	o, err := f.Overview(ctx, "hill", "", 10)
	if err != nil || o.Neurons != 2 || o.Devices != 3 || len(o.Items) != 1 || o.Items[0].Name != "n02" {
		t.Errorf("of one device: %+v, %v", o, err)
	}

	// Twice is once.
	before, err := f.Neuron(ctx, "n02")
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.AssignPart(ctx, "n02", model.Sensor, etag.Match{}, partOf(id("mast")))
	if err != nil || Tag(n) != Tag(before) {
		t.Errorf("again: %s, %v", wired(n), err)
	}
	// All at once, one of them twice.
	n, err = f.Assign(ctx, "n02", model.Sensor, etag.Match{}, []model.Part{partOf("gw"), partOf(id("mast")), partOf("mast")})
	if got, want := wired(n), strings.Join([]string{"brain-sensor-n02=" + id("gw"), "brain-sensor-n02=" + id("mast"), "brain-send-n02=" + p("halo-field", id("hill"))}, " "); err != nil || got != want {
		t.Errorf("got %s, want %s, %v", got, want, err)
	}
	if n, err := f.Assign(ctx, "n02", model.Send, etag.Match{}, nil); err != nil || len(n.Components[3].Parts) != 0 {
		t.Errorf("nothing: %s, %v", wired(n), err)
	}

	for _, tc := range []struct {
		part   model.Part
		status int
		says   string
	}{
		{partOf("nobody"), http.StatusNotFound, "nobody"},
		{partOf("gone"), http.StatusConflict, "revoked"},
		{partOf("halo-agent@gone"), http.StatusConflict, "revoked"},
		{partOf("halo-agent@nobody"), http.StatusNotFound, "nobody"},
		{partOf("gateway-api@mast"), http.StatusUnprocessableEntity, "halo-field"},
		{partOf("halo-field@gw"), http.StatusUnprocessableEntity, "gateway-api"},
		{partOf("@mast"), http.StatusUnprocessableEntity, "halo-agent@"},
		{partOf("halo-agent@"), http.StatusUnprocessableEntity, "halo-agent@"},
		{model.Part{Kind: model.PartProcess, ID: "halo-agent"}, http.StatusUnprocessableEntity, "halo-agent@"},
		{model.Part{Kind: "sensor", ID: "mast"}, http.StatusUnprocessableEntity, "i2c-76@"},
		{model.Part{Kind: "camera", ID: "mast"}, http.StatusUnprocessableEntity, "device, process or sensor"},
		{model.Part{}, http.StatusUnprocessableEntity, "device, process or sensor"},
		{model.Part{Kind: model.PartDevice}, http.StatusUnprocessableEntity, "canonical ID"},
	} {
		typ := blank
		if tc.status == http.StatusConflict {
			typ = apitype.ProblemNodeRevoked
		}
		_, err := f.AssignPart(ctx, "n01", model.Sensor, etag.Match{}, tc.part)
		refused(t, err, tc.status, typ, tc.says)
		_, err = f.Assign(ctx, "n01", model.Sensor, etag.Match{}, []model.Part{tc.part})
		refused(t, err, tc.status, typ, tc.says)
	}
	_, err = f.AssignPart(ctx, "n01", "camera", etag.Match{}, partOf("mast"))
	refused(t, err, http.StatusNotFound, blank, "camera")
	_, err = f.AssignPart(ctx, "n09", model.Sensor, etag.Match{}, partOf("mast"))
	refused(t, err, http.StatusNotFound, blank, "n09")
	_, err = f.Assign(ctx, "n09", model.Sensor, etag.Match{}, nil)
	refused(t, err, http.StatusNotFound, blank, "n09")
}

// TestWhatIsGoneCanBeLetGo, and need not be.
func TestWhatIsGoneCanBeLetGo(t *testing.T) {
	f := newFixture(t, node("mast"), node("hill"), node("yard"))
	ctx := t.Context()
	f.neuron("n01", nil, "sensor mast", "sensor hill", "sensor halo-agent@hill")
	f.nodes[0].Revoked, f.nodes[0].Name = true, id("mast")
	f.nodes = f.nodes[:2:2]
	f.nodes = slices.Delete(f.nodes, 1, 2) // the hill is forgotten
	if n, err := f.Assign(ctx, "n01", model.Sensor, etag.Match{}, []model.Part{partOf(id("mast")), partOf("halo-agent@" + id("mast"))}); err == nil {
		t.Errorf("a process of one that was revoked was assigned: %s", wired(n))
	}
	if n, err := f.Assign(ctx, "n01", model.Sensor, etag.Match{}, []model.Part{partOf(id("mast"))}); err != nil || len(n.Components[0].Parts) != 1 {
		t.Errorf("what is assigned may stay: %s, %v", wired(n), err)
	}
	if err := f.UnassignPart(ctx, "n01", model.Sensor, etag.Match{}, partOf(id("mast"))); err != nil {
		t.Error(err)
	}
	refused(t, f.UnassignPart(ctx, "n01", model.Sensor, etag.Match{}, partOf(id("mast"))), http.StatusNotFound, blank, "brain-sensor-n01")
	refused(t, f.UnassignPart(ctx, "n01", model.Sensor, etag.Match{}, partOf("hill")), http.StatusNotFound, blank, "no node")
	f.nodes = network{node("hill")}
	f.neuron("n02", nil, "sensor hill", "send halo-agent@hill")
	f.nodes = nil
	for _, err := range []error{
		f.UnassignPart(ctx, "n02", model.Sensor, etag.Match{}, partOf(id("hill"))),
		f.UnassignPart(ctx, "n02", model.Send, etag.Match{}, partOf("halo-agent@"+id("hill"))),
	} {
		if err != nil {
			t.Errorf("of a device that is forgotten: %v", err)
		}
	}
}

// TestChangesForWhatWasSeen: of two people who change what both have read, the second
// is told.
func TestChangesForWhatWasSeen(t *testing.T) {
	f := newFixture(t, node("mast"), node("hill"))
	ctx := t.Context()
	n := f.neuron("n01", nil, "sensor mast")
	match := func(n apitype.Neuron) etag.Match {
		t.Helper()
		m, err := etag.Parse("If-Match", Tag(n))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	seen, text := match(n), "by the first"
	now, err := f.Update(ctx, "n01", seen, apitype.UpdateNeuron{Description: &text})
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func() error{
		"update": func() error {
			_, err := f.Update(ctx, "n01", seen, apitype.UpdateNeuron{Description: &text})
			return err
		},
		"assign": func() error {
			_, err := f.Assign(ctx, "n01", model.Send, seen, []model.Part{partOf("hill")})
			return err
		},
		"part":   func() error { _, err := f.AssignPart(ctx, "n01", model.Send, seen, partOf("hill")); return err },
		"off":    func() error { return f.UnassignPart(ctx, "n01", model.Sensor, seen, partOf("mast")) },
		"delete": func() error { return f.Delete(ctx, "n01", seen) },
	} {
		err := change()
		if refused(t, err, http.StatusPreconditionFailed, apitype.ProblemETag, Tag(now)); t.Failed() {
			t.Fatal(what)
		}
	}
	if still, err := f.Neuron(ctx, "n01"); err != nil || Tag(still) != Tag(now) {
		t.Errorf("something was changed all the same: %+v, %v", still, err)
	}
	// Health is not what is edited.
	f.nodes[0].Online = false
	if err := f.Delete(ctx, "n01", match(now)); err != nil {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	var nodes []apitype.Node
	var parts []model.Part
	for i := range model.MaxComponentParts + 1 {
		n := node("mast")
		n.Name = fmt.Sprintf("m%03d", i)
		n.ID = id("m" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
		nodes, parts = append(nodes, n), append(parts, partOf(n.ID))
	}
	f := newFixture(t, nodes...)
	ctx := t.Context()
	most := parts[:model.MaxComponentParts]
	for i := range model.MaxParts / model.MaxComponentParts {
		name := fmt.Sprintf("n%d", i)
		f.neuron(name, nil)
		if _, err := f.Assign(ctx, name, model.Sensor, etag.Match{}, most); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.Assign(ctx, "n0", model.Sensor, etag.Match{}, parts)
	refused(t, err, http.StatusConflict, apitype.ProblemFull, "256")
	_, err = f.AssignPart(ctx, "n0", model.Sensor, etag.Match{}, parts[len(most)])
	refused(t, err, http.StatusConflict, apitype.ProblemFull, "256")
	_, err = f.AssignPart(ctx, "n0", model.Send, etag.Match{}, parts[0])
	refused(t, err, http.StatusConflict, apitype.ProblemFull, "4096")
	names, err := f.Names(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(names)
	if err != nil || len(b) > 1<<20 {
		t.Errorf("all names are %d octets, more than halo-mesh takes; %v", len(b), err)
	}
}

// TestNamesAreReadAfterChangesAlone: they are asked for every two seconds.
func TestNamesAreReadAfterChangesAlone(t *testing.T) {
	f := newFixture(t, node("mast"))
	ctx := t.Context()
	names := func() string {
		t.Helper()
		l, err := f.Names(ctx)
		if err != nil || l == nil {
			t.Fatalf("%v, %v", l, err)
		}
		return fmt.Sprint(l)
	}
	if got := names(); got != "[]" {
		t.Errorf("none: got %s", got)
	}
	f.neuron("n01", nil, "send mast")
	want := "[{brain-send-n01 [" + id("mast") + "]}]"
	if got := names(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := f.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != want {
		t.Errorf("without a database: got %s, want %s", got, want)
	}
	f.changes.Add(1)
	if l, err := f.Names(ctx); err == nil {
		t.Errorf("a change that cannot be read: %v", l)
	}
	f.Brain = nil
	f.open()
	if err := f.Delete(ctx, "n01", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "[]" {
		t.Errorf("after it was removed: got %s", got)
	}
}

// FuzzCreate holds that whatever name is taken gives four names of DNS, and that what
// is refused is the client's fault.
func FuzzCreate(f *testing.F) {
	for _, s := range []string{"n01", "N01", "a--b", "-", "a.b", strings.Repeat("x", 49), "ü", "' OR 1=1 --"} {
		f.Add(s, "sensor")
	}
	f.Add("n02", "camera")
	x := newFixture(f)
	f.Fuzz(func(t *testing.T, name, needs string) {
		n, err := x.Create(t.Context(), "user:root", apitype.CreateNeuron{Name: name, Needs: []model.Component{model.Component(needs)}})
		if err != nil {
			if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status/100 != 4 {
				t.Fatalf("%q: %v", name, err)
			}
			return
		}
		for _, c := range n.Components {
			if of, neuron, err := model.ParseComponentName(c.Name); err != nil || of != c.Component || neuron != name {
				t.Fatalf("%q: %q is of %q, %q, %v", name, c.Name, of, neuron, err)
			}
		}
		if fmt.Sprint(n.Needs) != "["+needs+"]" {
			t.Fatalf("needs %v", n.Needs)
		}
		if err := x.Delete(t.Context(), name, etag.Match{}); err != nil {
			t.Fatal(err)
		}
	})
}
