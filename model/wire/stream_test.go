package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/dot11"
)

// messages has one of each type.
func messages(t testing.TB) []Message {
	s := schemaOf(2)
	data, err := batchOf(s, []int64{1, 2}, []int64{1, 2}, []int64{3, 4}).Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	id := ID(2, 9)
	return []Message{
		Challenge{Nonce: bytes.Repeat([]byte{7}, NonceSize)},
		Hello{Key: make([]byte, ed25519.PublicKeySize), Boot: 3, Version: "v1", Interval: 60, Signature: make([]byte, ed25519.SignatureSize)},
		Welcome{Time: 1_800_000_000_000, Clock: model.ClockGPS, Schemas: []SchemaID{s.ID()}},
		Welcome{Time: 1_800_000_000_000, Clock: model.ClockGPS, Boot: MaxCounter},
		Refuse{Code: RefuseBatch, Text: "checksum", ID: &id},
		Refuse{Code: RefuseRevoked},
		SchemaMessage{s},
		BatchMessage{data},
		Ack{IDs: []BatchID{ID(1, 1), ID(1, 2)}},
		AckEvents{IDs: []BatchID{ID(1, 1)}},
		StatusMessage{model.NodeStatus{Name: "mast-2", Role: model.RoleNode, UptimeS: 9,
			Interfaces: []model.Interface{{Name: "wg0", Kind: "overlay", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.42.0.7/16"), netip.MustParsePrefix("fd00::1/64")}}}}},
		NeighboursMessage{neighboursReport()},
		NeighboursMessage{model.Report{Seq: 9, Base: 7, EveryS: 600}},
		NeighboursWanted{},
		BoardMessage{model.Board{Name: "mast", Header: &model.BoardHeader{Columns: 1, Pins: []model.BoardPin{{Pin: 1, Name: "P1", Kind: model.PinGPIO, Line: "soc/1", Functions: []string{"PWM0"}}}}}},
		BoardWanted{},
		InventoryMessage{"0a1b", model.Inventory{
			Buses:     []model.SensorBus{{Path: "fe804000.i2c", Name: "I2C1"}},
			Sensors:   []model.SensorChip{{Bus: "fe804000.i2c", Address: 0x76, State: model.SensorOK, Chip: "bme280", Label: "bme280", Role: model.Sensor, IntervalS: 60, Params: map[string]float64{"a": 0.5}, Values: []model.SensorValue{{Metric: "i2c.bme280.temperature_c", Unit: "°C"}}}},
			Templates: []model.NodeTemplate{{Name: "aht20", Digest: "1f", Problem: "aht20.toml:7: expected"}},
		}},
		InventoryMessage{"of a later release", model.Inventory{Sensors: make([]model.SensorChip, model.MaxSensors+1)}}, // refused where it is kept
		InventoryWanted{},
		EventMessage{model.Event{Boot: 1, Seq: 2, Time: time.UnixMilli(1_800_000_000_123).UTC(), Clock: model.ClockGateway, Kind: "mesh.port.proven", Severity: model.Info, Message: "eth0", Fields: map[string]string{"peer": "n-x"}}},
		CommandMessage{Order: []byte{1, 2, 3}, Signature: make([]byte, ed25519.SignatureSize)},
		CommandReport{ID: NewCommandID(40_000, 7), State: model.CommandRunning, Progress: 40, Text: "listening"},
		CommandReport{ID: NewCommandID(40_000, 7), State: model.CommandRefused, Code: model.CodeNoLED, Text: "none"},
		CommandReport{ID: NewCommandID(40_000, 7), State: model.CommandDone, Result: []byte(`{"a":1}`), Size: 9},
		CommandPart{ID: NewCommandID(40_000, 7), Offset: 3, Data: []byte("abc")},
		CommandAck{ID: NewCommandID(40_000, 7), State: model.CommandDone},
		CommandAck{ID: NewCommandID(40_000, 7), Offset: 6},
		CommandCancel{ID: NewCommandID(0, 1)},
		AbilitiesMessage{[]model.Ability{{Kind: model.CommandReboot}, {Kind: model.CommandLocate, Code: model.CodeNoLED, Text: "none"}}},
	}
}

// neighboursReport is of a node with a link over the air and one by cable.
func neighboursReport() model.Report {
	address := func(n byte) dot11.MAC { return dot11.MAC{2, 0, 0, 0, 0, n} }
	return model.Report{
		Seq: 86_400_000, EveryS: 600,
		Interfaces: model.ReportInterfaces{
			{Name: "eth0", Addresses: []dot11.MAC{address(1)}, Transport: model.TransportEthernet, Links: []model.ReportLink{{Node: "n-" + strings.Repeat("b", 20), TQ: 255}}},
			{Name: "mesh0", Addresses: []dot11.MAC{address(2)}, Transport: model.TransportHaLow, FreqKHz: 924_000, WidthKHz: 1000,
				Links: []model.ReportLink{{Peer: address(3), SignalDBm: -81, TxKbps: 300, RxKbps: 300, TQ: 240, RetryPermille: 80, InactiveMS: 900}}},
		},
		NextHops: model.ReportNextHops{{Node: "n-" + strings.Repeat("c", 20), Next: address(3), Iface: "mesh0", TQ: 200}},
		Overlay:  model.ReportOverlay{{Node: "n-" + strings.Repeat("c", 20), HandshakeS: 40, Direct: true}},
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	for _, m := range messages(t) {
		b, err := Marshal(m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		got, err := Unmarshal(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if d := cmp.Diff(m, got, cmp.AllowUnexported(BatchID{}, CommandID{}, Metric{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%T (-want +got)\n%s", m, d)
		}
		for n := range b {
			if _, err := Unmarshal(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%T cut to %d octets: got %v, want ErrMalformed", m, n, err)
			}
		}
	}
}

func TestNewerMessagesAreIgnored(t *testing.T) {
	encode := func(v any) []byte {
		b, err := encoding.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if m, err := Unmarshal(encode([]any{99, map[int]string{1: "reboot"}})); err != nil || m != (Unknown{99}) {
		t.Errorf("unknown type: got %v, %v", m, err)
	}
	later := map[int]any{1: NeighboursVersion + 1, 2: "another number", 5: []any{"another form"}}
	if m, err := Unmarshal(encode([]any{typeNeighbours, later})); err != nil || m != (Unknown{typeNeighbours}) {
		t.Errorf("neighbours of another version: got %v, %v", m, err)
	}
	m, err := Unmarshal(encode([]any{typeRefuse, map[int]any{1: "busy", 42: []int{1}}}))
	if err != nil || m.(Refuse).Code != "busy" {
		t.Errorf("unknown key: got %v, %v", m, err)
	}
}

func TestMessagesBeyondBoundsAreRefused(t *testing.T) {
	many := make([]BatchID, MaxAcks+1)
	for i := range many {
		many[i] = ID(1, uint64(i+1))
	}
	for _, tc := range []struct {
		m    Message
		want string
	}{
		{Challenge{Nonce: []byte{1}}, "nonce of 32 octets, got 1"},
		{Hello{}, "key of 32 octets, got 0"},
		{Hello{Key: make([]byte, 32), Signature: make([]byte, 64)}, "boot counter"},
		{Hello{Key: make([]byte, 32), Signature: make([]byte, 64), Boot: 1, Interval: MaxInterval + 1}, "86400 s, got 86401"},
		{Hello{Key: make([]byte, 32), Signature: make([]byte, 64), Boot: 1, Session: make([]byte, SessionSize+1)}, "session of 16 octets or none, got 17"},
		{CommandMessage{Order: make([]byte, MaxOrder+1), Signature: make([]byte, 64)}, "16384 octets"},
		{CommandMessage{Order: []byte{1}, Signature: make([]byte, 63)}, "signature of 64, got 1 and 63"},
		{CommandReport{ID: NewCommandID(1, 1), State: "asleep"}, "asleep"},
		{CommandReport{ID: NewCommandID(1, 0), State: model.CommandDone}, "got 1.0"},
		{CommandReport{ID: NewCommandID(1, 1), State: model.CommandDone, Progress: 101}, "101"},
		{CommandReport{ID: NewCommandID(1, 1), State: model.CommandDone, Result: make([]byte, model.CommandResultMax+1)}, "49153"},
		{CommandReport{ID: NewCommandID(1, 1), State: model.CommandDone, Size: model.CommandFileMax + 1}, "1048577"},
		{CommandPart{ID: NewCommandID(1, 1)}, "got 0 at 0"},
		{CommandPart{ID: NewCommandID(1, 1), Data: make([]byte, PartSize+1)}, "16385"},
		{CommandPart{ID: NewCommandID(1, 1), Data: []byte{1}, Offset: model.CommandFileMax}, "1 at 1048576"},
		{CommandPart{ID: NewCommandID(1, 1), Data: []byte{1}, Offset: 1<<64 - 1}, "1 at 18446744073709551615"},
		{CommandAck{ID: NewCommandID(1, 1), Offset: model.CommandFileMax + 1}, "1048577"},
		{CommandCancel{}, "got 0.0"},
		{CommandCancel{NewCommandID(1<<53, 1)}, "got 9007199254740992.1"},
		{AbilitiesMessage{make([]model.Ability, MaxAbilities+1)}, "got 33"},
		{AbilitiesMessage{[]model.Ability{{Kind: "reboot", Text: strings.Repeat("x", MaxText+1)}}}, "513"},
		{Welcome{Clock: "sundial"}, "sundial"},
		{Welcome{Clock: model.ClockGPS, Boot: MaxCounter + 1}, "2^53-1, got 9007199254740992"},
		{Welcome{Clock: model.ClockGPS, Schemas: make([]SchemaID, MaxSchemas+1)}, "512 schemas, got 513"},
		{Refuse{}, "code of 1 to 64"},
		{Refuse{Code: "x", Text: strings.Repeat("x", MaxText+1)}, "513"},
		{Ack{}, "1 to 512 names, got 0"},
		{AckEvents{many}, "got 513"},
		{Ack{[]BatchID{ID(0, 1)}}, "got 0.1"},
		{BatchMessage{}, "got 0"},
		{BatchMessage{make([]byte, MaxBatch+1)}, "got 65537"},
		{SchemaMessage{}, "got 0"},
		{StatusMessage{model.NodeStatus{Interfaces: make([]model.Interface, 257)}}, "257"},
		{StatusMessage{model.NodeStatus{Name: strings.Repeat("x", MaxMessage)}}, "at most 66560 octets"},
		{BoardMessage{model.Board{Outputs: make([]model.BoardOutput, maxBoardParts+1)}}, "256 parts of a kind, got 257"},
		{BoardMessage{model.Board{Inputs: make([]model.BoardInput, maxBoardParts+1)}}, "256 parts of a kind, got 257"},
		{EventMessage{model.Event{Boot: 1, Seq: 1}}, "kind"},
		{EventMessage{model.Event{Kind: "x"}}, "got 0.0"},
		{NeighboursMessage{}, "got 1, 0 and 0"},
		{NeighboursMessage{model.Report{Seq: 3, Base: 3}}, "base below seq"},
		{NeighboursMessage{model.Report{Seq: 3, EveryS: model.MaxReportEveryS + 1}}, "got 3601"},
		{NeighboursMessage{model.Report{Seq: 3, NextHops: make(model.ReportNextHops, model.MaxReportNextHops+1)}}, "16 next hops, got 17"},
		{Unknown{7}, "known type"},
	} {
		if _, err := Marshal(tc.m); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%T: got %v, want %q", tc.m, err, tc.want)
		}
		if _, ok := tc.m.(Unknown); ok {
			continue
		}
		body := any(tc.m)
		switch m := tc.m.(type) {
		case BatchMessage:
			body = m.Data
		case SchemaMessage:
			body = []Metric{}
		case NeighboursMessage:
			if body = neighboursOf(m.Report); len(m.Report.NextHops) > 0 {
				body = map[int]any{1: NeighboursVersion, 2: 3, 6: []byte{model.MaxReportNextHops + 1}} // such a list cannot be packed
			}
		}
		raw, err := encoding.Marshal([]any{tc.m.kind(), body})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Unmarshal(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%T off the wire: got %v, want ErrMalformed", tc.m, err)
		}
	}
}

func TestHelloIsBound(t *testing.T) {
	h := Hello{Key: bytes.Repeat([]byte{1}, 32), Boot: 3}
	nonce := bytes.Repeat([]byte{2}, NonceSize)
	base := h.SignedBytes(nonce, "10.42.0.1:8080")
	other := h
	other.Boot++
	for name, b := range map[string][]byte{
		"host":  h.SignedBytes(nonce, "10.42.0.2:8080"),
		"nonce": h.SignedBytes(bytes.Repeat([]byte{3}, NonceSize), "10.42.0.1:8080"),
		"boot":  other.SignedBytes(nonce, "10.42.0.1:8080"),
	} {
		if bytes.Equal(b, base) {
			t.Errorf("%s is not covered by the signature", name)
		}
	}
}

// TestNeighboursAreThoseOfTheStream: whom a report is of, its sender does not say.
func TestNeighboursAreThoseOfTheStream(t *testing.T) {
	r := neighboursReport()
	whole := NeighboursMessage{r}.Of("n-"+strings.Repeat("d", 20), 7)
	b, err := Marshal(NeighboursMessage{whole})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("dddd")) {
		t.Error("the node's own name is sent")
	}
	m, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(whole, m.(NeighboursMessage).Of(whole.Node, whole.Boot)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if _, err := Unmarshal(append([]byte{0x82, typeNeighbours, 0x59, 0x41, 0x00}, make([]byte, 0x4100)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a body of %d octets: %v", 0x4100, err)
	}
}
