package nl80211

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// recorded is a message of testdata/kernel.txt.
type recorded struct {
	kind    string // event, or answer-<command that was asked>
	message genetlink.Message
}

// kernel reads what TestRecord wrote.
func kernel(t testing.TB) []recorded {
	t.Helper()
	b, err := os.ReadFile("testdata/kernel.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Split(s.Text(), " ")
		if len(f) != 3 {
			t.Fatalf("expected kind, command and attributes, got %q", s.Text())
		}
		command, err := strconv.ParseUint(f[1], 10, 8)
		if err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, recorded{f[0], genetlink.Message{Header: genetlink.Header{Command: uint8(command)}, Data: data}})
	}
	return all
}

// parsers are those of answers, by the command that is asked.
var parsers = map[uint8]func(b []byte) (any, error){
	unix.NL80211_CMD_GET_INTERFACE:   func(b []byte) (any, error) { return parseInterface(b) },
	unix.NL80211_CMD_GET_STATION:     func(b []byte) (any, error) { return parseStation(b) },
	unix.NL80211_CMD_GET_MESH_CONFIG: func(b []byte) (any, error) { return parseMeshParameters(b) },
	unix.NL80211_CMD_GET_SURVEY:      func(b []byte) (any, error) { return parseSurvey(b) },
	unix.NL80211_CMD_GET_REG:         func(b []byte) (any, error) { return parseRegulatory(b) },
	unix.NL80211_CMD_GET_SCAN:        func(b []byte) (any, error) { return parseBSS(b) },
	unix.NL80211_CMD_GET_WIPHY: func(b []byte) (any, error) {
		var m wiphys
		err := m.add(b)
		return m, err
	},
}

// TestKernelMessages compares what becomes of the recorded messages with a text
// that a person has read.
func TestKernelMessages(t *testing.T) {
	var out bytes.Buffer
	show := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%T %s\n", v, b)
	}
	var radios wiphys
	for _, r := range kernel(t) {
		if r.kind == "event" {
			if e := parseEvent(r.message); e != nil {
				show(e)
			}
			continue
		}
		asked, err := strconv.Atoi(strings.TrimPrefix(r.kind, "answer-"))
		if err != nil {
			t.Fatal(err)
		}
		if asked == unix.NL80211_CMD_GET_WIPHY {
			if err := radios.add(r.message.Data); err != nil {
				t.Fatal(err)
			}
			continue
		}
		v, err := parsers[uint8(asked)](r.message.Data)
		if err != nil {
			t.Fatalf("%s: %v", r.kind, err)
		}
		show(v)
	}
	for _, w := range radios.list {
		show(w)
		if err := w.Check(SecureMesh()...); err != nil {
			t.Error(err)
		}
	}
	const golden = "testdata/parsed.txt"
	if *Update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, wanted := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(wanted)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(wanted) {
			w = wanted[i]
		}
		if g != w {
			t.Fatalf("%s:%d: got\n%s\nwant\n%s", golden, i+1, g, w)
		}
	}
}

// full has a value in every parameter.
func full() MeshParameters {
	return MeshParameters{
		RetryTimeout: new(100 * time.Millisecond), ConfirmTimeout: new(101 * time.Millisecond), HoldingTimeout: new(102 * time.Millisecond),
		MaxPeerLinks: new(uint16(10)), MaxRetries: new(uint8(3)), TTL: new(uint8(31)), ElementTTL: new(uint8(30)),
		AutoOpenPlinks: new(false), PlinkTimeout: new(1800 * time.Second), Forwarding: new(true), RSSIThreshold: new(int32(-80)),
		HTOpMode: new(uint16(4)), PowerMode: new(uint32(1)), AwakeWindow: new(uint16(10)), SyncOffsetMaxPeer: new(uint32(50)),
		HWMPMaxRetries: new(uint8(4)), HWMPActivePath: new(5 * time.Second), PathRefresh: new(time.Second), MinDiscovery: new(100 * time.Millisecond),
		HWMPRootMode: new(uint8(2)), GateAnnouncements: new(true), ConnectedToGate: new(true), NoLearn: new(false),
	}
}

func TestMeshParametersThereAndBack(t *testing.T) {
	p := full()
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if v.Field(i).IsNil() {
			t.Errorf("%s is not tested", v.Type().Field(i).Name)
		}
	}
	if got := len(p.fields()); got != v.NumField() {
		t.Errorf("%d parameters have attributes, want all %d", got, v.NumField())
	}
	for name, p := range map[string]MeshParameters{"all": p, "none": {}} {
		e := netlink.NewAttributeEncoder()
		fill(e, unix.NL80211_ATTR_MESH_CONFIG, p.encode)
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseMeshParameters(b); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, p)
		}
	}
}

func TestJoinRequest(t *testing.T) {
	s := MeshSetup{
		ID: []byte("m"), Channel: Channel{FreqMHz: 5180, Width: Width40, Center1MHz: 5190}, BasicRates: []int{60, 120}, MulticastRate: 60,
		BeaconInterval: 1000, DTIMPeriod: 2, IEs: []byte{48, 0}, AuthProtocol: AuthSAE, UserspaceAuth: true, UserspaceAMPE: true, UserspaceMPM: true,
		Owned: true, Parameters: MeshParameters{Forwarding: new(false)},
	}
	e := netlink.NewAttributeEncoder()
	s.encode(e)
	got, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// Each line is one attribute: length, number, value, padding; as captured from
	// what the kernel took.
	want := strings.Join([]string{
		"05001800" + "6d000000", // mesh ID
		"08002600" + "3c140000", // frequency
		"08009f00" + "02000000", // width
		"0800a000" + "46140000", // centre
		"06002400" + "0c180000", // basic rates
		"08006b00" + "3c000000", // multicast rate
		"08000c00" + "e8030000", // beacon interval
		"08000d00" + "02000000", // DTIM period
		"0400cc00",              // owner
		"20007080" + "06000300" + "30000000" + "05000800" + "01000000" + "04000400" + "04000500" + "04000700", // setup
		"0c002380" + "05001300" + "00000000", // parameters
	}, "")
	if hex.EncodeToString(got) != want {
		t.Errorf("got\n%x\nwant\n%s", got, want)
	}
	for _, id := range [][]byte{nil, make([]byte, 33)} {
		if err := (*Conn)(nil).JoinMesh(1, MeshSetup{ID: id}); err == nil {
			t.Errorf("a mesh ID of %d octets was taken", len(id))
		}
	}
}

func TestDamagedMessages(t *testing.T) {
	for name, b := range map[string][]byte{
		"cut short":         {8, 0, 3, 0, 1},
		"length too great":  {200, 0, 3, 0, 1, 0, 0, 0},
		"address of 5":      {9, 0, 6, 0, 1, 2, 3, 4, 5, 0, 0, 0},
		"index of 16 bits":  {6, 0, 3, 0, 1, 0, 0, 0},
		"nothing in a list": {6, 0, 21, 0x80, 1, 0, 0, 0},
	} {
		e := parseEvent(genetlink.Message{Header: genetlink.Header{Command: unix.NL80211_CMD_NEW_STATION}, Data: b})
		if _, ok := e.(Malformed); !ok {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	if err := (&wiphys{}).add(nil); err == nil {
		t.Error("a radio without an index was taken")
	}
}

// TestStationRates has what the recorded station does not: HaLow's rates and
// what a rate control expects.
func TestStationRates(t *testing.T) {
	e := netlink.NewAttributeEncoder()
	fill(e, unix.NL80211_ATTR_STA_INFO, func(n *netlink.AttributeEncoder) {
		n.Uint32(unix.NL80211_STA_INFO_EXPECTED_THROUGHPUT, 23812)
		n.Int8(unix.NL80211_STA_INFO_SIGNAL, -71)
		fill(n, unix.NL80211_STA_INFO_CHAIN_SIGNAL, func(c *netlink.AttributeEncoder) { c.Int8(0, -72); c.Int8(1, -73) })
		fill(n, unix.NL80211_STA_INFO_TX_BITRATE, func(r *netlink.AttributeEncoder) {
			r.Uint32(unix.NL80211_RATE_INFO_BITRATE32, 33)
			r.Uint16(unix.NL80211_RATE_INFO_BITRATE, 33)
			r.Uint8(unix.NL80211_RATE_INFO_S1G_MCS, 7)
			r.Uint8(unix.NL80211_RATE_INFO_S1G_NSS, 1)
			r.Flag(unix.NL80211_RATE_INFO_1_MHZ_WIDTH, true)
			r.Flag(unix.NL80211_RATE_INFO_SHORT_GI, true)
		})
		n.Bytes(unix.NL80211_STA_INFO_STA_FLAGS, encodePair(uint32(Authorized|MFP), uint32(MFP)))
	})
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseStation(b)
	want := StationInfo{
		ExpectedThroughput: 23812, SignalDBm: -71, ChainSignalDBm: []int{-72, -73}, Flags: MFP, FlagsMask: Authorized | MFP,
		TxRate: Rate{Bitrate: 33, MCS: 7, NSS: 1, WidthMHz: 1, ShortGI: true, Kind: "S1G"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestElement(t *testing.T) {
	for _, tc := range []struct {
		ies  []byte
		want string
	}{
		{[]byte{0, 0, 114, 3, 'a', 'i', 'r', 1, 1, 2}, "air"},
		{[]byte{114, 200, 'a'}, ""},
		{[]byte{1, 1}, ""},
		{nil, ""},
	} {
		if got := (BSS{IEs: tc.ies}).MeshID(); string(got) != tc.want {
			t.Errorf("%x: got %q, want %q", tc.ies, got, tc.want)
		}
	}
}

// TestLateReader has nobody take events for too long.
func TestLateReader(t *testing.T) {
	l := &Listener{ready: make(chan struct{}, 1), acks: map[uint32]chan error{}}
	for range maxQueue + 10 {
		l.push(ScanDone{Iface: 1})
	}
	if e, err := l.Next(t.Context()); err != nil || e != (Overflow{}) {
		t.Fatalf("got %+v, %v, want an overflow first", e, err)
	}
	for i := range 10 {
		if e, err := l.Next(t.Context()); err != nil || e != (ScanDone{Iface: 1}) {
			t.Fatalf("event %d after the overflow: got %+v, %v", i, e, err)
		}
	}
	lost := make(chan error, 1)
	l.acks[1] = lost
	l.overflow()
	l.overflow()
	if err := <-lost; !errors.Is(err, errLost) {
		t.Errorf("a request meanwhile: got %v", err)
	}
	if n := len(l.queue); n != 1 {
		t.Errorf("two overflows are %d events, want 1", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range kernel(f) {
		f.Add(r.message.Header.Command, r.message.Data)
	}
	f.Fuzz(func(t *testing.T, command uint8, b []byte) {
		parseEvent(genetlink.Message{Header: genetlink.Header{Command: command}, Data: b})
		for _, parse := range parsers {
			_, _ = parse(b) // an error is as good as a result
		}
		s, _ := parseBSS(b)
		s.MeshID()
	})
}
