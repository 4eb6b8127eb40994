package pcap

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func TestAFileOfTwoFrames(t *testing.T) {
	var file bytes.Buffer
	w, err := New(&file, Radiotap)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 123_456_789)
	for _, text := range []string{"one", "frame two"} {
		if err := w.Write(at, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	b, le := file.Bytes(), binary.LittleEndian
	if le.Uint32(b) != 0xa1b2c3d4 || le.Uint32(b[20:]) != 127 {
		t.Errorf("header %x", b[:24])
	}
	first := b[24:]
	if le.Uint32(first) != 1_800_000_000 || le.Uint32(first[4:]) != 123_456 || le.Uint32(first[8:]) != 3 || string(first[16:19]) != "one" {
		t.Errorf("first frame %x", first[:19])
	}
	if second := first[19:]; le.Uint32(second[12:]) != 9 || string(second[16:]) != "frame two" {
		t.Errorf("second frame %x", second)
	}
}

func TestAForgottenCaptureEnds(t *testing.T) {
	w := &Writer{w: new(bytes.Buffer), size: most - 20}
	if err := w.Write(time.Now(), make([]byte, 4)); err != nil {
		t.Errorf("the last frame that fits: %v", err)
	}
	if err := w.Write(time.Now(), nil); err == nil {
		t.Error("one more was taken")
	}
}
