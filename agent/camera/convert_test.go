package camera

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"strings"
	"testing"

	"halo.internal/hal/v4l2"
	"halo.internal/model"
	"halo.internal/model/mjpeg"
)

// pattern is what all formats show: four fields of colours.
func pattern(w, h int) *image.YCbCr {
	m := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio444)
	fields := []color.Color{color.RGBA{200, 40, 40, 255}, color.RGBA{40, 180, 60, 255}, color.RGBA{50, 60, 200, 255}, color.RGBA{220, 220, 200, 255}}
	for y := range h {
		for x := range w {
			c := color.YCbCrModel.Convert(fields[2*(2*y/h)+2*x/w]).(color.YCbCr)
			at := m.YOffset(x, y)
			m.Y[at], m.Cb[at], m.Cr[at] = c.Y, c.Cb, c.Cr
		}
	}
	return m
}

// raw is a frame of the pattern, by the kernel's description of the formats
// (userspace-api/media/v4l/pixfmt-*), with lines of that many octets.
func raw(f v4l2.Format) []byte {
	m := pattern(f.Width, f.Height)
	at := func(x, y int) (l, cb, cr byte, c color.RGBA) {
		i := m.YOffset(x, y)
		r, g, b, _ := m.At(x, y).RGBA()
		return m.Y[i], m.Cb[i], m.Cr[i], color.RGBA{byte(r >> 8), byte(g >> 8), byte(b >> 8), 255}
	}
	var out []byte
	line := func(b []byte, stride int) { out = append(append(out, b...), make([]byte, stride-len(b))...) }
	for y := range f.Height {
		var b []byte
		for x := range f.Width {
			l, cb, cr, c := at(x, y)
			chroma := cb
			if x%2 == 1 {
				chroma = cr
			}
			switch f.Pixel {
			case v4l2.YUYV:
				b = append(b, l, chroma)
			case v4l2.UYVY:
				b = append(b, chroma, l)
			case v4l2.RGB3:
				b = append(b, c.R, c.G, c.B)
			case v4l2.BGR3:
				b = append(b, c.B, c.G, c.R)
			default:
				b = append(b, l)
			}
		}
		line(b, f.Stride)
	}
	planes, width := 0, f.Stride
	switch f.Pixel {
	case v4l2.NV12:
		planes = 1
	case v4l2.YU12:
		planes, width = 2, f.Stride/2
	}
	for p := range planes {
		for y := 0; y < f.Height; y += 2 {
			var b []byte
			for x := 0; x < f.Width; x += 2 {
				_, cb, cr, _ := at(x, y)
				switch {
				case planes == 1:
					b = append(b, cb, cr)
				case p == 0:
					b = append(b, cb)
				default:
					b = append(b, cr)
				}
			}
			line(b, width)
		}
	}
	return out
}

var rawFormats = map[v4l2.FourCC]int{v4l2.YUYV: 2, v4l2.UYVY: 2, v4l2.NV12: 1, v4l2.YU12: 1, v4l2.RGB3: 3, v4l2.BGR3: 3, v4l2.GREY: 1}

func TestConvert(t *testing.T) {
	for pixel, octets := range rawFormats {
		for _, pad := range []int{0, 32} {
			t.Run(fmt.Sprintf("%s+%d", pixel, pad), func(t *testing.T) {
				f := v4l2.Format{Pixel: pixel, Width: 64, Height: 48, Stride: 64*octets + pad, Full: true}
				c, err := newConverter(f, 95)
				if err != nil {
					t.Fatal(err)
				}
				data := raw(f)
				b, err := c.picture(data)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := mjpeg.Check(b); err != nil {
					t.Error(err)
				}
				got, err := jpeg.Decode(bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				want := pattern(64, 48)
				for _, at := range []image.Point{{8, 8}, {56, 8}, {8, 40}, {56, 40}} {
					g, w := color.YCbCrModel.Convert(got.At(at.X, at.Y)).(color.YCbCr), want.YCbCrAt(at.X, at.Y)
					if pixel == v4l2.GREY {
						w.Cb, w.Cr = 128, 128
					}
					if far(g.Y, w.Y) || far(g.Cb, w.Cb) || far(g.Cr, w.Cr) {
						t.Errorf("at %v: got %v, want %v", at, g, w)
					}
				}
				// A frame may end with the last pixel; a frame that ends before is cut off.
				if _, err := c.picture(data[:c.octets()]); err != nil {
					t.Error(err)
				}
				if _, err := c.picture(data[:c.octets()-1]); !errors.Is(err, mjpeg.ErrTruncated) {
					t.Errorf("cut off: %v", err)
				}
			})
		}
	}
}

func far(a, b byte) bool { return max(a, b)-min(a, b) > 6 }

func TestConvertRefusals(t *testing.T) {
	for name, f := range map[string]v4l2.Format{
		"odd":         {Pixel: v4l2.YUYV, Width: 63, Height: 48},
		"odd height":  {Pixel: v4l2.NV12, Width: 64, Height: 47},
		"short lines": {Pixel: v4l2.RGB3, Width: 64, Height: 48, Stride: 64},
		"too large":   {Pixel: v4l2.GREY, Width: 4096, Height: 4096, Stride: 4096},
		"unknown":     {Pixel: 1, Width: 64, Height: 48, Stride: 64},
	} {
		if _, err := newConverter(f, 60); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var w bounded
	if _, err := w.Write(make([]byte, mjpeg.MaxFrame+1)); !errors.Is(err, errLarge) {
		t.Errorf("got %v", err)
	}
}

func TestChoose(t *testing.T) {
	size := func(w, h int) v4l2.Size { return v4l2.Size{Width: w, Height: h, Rates: []float64{30, 15, 5}} }
	both := []v4l2.Mode{
		{Pixel: v4l2.YUYV, Sizes: []v4l2.Size{size(640, 480), size(160, 120), size(1280, 720)}},
		{Pixel: 1, Sizes: []v4l2.Size{size(640, 480)}},
		{Pixel: v4l2.MJPG, Sizes: []v4l2.Size{size(640, 480), size(320, 240), size(2560, 1440)}},
	}
	for name, tc := range map[string]struct {
		modes []v4l2.Mode
		w, h  int
		fps   float64
		want  v4l2.Format
	}{
		"as it comes":            {both, 0, 0, 5, v4l2.Format{Pixel: v4l2.MJPG, Width: 640, Height: 480, Rate: 5}},
		"what one has":           {both, 1280, 720, 10, v4l2.Format{Pixel: v4l2.YUYV, Width: 1280, Height: 720, Rate: 15}},
		"between":                {both, 400, 300, 30, v4l2.Format{Pixel: v4l2.MJPG, Width: 320, Height: 240, Rate: 30}},
		"smaller than there are": {both, 100, 100, 0.1, v4l2.Format{Pixel: v4l2.YUYV, Width: 160, Height: 120, Rate: 5}},
		"a raw one alone":        {both[:2], 4096, 4096, 60, v4l2.Format{Pixel: v4l2.YUYV, Width: 1280, Height: 720, Rate: 30}},
		"it does not say":        {[]v4l2.Mode{{Pixel: v4l2.GREY}}, 0, 0, 5, v4l2.Format{Pixel: v4l2.GREY, Width: 640, Height: 480}},
	} {
		got, err := choose(tc.modes, model.CameraSettings{Width: tc.w, Height: tc.h, FPS: tc.fps})
		if err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tc.want)
		}
	}
	if _, err := choose(both[1:2], model.DefaultCameraSettings()); err == nil {
		t.Error("a camera of no use was taken")
	}
}

// Whatever a driver says, and whatever a frame holds, nothing is read beyond it.
func FuzzConvert(f *testing.F) {
	f.Add(uint8(0), uint16(64), uint16(48), uint16(128), []byte("frame"))
	f.Add(uint8(2), uint16(8), uint16(8), uint16(8), make([]byte, 96))
	f.Fuzz(func(t *testing.T, pixel uint8, w, h, stride uint16, data []byte) {
		format := v4l2.Format{Pixel: usable[int(pixel)%len(usable)], Width: int(w % 512), Height: int(h % 512), Stride: int(stride)}
		c, err := newConverter(format, 50)
		if err != nil {
			return
		}
		if !isJPEG(format.Pixel) && len(data) > 0 { // else hardly a frame is long enough
			data = bytes.Repeat(data, c.octets()/len(data)+1)[:max(0, c.octets()-int(data[0]%2))]
		}
		b, err := c.picture(data)
		if err != nil {
			return
		}
		if _, err := mjpeg.Check(b); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	for _, pixel := range usable {
		octets, ok := rawFormats[pixel]
		f := v4l2.Format{Pixel: pixel, Width: 640, Height: 480, Stride: 640 * octets}
		data := []byte(nil)
		if ok {
			data = raw(f)
		} else {
			var buf bytes.Buffer
			if err := jpeg.Encode(&buf, pattern(640, 480), &jpeg.Options{Quality: 75}); err != nil {
				b.Fatal(err)
			}
			data = buf.Bytes()
		}
		b.Run(pixel.String(), func(b *testing.B) {
			c, err := newConverter(f, 60)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.picture(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
