// Package mjpeg is what moving pictures are made of here: JPEG frames as cameras and
// nodes send them, which are checked before anybody else gets them, and their way over
// HTTP as a multipart message without end. Where they come from is not trusted: a
// camera may be broken or meant to break something, and so may a node.
package mjpeg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxFrame is how many octets a frame may have.
const MaxFrame = 2 << 20

// MaxSide is how many pixels wide and high a picture may be.
const MaxSide = 4096

// ErrTruncated is wrapped for a frame that ends too early, as cameras make them when
// the bus is busy or they are unplugged.
var ErrTruncated = errors.New("the frame is cut off")

// Markers of ITU-T T.81, table B.1.
const (
	mSOF0  = 0xc0 // baseline
	mSOF1  = 0xc1 // extended, Huffman
	mDHT   = 0xc4
	mRST0  = 0xd0
	mRST7  = 0xd7
	mSOI   = 0xd8
	mEOI   = 0xd9
	mSOS   = 0xda
	mDQT   = 0xdb
	mDRI   = 0xdd
	mAPP0  = 0xe0
	mAPP14 = 0xee // Adobe's says how colours are meant
	mAPP15 = 0xef
	mCOM   = 0xfe
	mTEM   = 0x01
)

// Header is what a frame says of its picture.
type Header struct {
	Width, Height int // pixels
	Components    int // 1: grey, 3: colours
	Restart       int // blocks between two restart markers; 0: there are none
	Tables        bool
	// Sampling of the first component, horizontally and vertically.
	H, V int
}

// Clean checks a frame of a camera and appends it to dst as decoders expect it: one
// picture, baseline, with Huffman tables, nothing behind its end, and without what
// the camera adds (thumbnails, serial numbers, another stream). It does not decode: what
// is between the markers may be any noise, which decoders have to bear.
func Clean(dst, src []byte) ([]byte, Header, error) {
	begin := len(dst)
	var h Header
	if len(src) > MaxFrame {
		return dst, h, fmt.Errorf("jpeg: expected at most %d octets, got %d", MaxFrame, len(src))
	}
	if len(src) < 4 || src[0] != 0xff || src[1] != mSOI {
		if len(src) < 2 {
			return dst, h, fmt.Errorf("jpeg: %w: %d octets", ErrTruncated, len(src))
		}
		return dst, h, fmt.Errorf("jpeg: expected it to begin with ff d8, got %x", src[:2])
	}
	dst = append(dst, 0xff, mSOI)
	var framed, quantized bool
	for at := 2; ; {
		marker, next, err := nextMarker(src, at)
		if err != nil {
			return dst[:begin], h, err
		}
		if marker == mTEM || marker >= mRST0 && marker <= mEOI {
			return dst[:begin], h, fmt.Errorf("jpeg: marker %02x at %d, before the picture", marker, at)
		}
		if next+2 > len(src) {
			return dst[:begin], h, fmt.Errorf("jpeg: %w in the head, at %d", ErrTruncated, at)
		}
		n := int(binary.BigEndian.Uint16(src[next:]))
		if n < 2 {
			return dst[:begin], h, fmt.Errorf("jpeg: segment %02x: expected a length of 2 or more, got %d", marker, n)
		}
		if next+n > len(src) {
			return dst[:begin], h, fmt.Errorf("jpeg: %w in segment %02x: expected %d octets, got %d", ErrTruncated, marker, n, len(src)-next)
		}
		body := src[next+2 : next+n]
		keep := true
		switch {
		case marker == mSOF0 || marker == mSOF1:
			if framed {
				return dst[:begin], h, errors.New("jpeg: expected one frame header, got two")
			}
			framed = true
			err = h.frame(body)
		case marker >= 0xc0 && marker <= 0xcf && marker != mDHT:
			err = fmt.Errorf("jpeg: expected a baseline frame (c0 or c1), got %02x", marker)
		case marker == mDHT:
			h.Tables = true
			err = huffmanTables(body)
		case marker == mDQT:
			quantized = true
			err = quantizers(body)
		case marker == mDRI:
			if len(body) != 2 {
				err = fmt.Errorf("jpeg: restart interval: expected 2 octets, got %d", len(body))
			} else {
				h.Restart = int(binary.BigEndian.Uint16(body))
			}
		case marker == mAPP14:
			keep = len(body) <= 14
		case marker >= mAPP0 && marker <= mAPP15, marker == mCOM:
			keep = false
		case marker == mSOS:
			if !framed || !quantized {
				return dst[:begin], h, errors.New("jpeg: expected a frame header and quantization tables before the scan")
			}
			if len(body) != 4+2*h.Components || int(body[0]) != h.Components {
				return dst[:begin], h, fmt.Errorf("jpeg: scan header: expected one of %d components, got %d octets", h.Components, len(body))
			}
			if !h.Tables {
				dst = append(dst, standardTables...)
			}
			dst = append(dst, 0xff, mSOS)
			dst = append(dst, src[next:next+n]...)
			end, err := scanEnd(src, next+n)
			if err != nil {
				return dst[:begin], h, err
			}
			dst = append(dst, src[next+n:end]...)
			return append(dst, 0xff, mEOI), h, nil
		default:
			err = fmt.Errorf("jpeg: segment %02x is not one of a camera's frame", marker)
		}
		if err != nil {
			return dst[:begin], h, err
		}
		if keep {
			dst = append(dst, 0xff, marker)
			dst = append(dst, src[next:next+n]...)
		}
		at = next + n
	}
}

// nextMarker reads the marker at a place, before which there may be fill octets.
func nextMarker(src []byte, at int) (marker byte, next int, err error) {
	if at < len(src) && src[at] != 0xff {
		return 0, 0, fmt.Errorf("jpeg: expected a marker at %d, got %02x", at, src[at])
	}
	for at < len(src) && src[at] == 0xff {
		at++
	}
	if at >= len(src) {
		return 0, 0, fmt.Errorf("jpeg: %w in the head, at %d", ErrTruncated, at)
	}
	return src[at], at + 1, nil
}

// frame reads a frame header.
func (h *Header) frame(b []byte) error {
	if len(b) < 6 {
		return fmt.Errorf("jpeg: frame header: expected 6 octets and more, got %d", len(b))
	}
	h.Height, h.Width, h.Components = int(binary.BigEndian.Uint16(b[1:])), int(binary.BigEndian.Uint16(b[3:])), int(b[5])
	if b[0] != 8 {
		return fmt.Errorf("jpeg: expected 8 bits for a sample, got %d", b[0])
	}
	if h.Width < 1 || h.Height < 1 || h.Width > MaxSide || h.Height > MaxSide {
		return fmt.Errorf("jpeg: expected a picture of 1x1 to %dx%d, got %dx%d", MaxSide, MaxSide, h.Width, h.Height)
	}
	if h.Components != 1 && h.Components != 3 || len(b) != 6+3*h.Components {
		return fmt.Errorf("jpeg: expected 1 or 3 components, got %d in %d octets", h.Components, len(b))
	}
	for k := range h.Components {
		s, q := b[6+3*k+1], b[6+3*k+2]
		if hs, vs := s>>4, s&15; hs < 1 || hs > 4 || vs < 1 || vs > 4 || q > 3 {
			return fmt.Errorf("jpeg: component %d: expected samplings of 1 to 4 and a table of 0 to 3, got %02x and %d", k, s, q)
		}
	}
	h.H, h.V = int(b[7]>>4), int(b[7]&15)
	return nil
}

func huffmanTables(b []byte) error {
	for len(b) > 0 {
		if len(b) < 17 || b[0]>>4 > 1 || b[0]&15 > 3 {
			return fmt.Errorf("jpeg: Huffman table: expected class 0 or 1, number 0 to 3 and 16 counts, got %x", b[:min(len(b), 17)])
		}
		n := 17
		for _, c := range b[1:17] {
			n += int(c)
		}
		if n > len(b) || n > 17+256 {
			return fmt.Errorf("jpeg: Huffman table: expected at most 256 values in %d octets, got %d", len(b), n-17)
		}
		b = b[n:]
	}
	return nil
}

func quantizers(b []byte) error {
	for len(b) > 0 {
		n := 65
		if b[0]>>4 == 1 {
			n = 129
		}
		if b[0]>>4 > 1 || b[0]&15 > 3 || len(b) < n {
			return fmt.Errorf("jpeg: quantization table: expected a precision of 0 or 1, a number of 0 to 3 and 64 values, got %02x and %d octets", b[0], len(b)-1)
		}
		b = b[n:]
	}
	return nil
}

// scanEnd finds the end of the entropy-coded data that begins at a place: where EOI is.
// Cameras fill up behind it.
func scanEnd(src []byte, at int) (end int, err error) {
	for {
		i := bytes.IndexByte(src[at:], 0xff)
		if i < 0 || at+i+1 >= len(src) {
			return 0, fmt.Errorf("jpeg: %w: there is no end of the picture in %d octets", ErrTruncated, len(src))
		}
		at += i
		switch m := src[at+1]; {
		case m == mEOI:
			return at, nil
		case m == 0, m >= mRST0 && m <= mRST7:
			at += 2
		case m == 0xff:
			at++ // fill octets
		default:
			return 0, fmt.Errorf("jpeg: marker %02x within the picture, at %d", m, at)
		}
	}
}

// Check tells what is wrong with a frame that Clean has made elsewhere.
func Check(b []byte) (Header, error) {
	_, h, err := Clean(nil, b)
	return h, err
}
