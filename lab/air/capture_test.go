package air

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/model/pcap"
)

func TestRadiotap(t *testing.T) {
	slow := hwsim.Attempt{Rate: 4, Count: 2}
	ht := from(permanent(a2), hwsim.Attempt{Rate: 7, Count: 1})
	ht.Kinds[0] = hwsim.HT
	ht.FreqMHz = 5180
	for name, tc := range map[string]struct {
		frame hwsim.Frame
		fate  fate
		want  string
	}{
		// length, present, rate and padding, MHz, band, TX flags, retries
		"legacy, the second attempt acknowledged": {from(permanent(a2), slow), fate{acked: true, did: hwsim.Attempts{slow, {Rate: -1}, {Rate: -1}, {Rate: -1}}}, "00001100" + "0c800200" + "0c00" + "6c09" + "8000" + "0000" + "01"},
		"legacy, never acknowledged":              {from(permanent(a2), slow), fate{did: hwsim.Attempts{slow, {Rate: -1}, {Rate: -1}, {Rate: -1}}}, "00001100" + "0c800200" + "0c00" + "6c09" + "8000" + "0100" + "01"},
		"to all":                                  {from(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, slow), fate{did: hwsim.Attempts{{Rate: 4, Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}}, "00001100" + "0c800200" + "0c00" + "6c09" + "8000" + "0800" + "00"},
		"802.11n":                                 {ht, fate{acked: true, did: hwsim.Attempts{{Rate: 7, Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}}, "00001200" + "08800a00" + "3c14" + "0001" + "0000" + "00" + "030007"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hex.EncodeToString(radiotap(tc.frame, tc.fate)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestCaptureOfTheAir(t *testing.T) {
	a := line(t, WiFi(), 30, 2000)
	var file bytes.Buffer
	c, err := pcap.New(&file, pcap.Radiotap)
	if err != nil {
		t.Fatal(err)
	}
	a.Capture(c)
	f := from(permanent(a2), hwsim.Attempt{Rate: 4, Count: 2})
	a.record(time.Now(), f, a.carry(f))
	a.Capture(nil)
	a.record(time.Now(), f, a.carry(f))
	if got := file.Bytes(); len(got) != 24+16+17+len(f.Data) || !bytes.HasSuffix(got, f.Data) {
		t.Errorf("captured %d octets", len(got))
	}
	if c, err = pcap.New(&broken{}, pcap.Radiotap); err != nil {
		t.Fatal(err)
	}
	a.Capture(c)
	a.record(time.Now(), f, a.carry(f)) // must not matter to the air
	if a.capture != nil {
		t.Error("a capture that fails goes on")
	}
}

func TestObserve(t *testing.T) {
	a := line(t, HaLow(1), 30, 2000)
	f := from(permanent(a2), hwsim.Attempt{Rate: 4, Count: 2})
	var took []time.Duration
	a.Observe(func(name string, frame []byte, airtime time.Duration) {
		if name == "" || !bytes.Equal(frame, f.Data) {
			t.Errorf("got a frame of %q: %x", name, frame)
		}
		took = append(took, airtime)
	})
	v := a.carry(f)
	a.Observe(nil)
	a.carry(f)
	if len(took) != 1 || took[0] != v.airtime.Airtime || took[0] == 0 {
		t.Errorf("got %v, want %s once", took, v.airtime.Airtime)
	}
}

// broken takes the head of a file.
type broken struct{ full bool }

func (b *broken) Write(p []byte) (int, error) {
	if b.full {
		return 0, io.ErrShortWrite
	}
	b.full = true
	return len(p), nil
}
