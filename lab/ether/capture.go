package ether

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// maxCapture bounds what a forgotten capture takes of the disk.
const maxCapture = 2 << 30

// Capture writes frames in the classic pcap format, which every analyser reads.
type Capture struct {
	w    io.Writer
	size int64
	buf  []byte
}

// NewCapture starts a capture.
func NewCapture(w io.Writer) (*Capture, error) {
	var h [24]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], 0xa1b2c3d4) // microseconds
	le.PutUint16(h[4:], 2)          // format 2.4
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], maxFrame)
	le.PutUint32(h[20:], 1) // LINKTYPE_ETHERNET
	if _, err := w.Write(h[:]); err != nil {
		return nil, err
	}
	return &Capture{w: w, size: int64(len(h))}, nil
}

// write appends a frame in one call, so that the file is whole between any two.
func (c *Capture) write(now time.Time, frame []byte) error {
	le := binary.LittleEndian
	b := le.AppendUint32(c.buf[:0], uint32(now.Unix()))
	b = le.AppendUint32(b, uint32(now.Nanosecond()/1000))
	b = le.AppendUint32(b, uint32(len(frame))) // captured
	b = le.AppendUint32(b, uint32(len(frame))) // on the wire
	b = append(b, frame...)
	c.buf = b
	if c.size += int64(len(b)); c.size > maxCapture {
		return errors.New("the capture has reached 2 GiB")
	}
	_, err := c.w.Write(b)
	return err
}

// Capture records every frame that a machine sends, lost or not, until it is
// called with nil.
func (s *Switch) Capture(c *Capture) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capture = c
}
