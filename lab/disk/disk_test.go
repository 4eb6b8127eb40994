package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const testBlocks = 64

// fresh returns a card over a base of random octets, and those octets.
func fresh(t *testing.T) (*Disk, []byte) {
	t.Helper()
	base := make([]byte, testBlocks*blockSize)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range base {
		base[i] = byte(r.Uint32())
	}
	path := filepath.Join(t.TempDir(), "base.img")
	if err := os.WriteFile(path, base, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Create(path, filepath.Join(t.TempDir(), "overlay"), 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, base) {
			t.Errorf("the base image was changed (%v)", err)
		}
	})
	return d, slices.Clone(base)
}

// whole reads the card.
func (d *Disk) whole(t *testing.T) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sectors(n int, fill byte) []byte { return bytes.Repeat([]byte{fill}, n*sectorSize) }

func TestReadsWhatWasWritten(t *testing.T) {
	d, want := fresh(t)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 500 {
		n, at := 1+r.IntN(40), r.IntN(testBlocks*blockSize/sectorSize-40)
		p := sectors(n, byte(i))
		if i%3 == 0 {
			off := at*sectorSize + r.IntN(sectorSize) // by hand, at any place
			p = p[:r.IntN(len(p))]
			if _, err := d.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], p)
		} else {
			if err := d.guestWrite(p, int64(at*sectorSize)); err != nil {
				t.Fatal(err)
			}
			copy(want[at*sectorSize:], p)
		}
		if i%50 == 0 {
			if err := d.guestFlush(); err != nil {
				t.Fatal(err)
			}
		}
		off := r.IntN(len(want))
		got := make([]byte, r.IntN(3*blockSize))
		m, err := d.ReadAt(got, int64(off))
		if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got[:m], want[off:off+m]) {
			t.Fatalf("step %d: %d octets at %d differ (%v)", i, m, off, err)
		}
	}
	if !bytes.Equal(d.whole(t), want) {
		t.Error("the card differs at the end")
	}
}

func TestACutTakesOnlyWhatWasNotFlushed(t *testing.T) {
	d, want := fresh(t)
	if err := errors.Join(d.guestWrite(sectors(20, 'f'), 0), d.guestFlush()); err != nil {
		t.Fatal(err)
	}
	copy(want, sectors(20, 'f'))
	const at = 50
	if err := d.guestWrite(sectors(100, 'u'), at*sectorSize); err != nil {
		t.Fatal(err)
	}
	lost, err := d.Cut()
	if err != nil || lost < 20 || lost > 80 {
		t.Fatalf("lost %d of 100 sectors (%v), want about half", lost, err)
	}
	got, gone := d.whole(t), 0
	for s := range 100 {
		is := got[(at+s)*sectorSize : (at+s+1)*sectorSize]
		switch {
		case bytes.Equal(is, want[(at+s)*sectorSize:(at+s+1)*sectorSize]):
			gone++
		case !bytes.Equal(is, sectors(1, 'u')):
			t.Errorf("sector %d is neither old nor new", at+s)
		}
	}
	if gone != lost {
		t.Errorf("%d sectors are as before, want %d", gone, lost)
	}
	if !bytes.Equal(got[:at*sectorSize], want[:at*sectorSize]) {
		t.Error("the cut took what was flushed")
	}
}

func TestUnplugLosesNothing(t *testing.T) {
	d, want := fresh(t)
	if err := errors.Join(d.guestWrite(sectors(9, 'x'), 512), d.Unplug()); err != nil {
		t.Fatal(err)
	}
	copy(want[512:], sectors(9, 'x'))
	if lost, err := d.Cut(); lost != 0 || err != nil || !bytes.Equal(d.whole(t), want) {
		t.Errorf("lost %d sectors (%v), want none", lost, err)
	}
}

func TestCountsWhatTheGuestDoes(t *testing.T) {
	d, _ := fresh(t)
	if _, err := d.WriteAt([]byte("by hand"), 99); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.guestWrite(sectors(4, 1), 0), d.guestRead(sectors(2, 0), 0), d.guestFlush()); err != nil {
		t.Fatal(err)
	}
	want := Counters{ReadBytes: 1024, WrittenBytes: 2048, Writes: 1, Flushes: 1}
	if got := d.Counters(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRefusesImagesThatCannotBe(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "odd": blockSize + 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "base.img")
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
			if d, err := Create(path, path+".overlay", 1); err == nil {
				t.Error("taken")
				d.Close()
			}
		})
	}
}

func TestWritesByHandStayOnTheCard(t *testing.T) {
	d, _ := fresh(t)
	for _, off := range []int64{-1, d.Size() - 3} {
		if _, err := d.WriteAt([]byte("four"), off); err == nil {
			t.Errorf("a write at %d was taken", off)
		}
	}
}

// client is an NBD client as QEMU is one.
type client struct {
	t    *testing.T
	conn net.Conn
}

func dial(t *testing.T, d *Disk) (client, <-chan error) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- d.Serve(near) }()
	t.Cleanup(func() { far.Close(); near.Close() })
	return client{t, far}, done
}

func (c client) send(parts ...any) {
	c.t.Helper()
	for _, p := range parts {
		if err := binary.Write(c.conn, binary.BigEndian, p); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c client) expect(parts ...any) {
	c.t.Helper()
	for _, p := range parts {
		var want bytes.Buffer
		if err := binary.Write(&want, binary.BigEndian, p); err != nil {
			c.t.Fatal(err)
		}
		got := make([]byte, want.Len())
		if _, err := io.ReadFull(c.conn, got); err != nil {
			c.t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			c.t.Fatalf("got %x, want %x", got, want.Bytes())
		}
	}
}

func (c client) greet() {
	c.t.Helper()
	c.expect(uint64(nbdMagic), uint64(optionMagic), uint16(flagFixedNewstyle|flagNoZeroes))
	c.send(uint32(flagFixedNewstyle | flagNoZeroes))
}

func (c client) start(size int64) {
	c.t.Helper()
	c.greet()
	const structuredReply = 8
	c.send(uint64(optionMagic), uint32(structuredReply), uint32(0))
	c.expect(uint64(optReplyMagic), uint32(structuredReply), uint32(repErrUnsup), uint32(0))
	c.send(uint64(optionMagic), uint32(optGo), uint32(6), make([]byte, 6))
	c.expect(uint64(optReplyMagic), uint32(optGo), uint32(repInfo), uint32(12), uint16(infoExport), uint64(size), uint16(1|4|8))
	c.expect(uint64(optReplyMagic), uint32(optGo), uint32(repInfo), uint32(14), uint16(infoBlockSize), uint32(512), uint32(4096), uint32(maxRequest))
	c.expect(uint64(optReplyMagic), uint32(optGo), uint32(repAck), uint32(0))
}

func (c client) request(kind, flags uint16, off uint64, n uint32, data ...any) {
	c.t.Helper()
	c.send(append([]any{request{requestMagic, flags, kind, 42, off, n}}, data...)...)
}

func (c client) reply(status uint32, data ...any) {
	c.t.Helper()
	c.expect(append([]any{uint32(replyMagic), status, uint64(42)}, data...)...)
}

func TestNBD(t *testing.T) {
	d, base := fresh(t)
	c, done := dial(t, d)
	c.start(d.Size())
	c.request(cmdRead, 0, 4096, 1024)
	c.reply(0, base[4096:4096+1024])
	c.request(cmdWrite, 0, 512, 512, sectors(1, 'w'))
	c.reply(0)
	c.request(cmdRead, 0, 0, 1024)
	c.reply(0, base[:512], sectors(1, 'w'))
	c.request(cmdFlush, 0, 0, 0)
	c.reply(0)
	c.request(cmdWrite, cmdFlagFUA, 1024, 512, sectors(1, 'v'))
	c.reply(0)
	if lost, _ := d.Cut(); lost != 0 {
		t.Errorf("%d sectors were lost that were flushed or forced", lost)
	}
	for name, r := range map[string]struct {
		kind uint16
		off  uint64
		n    uint32
	}{
		"behind the end": {cmdRead, uint64(d.Size()) - 512, 1024},
		"far behind":     {cmdRead, 1 << 63, 512},
		"odd place":      {cmdRead, 1, 512},
		"odd length":     {cmdRead, 0, 511},
		"unknown":        {77, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.request(r.kind, 0, r.off, r.n)
			c.reply(errInval)
		})
	}
	c.request(cmdDisc, 0, 0, 0)
	if err := <-done; err != nil {
		t.Errorf("after a disconnect: %v", err)
	}
}

func TestNBDEndsOnWhatIsNoNBD(t *testing.T) {
	for name, do := range map[string]func(client){
		"bad option":  func(c client) { c.greet(); c.send(uint64(1), uint32(optGo), uint32(0)) },
		"huge option": func(c client) { c.greet(); c.send(uint64(optionMagic), uint32(optGo), uint32(1<<30)) },
		"bad request": func(c client) { c.start(testBlocks * blockSize); c.send(request{Magic: 1}) },
		"huge write":  func(c client) { c.start(testBlocks * blockSize); c.request(cmdWrite, 0, 0, 1<<31) },
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := fresh(t)
			c, done := dial(t, d)
			do(c)
			if err := <-done; err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x00\x25\x60\x95\x13\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02\x00"))
	base := filepath.Join(f.TempDir(), "base.img")
	if err := os.WriteFile(base, make([]byte, blockSize), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Create(base, filepath.Join(t.TempDir(), "overlay"), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		_ = d.Serve(struct { // whatever it says of such input, it must say it and stay within the card
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard})
		if len(d.whole(t)) != blockSize {
			t.Error("the card has grown")
		}
	})
}

func TestWornCardRefusesMachinesAndKeepsWhatItHas(t *testing.T) {
	d, want := fresh(t)
	if err := d.guestWrite(sectors(1, 1), 0); err != nil {
		t.Fatal(err)
	}
	d.WearOut(true)
	if err := d.guestWrite(sectors(1, 2), 0); !errors.Is(err, errWornOut) {
		t.Errorf("a write: got %v, want %v", err, errWornOut)
	}
	copy(want, sectors(1, 1))
	if !bytes.Equal(d.whole(t), want) {
		t.Error("what the card had is not what it has")
	}
	d.WearOut(false)
	if err := d.guestWrite(sectors(1, 3), 0); err != nil {
		t.Error(err)
	}
}

// TestCardsAreExchanged has each card keep what was written to it, and nothing of the
// other's.
func TestCardsAreExchanged(t *testing.T) {
	d, base := fresh(t)
	write := func(fill byte) []byte {
		t.Helper()
		b := sectors(3, fill)
		if _, err := d.WriteAt(b, 5*sectorSize); err != nil {
			t.Fatal(err)
		}
		return append(append(slices.Clone(base[:5*sectorSize]), b...), base[8*sectorSize:]...)
	}
	exchange := func(c *Card) *Card {
		t.Helper()
		out, err := d.Exchange(c)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := write(1)
	old := exchange(nil)
	if !bytes.Equal(d.whole(t), base) {
		t.Error("a fresh card is not as the image is")
	}
	second := write(2)
	young := exchange(old)
	if !bytes.Equal(d.whole(t), first) {
		t.Error("the first card has not what was written to it")
	}
	if old = exchange(young); !bytes.Equal(d.whole(t), second) {
		t.Error("the second card has not what was written to it")
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
}
