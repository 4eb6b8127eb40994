package mjpeg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const boundary = "haloframe"

// ContentType is that of a stream: browsers show each part in the place of the one
// before.
const ContentType = "multipart/x-mixed-replace; boundary=" + boundary

// WriteFrame writes one frame of a stream.
func WriteFrame(w io.Writer, frame []byte) error {
	if _, err := fmt.Fprintf(w, "--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", boundary, len(frame)); err != nil {
		return err
	}
	if _, err := w.Write(frame); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// piece is how much Slowly writes at once: two seconds of a link of 32 kbit/s.
const piece = 8 << 10

// Slowly returns a writer that writes in pieces, and calls renew before each. A deadline
// that is set there is one of progress: a picture may take as long as it needs, if only it
// gets on.
func Slowly(w io.Writer, renew func()) io.Writer { return slowly{w, renew} }

type slowly struct {
	w     io.Writer
	renew func()
}

func (s slowly) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		s.renew()
		var k int
		k, err = s.w.Write(b[n:min(len(b), n+piece)])
		n += k
	}
	return n, err
}

const (
	maxLine  = 256
	maxLines = 16 // of a part's head, and of what is before the first
)

// Reader reads a stream that WriteFrame has written somewhere else.
type Reader struct{ in *bufio.Reader }

// NewReader returns a reader of a stream.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 4096)} }

// Next appends the next frame to dst, which it returns as it was with an error; at the
// end of the stream that is io.EOF, or io.ErrUnexpectedEOF within a frame. The frame is
// not checked yet.
func (r *Reader) Next(dst []byte) ([]byte, error) {
	began := false
	length := -1
	for range maxLines {
		line, err := r.line()
		if err != nil {
			if began && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return dst, err
		}
		switch {
		case !began && line == "":
			continue // behind the frame before
		case !began && line == "--"+boundary+"--":
			return dst, io.EOF
		case !began:
			if line != "--"+boundary {
				return dst, fmt.Errorf("stream: expected --%s, got %.40q", boundary, line)
			}
			began = true
			continue
		case line != "":
			if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Content-Length") {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil || n < 1 || n > MaxFrame {
					return dst, fmt.Errorf("stream: expected a length of 1 to %d, got %.20q", MaxFrame, value)
				}
				length = n
			}
			continue
		}
		if length < 0 {
			return dst, errors.New("stream: expected a part with a length, got one without")
		}
		return r.body(dst, length)
	}
	return dst, fmt.Errorf("stream: expected a frame within %d lines", maxLines)
}

// body reads a frame, and takes memory as it comes, not as it is promised.
func (r *Reader) body(dst []byte, length int) ([]byte, error) {
	const piece = 64 << 10
	begin := len(dst)
	for left := length; left > 0; {
		n := min(left, piece)
		at := len(dst)
		dst = append(dst, make([]byte, n)...)
		if _, err := io.ReadFull(r.in, dst[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return dst[:begin], err
		}
		left -= n
	}
	return dst, nil
}

// line reads a line without its end.
func (r *Reader) line() (string, error) {
	b, err := r.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && len(b) > maxLine {
		return "", fmt.Errorf("stream: expected lines of at most %d octets", maxLine)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
