package airtime

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func octets(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	all    = "ffffffffffff"
	a1, a2 = "020000000001", "020000000002"
	zero4  = "00000000"
)

// header is that of an 802.11 frame without QoS control and fourth address.
func header(control, to string) string { return control + "0000" + to + a1 + a1 + "0000" }

func TestAirKinds(t *testing.T) {
	body := strings.Repeat("00", 100)
	for name, tc := range map[string]struct {
		frame   string
		want    Kind
		payload int
	}{
		"beacon":                    {header("8000", all) + body, Beacon, 0},
		"probe request":             {header("4000", all) + body, Probe, 0},
		"probe response":            {header("5000", a2) + body, Probe, 0},
		"SAE":                       {header("b000", a2) + body, SAE, 0},
		"mesh peering open":         {header("d000", a2) + "0f01" + body, Peering, 0},
		"another action":            {header("d000", a2) + "0300" + body, Management, 0},
		"an encrypted action":       {header("d040", a2) + "0f01" + body, Protected, 0},
		"data to all, encrypted":    {header("8842", all) + "0000" + body, Data, 100 - 30},
		"data to one, encrypted":    {header("8843", a2) + a1 + "0000" + body, Data, 100 - 30},
		"data to all, in the clear": {header("8802", all) + "0000" + body, Data, 100 - 14},
		"no QoS":                    {header("0842", all) + body, Data, -1},
		"control":                   {header("b400", a2), Damaged, 0},
		"short":                     {"8000", Damaged, 0},
	} {
		if k, _, n := air(octets(t, tc.frame)); k != tc.want || n != tc.payload {
			t.Errorf("%s: got %s of %d octets, want %s of %d", name, k, n, tc.want, tc.payload)
		}
	}
}

func TestEthernetKinds(t *testing.T) {
	eth := func(to, kind string) string { return to + a1 + kind }
	six := func(next string, rest string) string {
		return eth(all, "86dd") + "60000000" + "0000" + next + "40" + strings.Repeat("00", 32) + rest
	}
	bcast := "01" + strings.Repeat("00", 13)
	for name, tc := range map[string]struct {
		frame string
		want  Kind
	}{
		"OGM":             {eth(all, "4305") + "000f", OGM},
		"OGM2":            {eth(all, "4305") + "040f", OGM2},
		"ELP":             {eth(all, "4305") + "030f", ELP},
		"ELP to one":      {eth(a2, "4305") + "030f", ELPProbe},
		"announcement":    {eth(all, "4305") + bcast + six("11", "109e109e"+zero4), "broadcast: " + Announcement},
		"neighbour":       {eth(all, "4305") + bcast + six("3a", "8700"+zero4), "broadcast: " + Solicitation},
		"advertisement":   {eth(all, "4305") + bcast + six("3a", "8800"+zero4), "broadcast: " + Neighbour},
		"router":          {eth(all, "4305") + bcast + six("3a", "8500"+zero4), "broadcast: " + Router},
		"listener report": {eth(all, "4305") + bcast + six("00", "3a00050200000100"+"8f00"), "broadcast: " + Multicast},
		"overlay":         {eth(a2, "4305") + "40" + strings.Repeat("00", 9) + six("11", "ca6cca6c"+zero4), "unicast: " + Overlay},
		"join":            {eth(a2, "4305") + "40" + strings.Repeat("00", 9) + six("06", "c00120fb"+zero4), "unicast: " + Join},
		"ARP by DAT":      {eth(a2, "4305") + "42" + strings.Repeat("00", 17) + eth(all, "0806"), "unicast: " + ARP},
		"DHCP":            {eth(all, "4305") + bcast + eth(all, "0800") + "45" + strings.Repeat("00", 8) + "11" + strings.Repeat("00", 10) + "00440043", "broadcast: " + DHCP},
		"IPv4":            {eth(all, "4305") + bcast + eth(all, "0800") + "45" + strings.Repeat("00", 8) + "01" + strings.Repeat("00", 10) + zero4, "broadcast: IP protocol 1"},
		"another inside":  {eth(all, "4305") + bcast + eth(all, "88b5"), "broadcast: EtherType 0x88b5"},
		"cut short":       {eth(all, "4305") + bcast + "0000", "broadcast: " + Damaged},
		"fragment":        {eth(a2, "4305") + "410f", Fragment},
		"ICMP":            {eth(a2, "4305") + "430f", ICMP},
		"TVLV":            {eth(a2, "4305") + "440f", TVLV},
		"unknown":         {eth(a2, "4305") + "7f0f", Unknown},
		"IP itself":       {six("3a", "8700"), Stray},
	} {
		if got := ethernet(octets(t, tc.frame)); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestLedger(t *testing.T) {
	l := New()
	ogm := octets(t, all+a1+"4305"+"000f"+strings.Repeat("00", 60))
	elp := octets(t, all+a1+"4305"+"030f"+strings.Repeat("00", 60))
	data := octets(t, header("8842", all)+"0000"+strings.Repeat("ee", 30+62))
	for _, f := range [][]byte{ogm, elp, ogm} {
		l.Given("a", f)
	}
	l.Given("a", []byte("short"))
	for range 3 {
		l.Air("a", data, time.Millisecond)
	}
	l.Air("b", data, 5*time.Millisecond) // nobody has told of it
	l.Air("a", octets(t, header("8000", all)), 10*time.Millisecond)
	account := l.Close()
	want := []Row{{Beacon, 1, 10 * time.Millisecond}, {Data, 1, 5 * time.Millisecond}, {OGM, 2, 2 * time.Millisecond}, {ELP, 1, time.Millisecond}}
	if len(account.Rows) != len(want) {
		t.Fatalf("got %+v, want %+v", account.Rows, want)
	}
	for i := range want {
		if account.Rows[i] != want[i] {
			t.Errorf("row %d: got %+v, want %+v", i, account.Rows[i], want[i])
		}
	}
	account.Over = time.Second
	if got := account.Beacons(); got != 0.01 {
		t.Errorf("beacons: got %g, want 0.01", got)
	}
	if got := account.Rest(); got < 0.0079 || got > 0.0081 {
		t.Errorf("all but beacons: got %g, want 0.008", got)
	}
	if text := account.String(); !strings.Contains(text, "OGM") || !strings.Contains(text, "120.0") || !strings.Contains(text, "0.80") {
		t.Errorf("the table:\n%s", text)
	}
	if again := l.Close(); len(again.Rows) != 0 {
		t.Errorf("after the end: got %+v", again.Rows)
	}
}

func FuzzKinds(f *testing.F) {
	f.Add(octets(f, header("8842", all)+"0000"+strings.Repeat("00", 80)))
	f.Add(octets(f, all+a1+"4305"+"01"+strings.Repeat("00", 13)+all+a1+"86dd"+"6000000000003a40"+strings.Repeat("00", 40)))
	f.Add(bytes.Repeat([]byte{0}, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, _, n := air(b); k == "" || n > len(b) {
			t.Errorf("%x: %q of %d octets", b, k, n)
		}
		if ethernet(b) == "" {
			t.Errorf("%x: no kind", b)
		}
	})
}
