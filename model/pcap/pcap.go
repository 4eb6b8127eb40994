// Package pcap writes frames in the classic pcap format, which every analyser
// reads.
package pcap

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// LinkType says what a capture's frames begin with (the registry of
// tcpdump.org).
type LinkType uint32

// Link types.
const (
	Ethernet LinkType = 1
	Radiotap LinkType = 127 // IEEE 802.11 behind a radiotap header
)

// Sizes in octets of what comes before all frames, and before each.
const (
	HeaderSize      = 24
	FrameHeaderSize = 16
)

// most bounds what a forgotten capture takes of the disk.
const most = 2 << 30

// maxFrame is the most octets of one frame.
const maxFrame = 1 << 16

// Writer writes a capture. It is for one goroutine at a time.
type Writer struct {
	w    io.Writer
	size int64
	buf  []byte
}

// New starts a capture.
func New(w io.Writer, t LinkType) (*Writer, error) {
	var h [HeaderSize]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], 0xa1b2c3d4) // microseconds
	le.PutUint16(h[4:], 2)          // format 2.4
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], maxFrame)
	le.PutUint32(h[20:], uint32(t))
	if _, err := w.Write(h[:]); err != nil {
		return nil, err
	}
	return &Writer{w: w, size: int64(len(h))}, nil
}

// Write appends a frame in one call, so that the file is whole between any two.
func (c *Writer) Write(now time.Time, frame []byte) error {
	le := binary.LittleEndian
	b := le.AppendUint32(c.buf[:0], uint32(now.Unix()))
	b = le.AppendUint32(b, uint32(now.Nanosecond()/1000))
	b = le.AppendUint32(b, uint32(len(frame))) // captured
	b = le.AppendUint32(b, uint32(len(frame))) // on the wire
	b = append(b, frame...)
	c.buf = b
	if c.size += int64(len(b)); c.size > most {
		return errors.New("the capture has reached 2 GiB")
	}
	_, err := c.w.Write(b)
	return err
}
