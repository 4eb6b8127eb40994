package ctl

import (
	"net/netip"
	"strings"
	"testing"

	"halo.internal/model/apitype"
)

// What a gateway says goes into a file whose lines wg-quick carries out as root.
func TestPlainSettings(t *testing.T) {
	good := func() apitype.OverlayRegistration {
		r := apitype.OverlayRegistration{Gateway: "wZl/iFG5H4uteZJshblbfw2aOFElF9XbDhB+eW7JDmc=", DNS: netip.MustParseAddr("10.42.0.1")}
		r.OverlayV4 = netip.MustParseAddr("10.42.255.1")
		r.Endpoints = []apitype.OverlayEndpoint{{Address: netip.MustParseAddrPort("[2001:db8::1]:51820")}}
		return r
	}
	if err := plainSettings(good()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*apitype.OverlayRegistration){
		"no key":             func(r *apitype.OverlayRegistration) { r.Gateway = "" },
		"a line more":        func(r *apitype.OverlayRegistration) { r.Gateway += "\nPostUp = id" },
		"another line break": func(r *apitype.OverlayRegistration) { r.Gateway = strings.Replace(r.Gateway, "B+", "\r\n", 1) },
		"DNS":                func(r *apitype.OverlayRegistration) { r.DNS = netip.MustParseAddr("fe80::1%x\nPostUp = id") },
		"address":            func(r *apitype.OverlayRegistration) { r.OverlayV4 = netip.MustParseAddr("fe80::1%x\nPostUp = id") },
		"endpoint": func(r *apitype.OverlayRegistration) {
			r.Endpoints[0].Address = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%x\nPostUp = id"), 1)
		},
		"nothing": func(r *apitype.OverlayRegistration) { *r = apitype.OverlayRegistration{} },
	} {
		r := good()
		change(&r)
		if err := plainSettings(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
