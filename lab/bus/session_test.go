//go:build linux

package bus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"halo.internal/lab/bus/vhost/vhosttest"
)

// guest starts one for a part of a board.
func guest(t testing.TB, b *Board, part, queues int) *vhosttest.Guest {
	t.Helper()
	g := vhosttest.New(t, queues, func(c net.Conn) error { return b.Parts()[part].Plug(c) })
	g.Start()
	return g
}

// message is one of a transaction, as Linux's driver makes it.
func message(addr uint16, flags uint32, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, addr<<1)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, flags)
	return append(b, data...)
}

func TestI2CMessages(t *testing.T) {
	b := board(t, "lm75,bme280")
	if err := b.Apply(Change{Chip: &ChipChange{Chip: "lm75", Values: map[string]float64{"temperature": 25.5}}}); err != nil {
		t.Fatal(err)
	}
	g := guest(t, b, 0, 1)
	transaction := func(want string, messages ...any) {
		t.Helper()
		var all []*vhosttest.Pending
		for i := 0; i < len(messages); i += 2 {
			all = append(all, g.Add(0, messages[i].([]byte), messages[i+1].(int)))
		}
		g.Kick(0)
		got := ""
		for _, p := range all {
			got += fmt.Sprintf("%x ", p.Wait())
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	transaction("00 19ff00 ", message(0x48, i2cFailNext, 0), 1, message(0x48, i2cRead), 3)
	transaction("00 ", message(0x48, 0), 1)                                                 // is anybody there?
	transaction("01 ", message(0x49, 0), 1)                                                 // nobody
	transaction("01 000001 ", message(0x49, i2cFailNext, 0), 1, message(0x49, i2cRead), 3)  // no data then
	transaction("00 ", message(0x76, 0, 0xf5, 0xa0, 0xf2, 0x01), 1)                         // pairs
	transaction("00 a000 ", message(0x76, i2cFailNext, 0xf5), 1, message(0x76, i2cRead), 2) //
	transaction("00 00 6000 ", message(0x48, i2cFailNext, 1, 0), 1, message(0x76, i2cFailNext, 0xd0), 1, message(0x76, i2cRead), 2)
}

func TestI2CHostile(t *testing.T) {
	b := board(t, "lm75")
	g := guest(t, b, 0, 1)
	if got := g.Submit(0, []byte{0x90}, 4).Wait(); len(got) != 0 {
		t.Errorf("half a header: got %x", got)
	}
	if got := g.Submit(0, message(0x48, i2cRead), 1).Wait(); !bytes.Equal(got, []byte{0}) {
		t.Errorf("a read of nothing: got %x", got)
	}
	// A transaction without an end is held no longer than this. The guest gives the same
	// place of its ring ever again.
	p := g.Submit(0, message(0x48, i2cFailNext, 0), 1)
	for range maxMessages - 1 {
		g.Offer(0, 0)
		g.Kick(0)
		g.AwaitTaken(0)
	}
	if got := p.Wait(); !bytes.Equal(got, []byte{i2cError}) {
		t.Errorf("got %x", got)
	}
}

func TestStuckBusEndsWithTheMachine(t *testing.T) {
	b := board(t, "lm75")
	if err := b.Apply(Change{Bus: &BusChange{Stuck: on(true)}}); err != nil {
		t.Fatal(err)
	}
	g := guest(t, b, 0, 1)
	p := g.Submit(0, message(0x48, 0), 1)
	for b.Status().Buses[0].Transactions == 0 {
		time.Sleep(time.Millisecond)
	}
	g.Stop(0)
	if p.Done() {
		t.Error("it was answered")
	}
}

func ask(kind, line uint16, value uint32) []byte {
	b := binary.LittleEndian.AppendUint16(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, line)
	return binary.LittleEndian.AppendUint32(b, value)
}

func TestGPIOLines(t *testing.T) {
	b := board(t, "gpio")
	g := guest(t, b, 0, 2)
	do := func(kind, line uint16, value uint32) string {
		return fmt.Sprintf("%x", g.Submit(0, ask(kind, line, value), 2).Wait())
	}
	const button, relay = 0, 2
	if got := g.Submit(0, ask(gpioNames, 0, 0), 24).Wait(); string(got) != "\x00BUTTON\x00DOOR\x00RELAY\x00LED\x00" {
		t.Errorf("names: got %q", got)
	}
	for i, tc := range []struct {
		kind, line uint16
		value      uint32
		want       string
	}{
		{gpioGetDirection, button, 0, "0000"},
		{gpioSetDirection, button, directionIn, "0000"},
		{gpioGetDirection, button, 0, "0002"},
		{gpioGetValue, button, 0, "0000"},
		{gpioSetValue, relay, 1, "0000"},
		{gpioGetValue, relay, 0, "0000"}, // not driven yet
		{gpioSetDirection, relay, directionOut, "0000"},
		{gpioGetValue, relay, 0, "0001"},
		{gpioGetValue, 4, 0, "0100"},
		{gpioSetDirection, relay, 3, "0100"},
		{gpioSetValue, relay, 2, "0100"},
		{gpioSetIRQ, button, 16, "0100"},
		{77, button, 0, "0100"},
	} {
		if got := do(tc.kind, tc.line, tc.value); got != tc.want {
			t.Errorf("%d: request %d of line %d, %d: got %s, want %s", i, tc.kind, tc.line, tc.value, got, tc.want)
		}
	}
	if s := b.Status().Lines[relay]; !s.High || s.Direction != "out" || s.Changes != 1 {
		t.Errorf("the relay: %+v", s)
	}
	if err := b.GPIO.Set("RELAY", false); err == nil {
		t.Error("an output is set from outside")
	}
	if err := b.GPIO.Set("BUTTON", true); err != nil || do(gpioGetValue, button, 0) != "0001" {
		t.Errorf("the button: %v", err)
	}
}

func TestGPIOEdges(t *testing.T) {
	b := board(t, "gpio")
	g := guest(t, b, 0, 2)
	set := func(high bool) {
		t.Helper()
		if err := b.GPIO.Set("BUTTON", high); err != nil {
			t.Fatal(err)
		}
	}
	want := func(kind uint32) {
		t.Helper()
		if got := g.Submit(0, ask(gpioSetIRQ, 0, kind), 2).Wait(); got[0] != gpioOK {
			t.Fatalf("kind %d is refused", kind)
		}
	}
	wait := func() *vhosttest.Pending { return g.Submit(1, []byte{0, 0}, 1) }
	// sync returns when the device has heard all that came before.
	sync := func() { g.Submit(1, []byte{9, 0}, 1).Wait() }

	if got := wait().Wait(); !bytes.Equal(got, []byte{irqInvalid}) {
		t.Errorf("of a line without interrupts: got %x", got)
	}
	want(irqRising)
	p := wait()
	sync()
	if p.Done() {
		t.Error("an interrupt without an edge")
	}
	set(true)
	if got := p.Wait(); !bytes.Equal(got, []byte{irqValid}) {
		t.Errorf("a rising edge: got %x", got)
	}
	set(false)
	p = wait()
	sync()
	if p.Done() {
		t.Error("a falling edge was told")
	}
	// One who waits already can't be doubled.
	if got := wait().Wait(); !bytes.Equal(got, []byte{irqInvalid}) {
		t.Errorf("a second who waits: got %x", got)
	}
	want(0) // the guest has had enough
	if got := p.Wait(); !bytes.Equal(got, []byte{irqInvalid}) {
		t.Errorf("given up: got %x", got)
	}
	want(irqRising | irqFalling)
	set(true)
	set(false) // nobody waits: one interrupt tells of both
	if got := wait().Wait(); !bytes.Equal(got, []byte{irqValid}) {
		t.Errorf("an edge that came before: got %x", got)
	}
	p = wait()
	sync()
	if p.Done() {
		t.Error("told twice")
	}
	want(0)
	p.Wait()
	want(irqLow)
	if got := wait().Wait(); !bytes.Equal(got, []byte{irqValid}) {
		t.Errorf("a level: got %x", got)
	}
	for _, hostile := range [][]byte{{0}, {0xff, 0xff}} {
		if got := g.Submit(1, hostile, 1).Wait(); !bytes.Equal(got, []byte{irqInvalid}) {
			t.Errorf("%x: got %x", hostile, got)
		}
	}
}

// BenchmarkTransaction is the host's part of reading one register.
func BenchmarkTransaction(b *testing.B) {
	x := board(b, "lm75")
	g := guest(b, x, 0, 1)
	for b.Loop() {
		w, r := g.Add(0, message(0x48, i2cFailNext, 0), 1), g.Add(0, message(0x48, i2cRead), 3)
		g.Kick(0)
		w.Wait()
		r.Wait()
	}
}
