package camera

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"slices"

	"halo.internal/hal/v4l2"
	"halo.internal/model"
	"halo.internal/model/mjpeg"
)

// maxRaw is how many pixels a picture may have that is converted here.
const maxRaw = 1920 * 1080

// usable are the formats that pictures can be made of, the cheapest first: JPEG as it
// comes, then what is nearest to what JPEG is made of.
var usable = []v4l2.FourCC{v4l2.MJPG, v4l2.JPEG, v4l2.YU12, v4l2.NV12, v4l2.YUYV, v4l2.UYVY, v4l2.RGB3, v4l2.BGR3, v4l2.GREY}

func rank(f v4l2.FourCC) int { return slices.Index(usable, f) }

func isJPEG(f v4l2.FourCC) bool { return f == v4l2.MJPG || f == v4l2.JPEG }

// Size that is taken where settings have none.
const usualWidth, usualHeight = 640, 480

// choose finds the format and size that are nearest to what settings want: that very
// size, or the largest within it, or the smallest there is; of formats of that size the
// cheapest.
func choose(modes []v4l2.Mode, s model.CameraSettings) (v4l2.Format, error) {
	w, h := s.Width, s.Height
	if w == 0 {
		w, h = usualWidth, usualHeight
	}
	var best v4l2.Format
	found := false
	for _, m := range modes {
		if rank(m.Pixel) < 0 {
			continue
		}
		sizes := m.Sizes
		if len(sizes) == 0 { // a driver that does not tell
			sizes = []v4l2.Size{{Width: w, Height: h}}
		}
		for _, z := range sizes {
			f := v4l2.Format{Pixel: m.Pixel, Width: z.Width, Height: z.Height, Rate: nearestRate(z.Rates, s.FPS)}
			if !isJPEG(f.Pixel) && f.Width*f.Height > maxRaw {
				continue
			}
			if !found || nearer(f, best, w, h) {
				best, found = f, true
			}
		}
	}
	if !found {
		return best, fmt.Errorf("expected one of the formats %v, got a camera of %d others", usable, len(modes))
	}
	return best, nil
}

// nearer tells whether a is nearer than b to a size, or as near and cheaper.
func nearer(a, b v4l2.Format, w, h int) bool {
	within := func(f v4l2.Format) bool { return f.Width <= w && f.Height <= h }
	area := func(f v4l2.Format) int { return f.Width * f.Height }
	switch {
	case within(a) != within(b):
		return within(a)
	case area(a) != area(b):
		return (area(a) > area(b)) == within(a)
	}
	return rank(a.Pixel) < rank(b.Pixel)
}

// nearestRate is the lowest that is enough, or else the highest: what is left out costs the bus
// and, converted, the processor.
func nearestRate(list []float64, want float64) float64 {
	best := 0.0
	for _, r := range list {
		if best == 0 || r >= want && (best < want || r < best) || r < want && best < want && r > best {
			best = r
		}
	}
	return best
}

// converter makes JPEG pictures of frames of one format. It is for one goroutine.
type converter struct {
	format  v4l2.Format
	options jpeg.Options
	out     bounded
	chroma  *image.YCbCr
	grey    *image.Gray
	rgba    *image.RGBA
	luma    [256]byte // what becomes of luminance and chrominance, which JPEG has in full range
	colour  [256]byte
}

// newConverter checks what a driver says that it sends, so that frames need be checked
// by their length alone.
func newConverter(f v4l2.Format, quality int) (*converter, error) {
	c := &converter{format: f, options: jpeg.Options{Quality: quality}}
	if isJPEG(f.Pixel) {
		return c, nil
	}
	if f.Width*f.Height > maxRaw {
		return nil, fmt.Errorf("expected at most %d pixels to convert, got %dx%d", maxRaw, f.Width, f.Height)
	}
	c.ranges()
	line, even := f.Width, true
	box := image.Rect(0, 0, f.Width, f.Height)
	switch f.Pixel {
	case v4l2.YUYV, v4l2.UYVY:
		line, even = 2*f.Width, f.Width%2 == 0
		c.chroma = image.NewYCbCr(box, image.YCbCrSubsampleRatio422)
	case v4l2.NV12, v4l2.YU12:
		even = f.Width%2 == 0 && f.Height%2 == 0
		c.chroma = image.NewYCbCr(box, image.YCbCrSubsampleRatio420)
	case v4l2.RGB3, v4l2.BGR3:
		line = 3 * f.Width
		c.rgba = image.NewRGBA(box)
		for i := 3; i < len(c.rgba.Pix); i += 4 {
			c.rgba.Pix[i] = 0xff
		}
	case v4l2.GREY:
		c.grey = image.NewGray(box)
	default:
		return nil, fmt.Errorf("expected one of the formats %v, got %s", usable, f.Pixel)
	}
	if c.format.Stride == 0 {
		c.format.Stride = line
	}
	if !even || c.format.Stride < line || f.Width < 1 || f.Height < 1 {
		return nil, fmt.Errorf("%s: expected an even size and lines of at least %d octets, got %dx%d and %d", f.Pixel, line, f.Width, f.Height, c.format.Stride)
	}
	return c, nil
}

// octets is how many a whole frame has: behind the last line there need be no more than
// its pixels.
func (c *converter) octets() int {
	f := c.format
	switch f.Pixel {
	case v4l2.NV12:
		return f.Stride*f.Height + f.Stride*(f.Height/2-1) + f.Width
	case v4l2.YU12:
		return f.Stride*f.Height + f.Stride/2*(f.Height/2) + f.Stride/2*(f.Height/2-1) + f.Width/2
	case v4l2.YUYV, v4l2.UYVY:
		return f.Stride*(f.Height-1) + 2*f.Width
	case v4l2.RGB3, v4l2.BGR3:
		return f.Stride*(f.Height-1) + 3*f.Width
	}
	return f.Stride*(f.Height-1) + f.Width
}

// picture makes a picture of a frame. It is a slice of its own.
func (c *converter) picture(data []byte) ([]byte, error) {
	if isJPEG(c.format.Pixel) {
		b, _, err := mjpeg.Clean(make([]byte, 0, min(len(data), mjpeg.MaxFrame)+512), data)
		return b, err
	}
	if need := c.octets(); len(data) < need {
		return nil, fmt.Errorf("%s of %dx%d: %w: expected %d octets, got %d", c.format.Pixel, c.format.Width, c.format.Height, mjpeg.ErrTruncated, need, len(data))
	}
	c.out.b = c.out.b[:0]
	if err := jpeg.Encode(&c.out, c.image(data), &c.options); err != nil {
		return nil, err
	}
	return bytes.Clone(c.out.b), nil
}

// image is what a frame shows.
func (c *converter) image(data []byte) image.Image {
	f := c.format
	switch f.Pixel {
	case v4l2.YUYV:
		c.unpack(data, 0, 1)
	case v4l2.UYVY:
		c.unpack(data, 1, 0)
	case v4l2.NV12:
		c.plane(c.chroma.Y, c.chroma.YStride, data, f.Stride, f.Width, f.Height, &c.luma)
		pairs := data[f.Stride*f.Height:]
		for y := range f.Height / 2 {
			line, cb, cr := pairs[y*f.Stride:], c.chroma.Cb[y*c.chroma.CStride:], c.chroma.Cr[y*c.chroma.CStride:]
			for x := range f.Width / 2 {
				cb[x], cr[x] = c.colour[line[2*x]], c.colour[line[2*x+1]]
			}
		}
	case v4l2.YU12:
		first := f.Stride * f.Height
		second := first + f.Stride/2*(f.Height/2)
		c.plane(c.chroma.Y, c.chroma.YStride, data, f.Stride, f.Width, f.Height, &c.luma)
		c.plane(c.chroma.Cb, c.chroma.CStride, data[first:], f.Stride/2, f.Width/2, f.Height/2, &c.colour)
		c.plane(c.chroma.Cr, c.chroma.CStride, data[second:], f.Stride/2, f.Width/2, f.Height/2, &c.colour)
	case v4l2.RGB3:
		c.colours(data, 0, 2)
		return c.rgba
	case v4l2.BGR3:
		c.colours(data, 2, 0)
		return c.rgba
	default:
		c.plane(c.grey.Pix, c.grey.Stride, data, f.Stride, f.Width, f.Height, &c.luma)
		return c.grey
	}
	return c.chroma
}

// ranges fills the tables: of cameras' formats luminance is of 16 to 235 mostly, and
// chrominance of 16 to 240 (ITU-R BT.601), and a picture that is taken for full range
// would be dull.
func (c *converter) ranges() {
	for i := range 256 {
		c.luma[i], c.colour[i] = byte(i), byte(i)
		if !c.format.Full {
			c.luma[i] = byte(max(0, min(255, ((i-16)*255+109)/219)))
			c.colour[i] = byte(max(0, min(255, 128+((i-128)*255)/224)))
		}
	}
}

// plane copies a plane by a table.
func (c *converter) plane(to []byte, stride int, from []byte, fromStride, w, h int, table *[256]byte) {
	for y := range h {
		out, in := to[y*stride:][:w], from[y*fromStride:][:w]
		for x, v := range in {
			out[x] = table[v]
		}
	}
}

// unpack takes pairs of pixels apart: where luminance begins in them, and chrominance.
func (c *converter) unpack(data []byte, y, uv int) {
	f, m := c.format, c.chroma
	for row := range f.Height {
		line := data[row*f.Stride:]
		luma, cb, cr := m.Y[row*m.YStride:], m.Cb[row*m.CStride:], m.Cr[row*m.CStride:]
		for x := range f.Width / 2 {
			p := line[4*x : 4*x+4 : 4*x+4]
			luma[2*x], luma[2*x+1] = c.luma[p[y]], c.luma[p[y+2]]
			cb[x], cr[x] = c.colour[p[uv]], c.colour[p[uv+2]]
		}
	}
}

// colours puts colours where the encoder wants them: where red is, and blue.
func (c *converter) colours(data []byte, r, b int) {
	f := c.format
	for row := range f.Height {
		line, pix := data[row*f.Stride:], c.rgba.Pix[row*c.rgba.Stride:]
		for x := range f.Width {
			from, to := line[3*x:3*x+3:3*x+3], pix[4*x:4*x+3:4*x+3]
			to[0], to[1], to[2] = from[r], from[1], from[b]
		}
	}
}

var errLarge = errors.New("the picture is larger than may be sent: take a smaller size or a lower quality")

// bounded is a buffer that takes no more than a picture may have.
type bounded struct{ b []byte }

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > mjpeg.MaxFrame {
		return 0, errLarge
	}
	w.b = append(w.b, p...)
	return len(p), nil
}
