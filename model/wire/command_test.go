package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
)

func orderOf(c model.Command) Order {
	return Order{Node: "n-aaaaaaaaaaaaaaaaaaaa", Session: bytes.Repeat([]byte{9}, SessionSize), ID: NewCommandID(40_000, 7), Epoch: 40_001, Deadline: 60_000, Limit: 30_000, By: "user:root", Command: c}
}

// commands has one of each kind.
func commands() []model.Command {
	peer, ticket := netip.MustParseAddr("10.42.0.7"), model.SpeedTicket{1, 2}
	return []model.Command{
		{Kind: model.CommandReboot},
		{Kind: model.CommandReset, Reset: &model.ResetCommand{Confirm: "n-b3x5k2m7q4w6c8d2f5ga"}},
		{Kind: model.CommandRestart, Restart: &model.RestartCommand{Component: "halo-mesh"}},
		{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 30}},
		{Kind: model.CommandSetOutput, Output: &model.OutputCommand{Output: "siren", On: true}},
		{Kind: model.CommandScan, Scan: &model.ScanRequest{Radio: "phy0"}},
		{Kind: model.CommandCapture, Capture: &model.CaptureRequest{Seconds: 5, Bytes: 4096}},
		{Kind: model.CommandConfig, Config: &model.AgentConfig{SampleS: 10, SpoolBudgetMiB: 64}},
		{Kind: model.CommandSensor, Sensor: &model.SensorCommand{Do: model.SensorAssign, Bus: "fe804000.i2c/1", Address: 0x40, Chip: "ina219", Label: "solar", IntervalS: 0.5, Params: map[string]float64{"shunt_ohm": 0.01}}},
		{Kind: model.CommandSensor, Sensor: &model.SensorCommand{Do: model.SensorPutTemplate, Name: "odd", Text: []byte{1, 2, 3}}},
		{Kind: model.CommandDisplay, Display: &model.DisplayCommand{Display: "ssd1306", Lines: []string{"Maintenance", "call 112"}, Seconds: 60}},
		{Kind: model.CommandSpeedTest, SpeedTest: &model.SpeedTestCommand{Peer: peer, Ticket: ticket, DownBytes: 1000, LimitMS: 15_000}},
		{Kind: model.CommandSpeedServe, SpeedServe: &model.SpeedServeCommand{Peer: peer, Ticket: ticket, DownBytes: 1000, LimitMS: 15_000, WaitMS: 60_000}},
	}
}

func TestOrdersRoundTrip(t *testing.T) {
	kinds := map[model.CommandKind]bool{}
	for _, c := range commands() {
		kinds[c.Kind] = true
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", c.Kind, err)
		}
		o := orderOf(c)
		b, err := o.Encode()
		if err != nil {
			t.Fatalf("%s: %v", c.Kind, err)
		}
		got, err := DecodeOrder(b)
		if err != nil {
			t.Fatalf("%s: %v", c.Kind, err)
		}
		if d := cmp.Diff(o, got, cmp.AllowUnexported(CommandID{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.Kind, d)
		}
		for n := range b {
			if _, err := DecodeOrder(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s cut to %d octets: got %v, want ErrMalformed", c.Kind, n, err)
			}
		}
	}
	for _, k := range model.CommandKinds() {
		if !kinds[k] {
			t.Errorf("%s is not tried", k)
		}
	}
}

// The octets that are signed are those of the format, and not of a version of a
// library: nodes of several releases live side by side.
func TestOrderOctets(t *testing.T) {
	b, err := orderOf(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 30}}).Encode()
	const want = "a801766e2d616161616161616161616161616161616161616102500909090909090909090909090909090903" +
		"82199c400704199c410519ea6006197530076975" + "7365723a726f6f7408a201666c6f6361746503a101181e"
	if got := hex.EncodeToString(b); err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestOrdersBeyondBoundsAreRefused(t *testing.T) {
	good := orderOf(model.Command{Kind: model.CommandReboot})
	for name, change := range map[string]func(*Order){
		"session of 16 octets": func(o *Order) { o.Session = o.Session[1:] },
		"expected a node":      func(o *Order) { o.Node = strings.Repeat("n", 65) },
		"epoch that is not":    func(o *Order) { o.Epoch = o.ID.Epoch - 1 },
		"2^53-1":               func(o *Order) { o.ID.Number = 0 },
		"deadline":             func(o *Order) { o.Deadline = 1 << 63 },
		"a limit":              func(o *Order) { o.Limit = 0 },
		"actor":                func(o *Order) { o.By = strings.Repeat("x", 161) },
	} {
		o := good
		change(&o)
		if _, err := o.Encode(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		raw, err := encoding.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeOrder(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s, off the wire: got %v, want ErrMalformed", name, err)
		}
	}
	if _, err := DecodeOrder(make([]byte, MaxOrder+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: got %v", err)
	}
}

// What a later gateway adds to an order may restrict it: a node that left it out
// would do something else.
func TestOrdersOfLaterReleasesAreNotGuessedAt(t *testing.T) {
	b, err := orderOf(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(map[uint64]any)) []byte {
		var m map[uint64]any
		if err := decoding.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		out, err := encoding.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, raw := range map[string][]byte{
		"order":     change(func(m map[uint64]any) { m[9] = true }),
		"command":   change(func(m map[uint64]any) { m[8].(map[any]any)[uint64(40)] = "x" }),
		"arguments": change(func(m map[uint64]any) { m[8].(map[any]any)[uint64(3)].(map[any]any)[uint64(2)] = "only at night" }),
	} {
		if o, err := DecodeOrder(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("an unknown key in the %s: got %+v, %v", name, o, err)
		}
	}
	if _, err := DecodeOrder(change(func(map[uint64]any) {})); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func TestCommandIDsAreInOrder(t *testing.T) {
	list := []CommandID{NewCommandID(1, 1), NewCommandID(1, 2), NewCommandID(2, 1), NewCommandID(2, 9), NewCommandID(10, 1)}
	for i, a := range list {
		for j, b := range list {
			if a.After(b) != (i > j) {
				t.Errorf("%v after %v: got %v", a, b, a.After(b))
			}
		}
	}
}

func FuzzDecodeOrder(f *testing.F) {
	for _, c := range commands() {
		b, err := orderOf(c).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeOrder(b)
		if err != nil {
			return
		}
		known := o.Command.Check() == nil
		again, err := o.Encode()
		if err != nil {
			t.Fatalf("was read but does not encode: %v", err)
		}
		back, err := DecodeOrder(again)
		if err != nil {
			t.Fatalf("was encoded but is not read: %v", err)
		}
		if known != (back.Command.Check() == nil) {
			t.Fatalf("the command of %x is good in one of two readings", b)
		}
	})
}
