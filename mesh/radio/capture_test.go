package radio

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"halo.internal/model/pcap"
)

// heard gives one frame after the other, and then an error.
type heard struct {
	net.PacketConn
	frames []string
	end    error
}

func (h *heard) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(h.frames) == 0 {
		return 0, nil, h.end
	}
	n := copy(b, h.frames[0])
	h.frames = h.frames[1:]
	return n, nil, nil
}

func TestACaptureIsBounded(t *testing.T) {
	frame := strings.Repeat("x", 100)
	for name, tc := range map[string]struct {
		end    error
		most   int
		frames int
		fails  bool
	}{
		"by time":                     {os.ErrDeadlineExceeded, 1 << 20, 3, false},
		"by size":                     {os.ErrDeadlineExceeded, pcap.HeaderSize + 2*(pcap.FrameHeaderSize+100), 2, false},
		"by size, one octet short":    {os.ErrDeadlineExceeded, pcap.HeaderSize + 2*(pcap.FrameHeaderSize+100) - 1, 1, false},
		"by size, not even one":       {os.ErrDeadlineExceeded, 30, 0, false},
		"the radio was taken from it": {net.ErrClosed, 1 << 20, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			n, err := record(&heard{frames: []string{frame, frame, frame}, end: tc.end}, &file, tc.most)
			if n != tc.frames || (err != nil) != tc.fails || tc.fails && !errors.Is(err, tc.end) {
				t.Errorf("got %d frames, %v", n, err)
			}
			if want := pcap.HeaderSize + n*(pcap.FrameHeaderSize+len(frame)); file.Len() != want || file.Len() > max(tc.most, pcap.HeaderSize) {
				t.Errorf("got a file of %d octets, want %d", file.Len(), want)
			}
		})
	}
	if _, err := record(&heard{frames: []string{frame}}, full{}, 1<<20); err == nil {
		t.Error("a file that cannot be written is no error")
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no room") }
