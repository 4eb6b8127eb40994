package doctor

import (
	"net/netip"
	"strings"
	"testing"
)

func TestWhereTrafficForOutsideGoes(t *testing.T) {
	p := netip.MustParsePrefix
	wg, eth, none := "wg0", "eth0", ""
	ours := routeEntry{dst: p("0.0.0.0/0"), iface: "wg0", metric: 512}
	clients := routeEntry{dst: p("10.43.0.0/16"), iface: "wg0", metric: 512}
	std := []ruleEntry{{priority: 0, table: 255}, {priority: 32766, table: 254}, {priority: 32767, table: 253}}
	for name, tc := range map[string]struct {
		routes []routeEntry
		rules  []ruleEntry
		leads  *string
		other  *string // of clients
		want   []string
		mended int
	}{
		"as it should be":    {[]routeEntry{ours, clients, {dst: p("0.0.0.0/0"), iface: "eth0", metric: 1024}, {dst: p("10.42.0.0/16"), iface: "wg0"}}, std, &wg, &wg, nil, 0},
		"route is gone":      {[]routeEntry{clients}, std, &none, nil, []string{"the route to everywhere through the overlay is gone"}, 1},
		"both are gone":      {nil, std, &none, nil, []string{"the route to everywhere", "the route to 10.43.0.0/16"}, 2},
		"another metric":     {[]routeEntry{clients, {dst: p("0.0.0.0/0"), iface: "wg0", metric: 100}}, std, &wg, nil, []string{"the route to everywhere through the overlay is gone", "of metric 100"}, 2},
		"better one on bat0": {[]routeEntry{ours, clients, {dst: p("0.0.0.0/0"), iface: "bat0"}}, std, &none, nil, []string{"a route to everywhere through bat0, of metric 0"}, 1},
		"halves": {[]routeEntry{ours, clients, {dst: p("0.0.0.0/1"), iface: "br0", metric: 600}, {dst: p("128.0.0.0/1"), iface: "mesh0"}}, std, &none, nil,
			[]string{"0.0.0.0/1, half of everywhere, through br0", "128.0.0.0/1, half of everywhere, through mesh0"}, 2},
		"better one on another's": {[]routeEntry{ours, clients, {dst: p("0.0.0.0/0"), iface: "eth0", metric: 5}}, std, &eth, nil, []string{"not on an interface of HALO's, so it stays"}, 0},
		"several ways":            {[]routeEntry{ours, clients, {dst: p("0.0.0.0/0"), metric: 5}}, std, &eth, nil, []string{"leads several ways"}, 0},
		"black hole":              {[]routeEntry{ours, clients, {dst: p("0.0.0.0/0"), metric: 5, dead: true}}, std, &none, nil, []string{"of metric 5 drops what is for everywhere"}, 1},
		"rule of our addresses": {[]routeEntry{ours, clients}, append([]ruleEntry{{priority: 100, table: 7, from: p("10.42.1.2/32"), words: "R"}}, std...), &eth, nil,
			[]string{"a rule takes traffic away from the overlay: R"}, 1},
		"rule of our bridge": {[]routeEntry{ours, clients}, append([]ruleEntry{{priority: 100, table: 7, iif: "br0", words: "R"}}, std...), &wg, &eth,
			[]string{"a rule takes traffic away"}, 1},
		"rule of another's":       {[]routeEntry{ours, clients}, append([]ruleEntry{{priority: 100, table: 7, words: "R"}}, std...), &eth, nil, []string{"so it stays"}, 0},
		"rule that does no harm":  {[]routeEntry{ours, clients}, append([]ruleEntry{{priority: 100, table: 7, from: p("10.42.0.0/16")}}, std...), &wg, nil, nil, 0},
		"nobody knows why":        {[]routeEntry{ours, clients}, std[:1], &none, nil, []string{"nowhere, and no route or rule says why"}, 0},
		"our own names elsewhere": {[]routeEntry{ours, clients, {dst: p("::/0"), iface: "bat0"}, {dst: p("10.0.0.0/8"), iface: "bat0"}}, std, &wg, nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := outlook{
				overlay: "wg0", metric: 512, wanted: []netip.Prefix{p("0.0.0.0/0"), p("10.43.0.0/16")}, halo: []string{"wg0", "bat0", "br0", "mesh0"},
				nets: []netip.Prefix{p("10.42.0.0/16")}, routes: tc.routes, rules: tc.rules, leads: tc.leads, clients: tc.other,
			}
			got := o.judge()
			mended := 0
			for i, f := range got {
				if i >= len(tc.want) || !strings.Contains(f.detail, tc.want[i]) {
					t.Errorf("got %q, want …%v…", f.detail, tc.want)
				}
				if f.remedy != remedyNone {
					mended++
					if f.done == "" {
						t.Errorf("%q: no word of what is done", f.detail)
					}
				}
			}
			if len(got) != len(tc.want) || mended != tc.mended {
				t.Errorf("got %d faults of which %d are mended, want %d and %d: %+v", len(got), mended, len(tc.want), tc.mended, got)
			}
		})
	}
}

func TestWhatIsGoneTheNextMomentIsNoFault(t *testing.T) {
	var s steady
	a, b := routeFault{what: "a"}, routeFault{what: "b"}
	for i, tc := range []struct{ now, want []routeFault }{
		{[]routeFault{a}, nil}, {nil, nil}, {[]routeFault{a}, nil}, {[]routeFault{a, b}, []routeFault{a}}, {[]routeFault{b}, []routeFault{b}},
	} {
		if got := s.keep(tc.now); len(got) != len(tc.want) || len(got) > 0 && got[0].what != tc.want[0].what {
			t.Errorf("%d: got %v, want %v", i, got, tc.want)
		}
	}
}

func TestOtherMTU(t *testing.T) {
	p := netip.MustParsePrefix("0.0.0.0/0")
	o := outlook{overlay: "wg0", metric: 512, wanted: []netip.Prefix{p}, routes: []routeEntry{{dst: p, iface: "wg0", metric: 512, mtu: 1300}, {dst: p, iface: "eth0", metric: 1024}}}
	if got := o.otherMTU(1300); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := o.otherMTU(0); len(got) != 1 {
		t.Errorf("got %v, want the route that another process left", got)
	}
}
