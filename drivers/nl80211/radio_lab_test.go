//go:build lab

package nl80211_test

import (
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air/hwsim"
)

func TestCapabilities(t *testing.T) {
	l := newLab(t)
	r := l.radio(nl80211.MeshPoint)
	if err := r.wiphy.Check(append(nl80211.SecureMesh(), nl80211.ChannelSwitching(), nl80211.NeedVendor(hwsimTest))...); err != nil {
		t.Error(err)
	}
	if len(r.wiphy.Bands) < 2 || !slices.Equal(r.wiphy.Bands[0].Rates, rates) || r.wiphy.Bands[0].HT.MCS == nil {
		t.Errorf("bands: got %+v", r.wiphy.Bands)
	}
	c, ok := r.wiphy.Channel(2412)
	if !ok || c.Disabled || c.MaxPowerMB <= 0 {
		t.Errorf("channel 1: got %+v, %v", c, ok)
	}
	again, err := l.conn.Wiphy(r.wiphy.Index)
	if err != nil || again.Name != r.wiphy.Name {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := l.conn.Wiphy(9999); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a radio that is not there: got %v", err)
	}
}

// TestDriverWithoutAFeature has drivers that cannot do what a secure mesh needs.
func TestDriverWithoutAFeature(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		radio   hwsim.Radio
		missing string
	}{
		{hwsim.Radio{Name: "no-mesh", Iftypes: 1<<unix.NL80211_IFTYPE_STATION | 1<<unix.NL80211_IFTYPE_AP}, "mesh interfaces"},
		{hwsim.Radio{Name: "no-bip", Ciphers: []uint32{uint32(nl80211.CCMP)}}, "cipher BIP-CMAC-128 (00-0f-ac:6)"},
	} {
		r := l.wiphy(tc.radio)
		err := r.wiphy.Check(nl80211.SecureMesh()...)
		refused, ok := errors.AsType[*nl80211.UnsupportedError](err)
		if !ok || refused.Wiphy != tc.radio.Name || !slices.Contains(refused.Missing, tc.missing) {
			t.Errorf("%s: got %v, want it to miss %q", tc.radio.Name, err, tc.missing)
		}
		if ok && tc.radio.Ciphers != nil && len(refused.Missing) != 1 {
			t.Errorf("%s: misses %q, want only the cipher", tc.radio.Name, refused.Missing)
		}
	}
}

func TestInterfaces(t *testing.T) {
	l := newLab(t, nl80211.GroupConfig)
	w := l.wiphy(hwsim.Radio{Name: "interfaces"})
	await(l, "new radio", func(e nl80211.WiphyAdded) bool { return e.Name == "interfaces" && e.Index == w.wiphy.Index })
	made, err := l.conn.NewInterface(w.wiphy.Index, "air0", nl80211.Station, nil)
	l.ok(err)
	await(l, "new interface", func(e nl80211.InterfaceAdded) bool {
		return e.Interface.Index == made.Index && e.Interface.Name == "air0"
	})
	if made.Type != nl80211.Station || made.Wiphy != w.wiphy.Index || made.Wdev == 0 || len(made.MAC) != 6 {
		t.Errorf("got %+v", made)
	}
	for _, on := range []bool{true, false} {
		l.ok(l.conn.SetPowerSave(made.Index, on))
		if got, err := l.conn.PowerSave(made.Index); err != nil || got != on {
			t.Errorf("power saving: got %v, %v, want %v", got, err, on)
		}
	}
	l.ok(l.conn.SetInterfaceType(made.Index, nl80211.MeshPoint))
	if got, err := l.conn.Interface(made.Index); err != nil || got.Type != nl80211.MeshPoint || got.MAC.String() != made.MAC.String() {
		t.Errorf("after the change of type: got %+v, %v", got, err)
	}
	all, err := l.conn.Interfaces()
	if err != nil || !slices.ContainsFunc(all, func(i nl80211.Interface) bool { return i.Name == "air0" }) {
		t.Errorf("list: got %+v, %v", all, err)
	}
	own, err := l.conn.InterfacesOf(w.wiphy.Index)
	if err != nil || !slices.ContainsFunc(own, func(i nl80211.Interface) bool { return i.Name == "air0" }) || slices.ContainsFunc(own, func(i nl80211.Interface) bool { return i.Wiphy != w.wiphy.Index }) {
		t.Errorf("list of one radio: got %+v, %v", own, err)
	}
	const none = 1 << 20
	if own, err = l.conn.InterfacesOf(none); len(own) > 0 {
		t.Errorf("list of a radio that is not there: got %+v, %v", own, err)
	}
	if _, err := l.conn.NewInterface(w.wiphy.Index, "air0", nl80211.Station, nil); err == nil {
		t.Error("two interfaces have one name")
	}
	l.ok(l.conn.DeleteInterface(made.Index))
	await(l, "interface gone", func(e nl80211.InterfaceRemoved) bool { return e.Interface.Index == made.Index })
	if _, err := l.conn.Interface(made.Index); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is gone: got %v", err)
	}
}

// TestAbandon: a connection that was abandoned does nothing more.
func TestAbandon(t *testing.T) {
	l := newLab(t, nl80211.GroupConfig)
	w := l.radio(nl80211.MeshPoint)
	conn, err := nl80211.Dial(nl80211.Config{})
	l.ok(err)
	_, err = conn.Wiphy(w.wiphy.Index)
	l.ok(err)
	conn.Abandon()
	if _, err := conn.NewInterface(w.wiphy.Index, "air0", nl80211.MeshPoint, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := net.InterfaceByName("air0"); err == nil {
		t.Error("it has made an interface")
	}
	l.ok(conn.Close())
}

func TestRegulatory(t *testing.T) {
	l := newLab(t, nl80211.GroupRegulatory)
	l.radio(nl80211.MeshPoint)
	t.Cleanup(func() { _ = l.conn.SetCountry("00") })
	seen := map[string]int{}
	for _, country := range []string{"DE", "US"} {
		l.ok(l.conn.SetCountry(country))
		await(l, "country "+country, func(e nl80211.RegulatoryChanged) bool { return e.Country == country && e.Wiphy == -1 })
		r, err := l.conn.Regulatory()
		l.ok(err)
		if r.Country != country || len(r.Rules) == 0 || r.DFS == 0 {
			t.Errorf("%s: got %+v", country, r)
		}
		for _, rule := range r.Rules {
			if rule.StartKHz >= rule.EndKHz || rule.MaxEIRPMBm <= 0 {
				t.Errorf("%s: rule %+v", country, rule)
			}
			if rule.StartKHz <= 2412000 && 2412000 <= rule.EndKHz {
				seen[country] = rule.MaxEIRPMBm
			}
		}
	}
	if seen["DE"] != 2000 || seen["US"] != 3000 {
		t.Errorf("power on channel 1: got %v mBm, want 20 dBm in DE and 30 in US", seen)
	}
	if err := l.conn.SetCountry("DEU"); err == nil {
		t.Error("a country of three letters was taken")
	}
}

// hwsimTest is a command of the driver that returns a number.
var hwsimTest = nl80211.VendorID{OUI: 0x001374, Subcommand: 1}

func TestVendor(t *testing.T) {
	l := newLab(t, nl80211.GroupVendor)
	r := l.radio(nl80211.MeshPoint)
	// One attribute, number 8: 32 bits.
	got, err := l.conn.Vendor(r.Index, hwsimTest, []byte{8, 0, 8, 0, 5, 0, 0, 0}, true)
	l.ok(err)
	if len(got) != 1 || !slices.Equal(got[0], []byte{8, 0, 8, 0, 7, 0, 0, 0}) {
		t.Errorf("got %x, want 5+2", got)
	}
	e := await(l, "vendor's event", func(e nl80211.VendorEvent) bool { return e.ID == hwsimTest })
	if e.Wiphy != r.wiphy.Index || len(e.Data) == 0 {
		t.Errorf("event: got %+v", e)
	}
	if _, err := l.conn.Vendor(r.Index, nl80211.VendorID{OUI: 1}, nil, false); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("an unknown command: got %v", err)
	}
}

// TestRadioRemovedAndBack pulls a radio that is a member of a mesh.
func TestRadioRemovedAndBack(t *testing.T) {
	l := newLab(t, nl80211.GroupConfig, nl80211.GroupMLME)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	for _, r := range []*radio{a, b} {
		l.ok(l.conn.JoinMesh(r.Index, open()))
	}
	l.peered(b, a)
	l.ok(l.hwsim.DeleteRadio(a.id))
	await(l, "interface gone", func(e nl80211.InterfaceRemoved) bool { return e.Interface.Index == a.Index })
	await(l, "radio gone", func(e nl80211.WiphyRemoved) bool { return e.Index == a.wiphy.Index && e.Name == a.wiphy.Name })
	if _, err := l.conn.Interface(a.Index); !errors.Is(err, unix.ENODEV) {
		t.Errorf("interface of a radio that is gone: got %v", err)
	}
	if err := l.conn.LeaveMesh(a.Index); !errors.Is(err, unix.ENODEV) {
		t.Errorf("leave: got %v", err)
	}
	l.made = 0 // the same names and address again
	back := l.radio(nl80211.MeshPoint)
	await(l, "radio back", func(e nl80211.WiphyAdded) bool { return e.Index == back.wiphy.Index })
	l.ok(l.conn.JoinMesh(back.Index, open()))
	l.peered(back, b)
	l.peered(b, back)
}
