package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// whole are the lists that have no pages, since they can't be long: docs/api.md says so.
var whole = []string{
	"list-model-networks", "list-model-meshes", "list-model-domains", "list-wireless", "list-mesh-channels", "list-mesh-legality", "list-network-interfaces", "list-batman-interfaces",
	"list-mesh-recoveries", "list-firewall-zones", "list-firewall-forwardings", "list-firewall-rules", "list-port-forwards",
}

// TestEveryListHasPages, and all of one form.
func TestEveryListHasPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	doc := f.OpenAPI()
	lists := 0
	for path, item := range doc.Paths {
		for _, op := range operations(item) {
			if !strings.HasPrefix(op.OperationID, "list-") {
				continue
			}
			lists++
			takes := map[string]bool{}
			for _, p := range op.Parameters {
				takes[p.Name] = true
			}
			s := op.Responses["200"].Content["application/json"].Schema
			if s.Ref != "" {
				s = doc.Components.Schemas.SchemaFromRef(s.Ref)
			}
			has := takes["limit"] && takes["cursor"] && s.Properties["next"] != nil && !slices.Contains(s.Required, "next")
			if has == slices.Contains(whole, op.OperationID) {
				t.Errorf("%s (%s): takes limit and cursor, and answers with next: %t", op.OperationID, path, has)
			}
			if op.OperationID != "list-model-conflicts" && (s.Properties["items"] == nil || s.Properties["items"].Type != huma.TypeArray) {
				t.Errorf("%s (%s) has no items", op.OperationID, path)
			}
		}
	}
	if lists < 50 {
		t.Errorf("%d lists", lists)
	}
}

func TestPagesOfAList(t *testing.T) {
	key := func(s string) []string { return strings.SplitN(s, "/", 3)[:2] }
	list := []string{"b/x/1", "a/y/1", "b/x/2", "a/x/1", "b/x/3", "c/x/1", "b/x/4"}
	for limit := 1; limit <= 8; limit++ {
		var got []string
		pages := 0
		for p := (Page{Limit: limit}); ; pages++ {
			items, next, err := pageOf(list, p, 2, key)
			if err != nil || len(items) == 0 || len(items) > limit {
				t.Fatalf("limit %d: page %d has %q, %v", limit, pages, items, err)
			}
			got = append(got, items...)
			if p.Cursor = next; next == "" {
				break
			}
		}
		if want := "a/x/1 a/y/1 b/x/1 b/x/2 b/x/3 b/x/4 c/x/1"; strings.Join(got, " ") != want || pages != (len(list)-1)/limit {
			t.Errorf("limit %d: got %q in %d pages", limit, got, pages+1)
		}
	}
	if list[0] != "b/x/1" {
		t.Error("the list itself was put in order")
	}
	if items, next, err := pageOf(nil, Page{Limit: 1}, 2, key); err != nil || items == nil || len(items) != 0 || next != "" {
		t.Errorf("nothing: got %q, %q, %v", items, next, err)
	}
	// What comes and goes between two pages.
	items, next, err := pageOf(list, Page{Limit: 4}, 2, key)
	if err != nil || items[3] != "b/x/2" {
		t.Fatal(items, err)
	}
	for _, tc := range []struct {
		list []string
		want string
	}{
		{[]string{"a/a/1", "a/x/1", "b/x/1", "b/x/2", "b/x/3", "c/x/1"}, "b/x/3 c/x/1"},
		{[]string{"a/x/1", "c/x/1"}, "c/x/1"},
		{[]string{"b/x/1", "bb/x/1", "b/z/1"}, "b/z/1 bb/x/1"},
		{[]string{"a/x/1"}, ""},
	} {
		items, _, err := pageOf(tc.list, Page{Limit: 4, Cursor: next}, 2, key)
		if got := strings.Join(items, " "); err != nil || got != tc.want {
			t.Errorf("of %q: got %q, %v, want %q", tc.list, got, err, tc.want)
		}
	}
	for _, cursor := range []string{"x", "*", cursorOf("a", "x"), cursorOf("a", "x", "-1"), cursorOf("a", "x", ""), cursorOf("a", "x", "99999999999999999999"), cursorOf("a", "x", "1", "2")} {
		if _, _, err := pageOf(list, Page{Limit: 1, Cursor: cursor}, 2, key); err == nil {
			t.Errorf("%q is taken for a cursor", cursor)
		}
	}
}

func TestAddressesAreInOrder(t *testing.T) {
	var list []netip.Addr
	for _, text := range []string{"fe80::1%eth1", "10.0.0.2", "fe80::1%eth0", "::1", "9.255.0.1", "::ffff:10.0.0.1", "fd00::2", "10.0.0.10"} {
		list = append(list, netip.MustParseAddr(text))
	}
	got, _, err := pageOf(list, Page{Limit: 100}, 1, func(a netip.Addr) []string { return []string{addressKey(a)} })
	slices.SortFunc(list, netip.Addr.Compare)
	if err != nil || !slices.Equal(got, list) {
		t.Errorf("got %v, %v, want %v", got, err, list)
	}
}

// TestListsOfTheKernelAndOfServicesHavePages: each of them whole, in pages of three.
func TestListsOfTheKernelAndOfServicesHavePages(t *testing.T) {
	const many = 10
	f := newFixture(t)
	mac := func(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i) }
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 43, 0, byte(i)}) }
	k, mesh, home := &kernel{}, &air{status: model.MeshStatus{Radios: []model.Radio{{Name: "phy0", Iface: "mesh0"}}}}, &house{}
	var interfaces []model.Interface
	for i := range many {
		n := many - i
		k.neighbours = append(k.neighbours, model.NeighbourEntry{Iface: "br0", Address: address(n), MAC: mac(n)})
		k.tables.Originators = append(k.tables.Originators, model.BatmanOriginator{MAC: mac(n / 2), Best: n%2 == 0, NextHop: mac(n), Iface: "mesh0"})
		k.tables.Neighbours = append(k.tables.Neighbours, model.Neighbour{Iface: "mesh0", MAC: mac(n)})
		k.tables.Local = append(k.tables.Local, model.BatmanClient{MAC: mac(n / 2)}) // one address may be there twice
		k.tables.Global = append(k.tables.Global, model.BatmanClient{MAC: mac(n / 2), Originator: mac(n)})
		k.tables.Gateways = append(k.tables.Gateways, model.BatmanGateway{MAC: mac(n), NextHop: mac(n)})
		mesh.status.Radios[0].Peers = append(mesh.status.Radios[0].Peers, model.RadioPeer{MAC: mac(n)})
		home.leases = append(home.leases, model.Lease{Address: address(n), MAC: mac(n), Expires: time.Now()})
		home.reserved = append(home.reserved, model.Reservation{MAC: mac(n), Address: address(n)})
		interfaces = append(interfaces, model.Interface{Kind: "ethernet", Name: fmt.Sprintf("eth%d", n), MAC: fmt.Sprintf("00:c0:ca:00:00:%02x", n)})
	}
	f.Tables, f.Mesh, f.Radios, f.Services = k, mesh, mesh, home
	board := func(r *model.JoinRequest) { r.MACs = []string{"00:c0:ca:00:01:00"} }
	f.join("mast", board)
	for i := range many { // two nodes say that they have all of these addresses, and cards were written anew
		id := f.join(fmt.Sprintf("mast-%d", i), board)
		if i < 2 {
			defer f.Registry.Online(id, 1)()
			f.Registry.Status(id, model.NodeStatus{Interfaces: interfaces})
		}
	}
	for _, path := range []string{
		"/v1/network/neighbours", "/v1/network/associations", "/v1/network/leases", "/v1/network/reservations", "/v1/mesh/peers", "/v1/mesh/batman/originators", "/v1/mesh/batman/neighbours",
		"/v1/mesh/batman/translation/local", "/v1/mesh/batman/translation/global", "/v1/mesh/batman/gateways", "/v1/nodes/mast-0/interfaces", "/v1/model/conflicts", "/v1/model/replacements",
	} {
		type list struct {
			Items []any  `json:"items"`
			MACs  []any  `json:"macs"`
			Next  string `json:"next"`
		}
		var all list
		if f.want(http.StatusOK, "GET", path, nil, &all); all.Next != "" {
			t.Errorf("%s: the whole is more than one page", path)
		}
		all.Items = append(all.Items, all.MACs...)
		if len(all.Items) < many-2 { // of the cards those of nodes that are there offer nothing
			t.Errorf("%s: %d items", path, len(all.Items))
		}
		var got []any
		sizes := []int{}
		for cursor := ""; len(sizes) < 2*many; {
			var page list
			f.want(http.StatusOK, "GET", path+"?limit=3&cursor="+cursor, nil, &page)
			page.Items = append(page.Items, page.MACs...)
			got, sizes = append(got, page.Items...), append(sizes, len(page.Items))
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(all.Items) || len(sizes) != (len(all.Items)+2)/3 {
			t.Errorf("%s: in pages of %v\n%v\nwhole\n%v", path, sizes, got, all.Items)
		}
		var p apitype.Problem
		if f.want(http.StatusBadRequest, "GET", path+"?cursor=x", nil, &p); !strings.HasPrefix(p.Detail, "cursor: ") {
			t.Errorf("%s: got %+v", path, p)
		}
		f.want(http.StatusUnprocessableEntity, "GET", path+"?limit=501", nil, nil)
	}
	// What cannot be told is no empty list.
	k.err, mesh.err, home.err = local.ErrAbsent, local.ErrAbsent, local.ErrAbsent
	for _, path := range []string{"/v1/network/neighbours", "/v1/network/associations", "/v1/network/leases", "/v1/network/reservations", "/v1/mesh/peers", "/v1/mesh/batman/originators"} {
		f.want(http.StatusServiceUnavailable, "GET", path, nil, nil)
	}
}
