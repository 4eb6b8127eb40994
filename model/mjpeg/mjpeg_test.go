package mjpeg

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"strings"
	"testing"
)

// picture is a JPEG of the standard library's, whose tables are those of annex K.
func picture(t testing.TB, grey bool) []byte {
	t.Helper()
	var m image.Image = image.NewRGBA(image.Rect(0, 0, 48, 32))
	if grey {
		m = image.NewGray(m.Bounds())
	}
	for y := range 32 {
		for x := range 48 {
			m.(interface{ Set(x, y int, c color.Color) }).Set(x, y, color.RGBA{uint8(5 * x), uint8(7 * y), uint8(x * y), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 80}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// without cuts out all segments of a marker.
func without(b []byte, marker byte) []byte {
	out := bytes.Clone(b[:2])
	for at := 2; ; {
		n := int(b[at+2])<<8 | int(b[at+3])
		if b[at+1] != marker {
			out = append(out, b[at:at+2+n]...)
		}
		if b[at+1] == mSOS {
			return append(out, b[at+2+n:]...)
		}
		at += 2 + n
	}
}

// with puts a segment behind the beginning.
func with(b []byte, marker byte, body string) []byte {
	seg := append([]byte{0xff, marker, byte((len(body) + 2) >> 8), byte(len(body) + 2)}, body...)
	return bytes.Join([][]byte{b[:2], seg, b[2:]}, nil)
}

func TestClean(t *testing.T) {
	colour, grey := picture(t, false), picture(t, true)
	for name, tc := range map[string]struct {
		in     []byte
		want   []byte
		tables bool
	}{
		"as it is":           {colour, colour, true},
		"grey":               {grey, grey, true},
		"filled up":          {append(bytes.Clone(colour), make([]byte, 500)...), colour, true},
		"two pictures":       {append(bytes.Clone(colour), grey...), colour, true},
		"with a thumbnail":   {with(colour, mAPP0+1, strings.Repeat("x", 9000)), colour, true},
		"with a comment":     {with(colour, mCOM, "serial 4711"), colour, true},
		"AVI's mark":         {with(colour, mAPP0, "AVI1\x00"), colour, true},
		"fill octets":        {append([]byte{0xff, mSOI, 0xff, 0xff}, colour[2:]...), colour, true},
		"without its tables": {without(colour, mDHT), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, h, err := Clean([]byte("before"), tc.in)
			if err != nil {
				t.Fatal(err)
			}
			got = bytes.TrimPrefix(got, []byte("before"))
			if tc.want != nil && !bytes.Equal(got, tc.want) {
				t.Errorf("got %d octets, want %d", len(got), len(tc.want))
			}
			if h.Width != 48 || h.Height != 32 || h.Tables != tc.tables {
				t.Errorf("got %+v", h)
			}
			// The standard library has the same picture of it.
			m, err := jpeg.Decode(bytes.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			of := colour
			if name == "grey" {
				of = grey
			}
			want, err := jpeg.Decode(bytes.NewReader(of))
			if err != nil {
				t.Fatal(err)
			}
			for y := range 32 {
				for x := range 48 {
					if m.At(x, y) != want.At(x, y) {
						t.Fatalf("pixel %d,%d: got %v, want %v", x, y, m.At(x, y), want.At(x, y))
					}
				}
			}
		})
	}
}

func TestCleanRefusals(t *testing.T) {
	b := picture(t, false)
	sof := bytes.Index(b, []byte{0xff, mSOF0})
	change := func(at int, to ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[at:], to)
		return c
	}
	for name, tc := range map[string]struct {
		in  []byte
		say string
		cut bool
	}{
		"nothing":            {nil, "cut off", true},
		"no JPEG":            {[]byte("GIF89a"), "expected it to begin with ff d8", false},
		"half":               {b[:len(b)/2], "cut off", true},
		"without its end":    {b[:len(b)-2], "cut off", true},
		"half a head":        {b[:30], "cut off", true},
		"0 pixels wide":      {change(sof+7, 0, 0), "expected a picture of", false},
		"too wide":           {change(sof+7, 0xff, 0xff), "expected a picture of", false},
		"progressive":        {change(sof+1, 0xc2), "baseline", false},
		"12 bits":            {change(sof+4, 12), "8 bits", false},
		"two components":     {change(sof+9, 2), "components", false},
		"sampling of 0":      {change(sof+11, 0), "samplings", false},
		"segment of 0":       {change(4, 0, 0), "length of 2", false},
		"begins again":       {append([]byte{0xff, mSOI}, b...), "before the picture", false},
		"a marker within":    {change(len(b)-5, 0xff, mSOI), "within the picture", false},
		"no table":           {without(b, mDQT), "quantization", false},
		"bad Huffman counts": {change(bytes.Index(b, []byte{0xff, mDHT})+5, bytes.Repeat([]byte{0xff}, 16)...), "Huffman", false},
		"too long":           {make([]byte, MaxFrame+1), "at most", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := Clean([]byte("before"), tc.in)
			if err == nil || !strings.Contains(err.Error(), tc.say) || errors.Is(err, ErrTruncated) != tc.cut {
				t.Errorf("got %v, want %q", err, tc.say)
			}
			if string(got) != "before" {
				t.Errorf("something of it was appended: %d octets", len(got))
			}
		})
	}
}

func TestStream(t *testing.T) {
	frames := [][]byte{picture(t, false), picture(t, true), []byte("x")}
	var b bytes.Buffer
	for _, f := range frames {
		if err := WriteFrame(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	whole := b.String()
	r := NewReader(&b)
	for i, want := range frames {
		got, err := r.Next(nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: got %d octets, %v, want %d", i, len(got), err, len(want))
		}
	}
	if _, err := r.Next(nil); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for name, in := range map[string]string{
		"cut off":          whole[:len(whole)/2],
		"no length":        "--haloframe\r\nContent-Type: image/jpeg\r\n\r\nabc",
		"negative":         "--haloframe\r\nContent-Length: -1\r\n\r\nabc",
		"huge":             "--haloframe\r\nContent-Length: 99999999999\r\n\r\nabc",
		"another boundary": "--other\r\n\r\n",
		"a line too long":  "--haloframe\r\n" + strings.Repeat("a", 5000),
		"many lines":       "--haloframe\r\n" + strings.Repeat("a: b\r\n", 50),
	} {
		r := NewReader(strings.NewReader(in))
		for {
			_, err := r.Next(nil)
			if errors.Is(err, io.EOF) {
				t.Errorf("%s: it ended in order", name)
			}
			if err != nil {
				break
			}
		}
	}
}

// What Clean lets through is as Clean makes it, and the standard library gets no
// further than an error with it.
func FuzzClean(f *testing.F) {
	b := picture(f, false)
	f.Add(b)
	f.Add(without(b, mDHT))
	f.Add(with(b, mAPP0, "AVI1\x00"))
	f.Add(b[:len(b)-2])
	f.Fuzz(func(t *testing.T, in []byte) {
		out, h, err := Clean(nil, in)
		if err != nil {
			if len(out) != 0 {
				t.Errorf("something of what is wrong was kept: %d octets", len(out))
			}
			return
		}
		if len(out) > len(in)+len(standardTables) || h.Width < 1 || h.Height > MaxSide {
			t.Errorf("%d octets of %d, %+v", len(out), len(in), h)
		}
		again, h2, err := Clean(nil, out)
		h.Tables = true
		if err != nil || !bytes.Equal(again, out) || h2 != h {
			t.Errorf("what was clean is not: %v, %+v, %+v", err, h, h2)
		}
		if h.Width*h.Height < 1<<16 {
			_, _ = jpeg.Decode(bytes.NewReader(out)) // noise is its matter; it must not panic
		}
	})
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	_ = WriteFrame(&b, []byte("abc"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		sum := 0
		for {
			frame, err := r.Next(nil)
			if err != nil {
				return
			}
			if sum += len(frame); sum > len(in) {
				t.Fatalf("%d octets of frames in a stream of %d", sum, len(in))
			}
		}
	})
}

func BenchmarkClean(b *testing.B) {
	m := image.NewYCbCr(image.Rect(0, 0, 640, 480), image.YCbCrSubsampleRatio420)
	for i := range m.Y {
		m.Y[i] = byte(i * i >> 7)
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, m, nil); err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 2*buf.Len())
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		if _, _, err := Clean(dst[:0], buf.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
