// Package v4l2 is the kernel's interface for cameras, Video4Linux2: which there
// are, what they can, and their pictures, by buffers that the kernel shares. It
// does without libv4l and so without what that converts: frames are as the device
// makes them, and nothing of what a device says is believed beyond its bounds.
//
// A Device is for one goroutine at a time.
package v4l2

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone is wrapped by errors of a device that was unplugged.
	ErrGone = errors.New("the camera is gone")
	// ErrNoCamera is wrapped where a video device is something else.
	ErrNoCamera = errors.New("not a camera")
)

// FourCC is a pixel format, by four characters in the order of their octets.
type FourCC uint32

// Formats that package camera can make pictures of.
const (
	MJPG FourCC = 'M' | 'J'<<8 | 'P'<<16 | 'G'<<24 // JPEG frames, perhaps without Huffman tables
	JPEG FourCC = 'J' | 'P'<<8 | 'E'<<16 | 'G'<<24
	YUYV FourCC = 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24 // 4:2:2, packed: Y0 Cb Y1 Cr
	UYVY FourCC = 'U' | 'Y'<<8 | 'V'<<16 | 'Y'<<24 // Cb Y0 Cr Y1
	NV12 FourCC = 'N' | 'V'<<8 | '1'<<16 | '2'<<24 // 4:2:0: a plane of Y, one of Cb Cr pairs
	YU12 FourCC = 'Y' | 'U'<<8 | '1'<<16 | '2'<<24 // 4:2:0: planes of Y, Cb, Cr
	RGB3 FourCC = 'R' | 'G'<<8 | 'B'<<16 | '3'<<24 // 24 bits: R G B
	BGR3 FourCC = 'B' | 'G'<<8 | 'R'<<16 | '3'<<24
	GREY FourCC = 'G' | 'R'<<8 | 'E'<<16 | 'Y'<<24 // 8 bits
)

// String returns the four characters, those that cannot be printed as dots.
func (f FourCC) String() string {
	b := []byte{byte(f), byte(f >> 8), byte(f >> 16), byte(f >> 24)}
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return strings.TrimRight(string(b), " ")
}

// Bounds of what a device is believed.
const (
	MaxWidth    = 4096 // pixels
	MaxHeight   = 4096
	maxFormats  = 128
	maxSizes    = 64 // of a format
	maxRates    = 32 // of a size
	maxControls = 64
	maxMenu     = 32
	maxBuffer   = 32 << 20      // octets: a picture of the largest size, with two for each pixel
	maxBuffers  = 2 * maxBuffer // of all of a device
)

// Info is what a camera says of itself, and where it is.
type Info struct {
	Path    string // of the device node
	Node    string // its name, such as video0
	Driver  string // of the kernel
	Card    string // its name for people
	Bus     string // where it is plugged in; another camera there has the same
	Product string // of USB: vendor and product, such as 046d:0825
	Index   int    // of this node among those of its hardware
}

// Class is the kernel's directory of video devices.
const Class = "/sys/class/video4linux"

// List returns the cameras that can be opened, in the order of their nodes, and of
// what could not be looked at why not. Other video devices are left out.
func List() (list []Info, err error) { return listIn(Class, "/dev") }

func listIn(class, dev string) (list []Info, err error) {
	entries, err := os.ReadDir(class)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no driver was loaded yet
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "video") {
			continue // radio0, v4l-subdev0
		}
		d, err := Open(filepath.Join(dev, e.Name()))
		if errors.Is(err, ErrNoCamera) || errors.Is(err, ErrGone) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		i := d.Info()
		_ = d.Close() // nothing was changed
		i.describe(filepath.Join(class, e.Name()))
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Info) int { return nodeNumber(a.Node) - nodeNumber(b.Node) })
	return list, errors.Join(errs...)
}

func nodeNumber(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "video"))
	if err != nil {
		return math.MaxInt32
	}
	return n
}

// describe adds what sysfs knows.
func (i *Info) describe(dir string) {
	read := func(name string) string {
		b, err := os.ReadFile(dir + "/" + name) // not Join: what is above a link's target is meant
		if err != nil {
			return "" // not every device has it
		}
		return strings.TrimSpace(string(b[:min(len(b), 64)]))
	}
	i.Index, _ = strconv.Atoi(read("index")) // 0 where there is none
	// The device is an interface of a USB device.
	if vendor, product := read("device/../idVendor"), read("device/../idProduct"); vendor != "" {
		i.Product = vendor + ":" + product
	}
}

// Device is an open camera.
type Device struct {
	fd      int
	wake    int // an eventfd that ends a wait
	info    Info
	buffers [][]byte
	running bool
}

// Open opens a camera by the path of its node.
func Open(path string) (*Device, error) {
	// Not by package os: its poller would ask the device for pictures as soon as it is
	// open, and some drivers begin to make them then.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s: %w", path, ErrGone)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Device{fd: fd, wake: -1, info: Info{Path: path, Node: filepath.Base(path)}}
	if err := d.query(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func (d *Device) query() error {
	var c capability
	if err := ioctl(d.fd, "VIDIOC_QUERYCAP", vidiocQuerycap, &c); err != nil {
		if errors.Is(err, unix.ENOTTY) {
			return fmt.Errorf("%w: %w", ErrNoCamera, err)
		}
		return err
	}
	caps := c.capabilities
	if caps&capDeviceCaps != 0 {
		caps = c.deviceCaps
	}
	if caps&capVideoCapture == 0 || caps&capStreaming == 0 {
		return fmt.Errorf("%w: expected one that captures and streams, got the abilities %#x", ErrNoCamera, caps)
	}
	d.info.Driver, d.info.Card, d.info.Bus = text(c.driver[:]), text(c.card[:]), text(c.busInfo[:])
	return nil
}

// Info returns what the camera says of itself.
func (d *Device) Info() Info { return d.info }

// Close stops what runs and closes the device.
func (d *Device) Close() error {
	if d.fd < 0 {
		return nil
	}
	err := d.Stop()
	if errors.Is(err, ErrGone) {
		err = nil // there is nothing left to stop
	}
	if d.wake >= 0 {
		err = errors.Join(err, unix.Close(d.wake))
	}
	err = errors.Join(err, unix.Close(d.fd))
	d.fd, d.wake = -1, -1
	return err
}

// Mode is a pixel format with the sizes that it comes in.
type Mode struct {
	Pixel FourCC
	Text  string // the driver's words
	Sizes []Size
}

// Size of pictures, in pixels, with the frames per second that it can come at, highest
// first. Of a device that takes any size up to a bound there are some usual ones.
type Size struct {
	Width, Height int
	Rates         []float64
}

// Modes returns what the camera can.
func (d *Device) Modes() (list []Mode, err error) {
	for i := range uint32(maxFormats) {
		f := fmtdesc{index: i, bufType: typeCapture}
		if err := ioctl(d.fd, "VIDIOC_ENUM_FMT", vidiocEnumFmt, &f); errors.Is(err, unix.EINVAL) {
			break // that is the kernel's end of a list
		} else if err != nil {
			return nil, err
		}
		m := Mode{Pixel: FourCC(f.pixelformat), Text: text(f.description[:])}
		if m.Sizes, err = d.sizes(f.pixelformat); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// usual sizes are those that are tried of a device that takes any.
var usual = [][2]uint32{{160, 120}, {320, 180}, {320, 240}, {640, 360}, {640, 480}, {800, 600}, {1024, 768}, {1280, 720}, {1280, 960}, {1920, 1080}}

func (d *Device) sizes(pixel uint32) (list []Size, err error) {
	add := func(w, h uint32) error {
		if w == 0 || h == 0 || w > MaxWidth || h > MaxHeight {
			return nil // out of bounds: not offered
		}
		rates, err := d.rates(pixel, w, h)
		list = append(list, Size{Width: int(w), Height: int(h), Rates: rates})
		return err
	}
	for i := range uint32(maxSizes) {
		s := frmsizeenum{index: i, pixelformat: pixel}
		err := ioctl(d.fd, "VIDIOC_ENUM_FRAMESIZES", vidiocEnumFramesizes, &s)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
			return list, nil
		case err != nil:
			return nil, err
		case s.kind == discrete:
			if err := add(s.size[0], s.size[1]); err != nil {
				return nil, err
			}
			continue
		}
		for _, u := range usual {
			if fits(u[0], s.size[0], s.size[1], s.size[2]) && fits(u[1], s.size[3], s.size[4], s.size[5]) {
				if err := add(u[0], u[1]); err != nil {
					return nil, err
				}
			}
		}
		return list, nil
	}
	return list, nil
}

// fits tells whether a range of that step has v.
func fits(v, low, high, step uint32) bool {
	return v >= low && v <= high && (step <= 1 || (v-low)%step == 0)
}

func (d *Device) rates(pixel, w, h uint32) (list []float64, err error) {
	for i := range uint32(maxRates) {
		v := frmivalenum{index: i, pixelformat: pixel, width: w, height: h}
		err := ioctl(d.fd, "VIDIOC_ENUM_FRAMEINTERVALS", vidiocEnumFrameintervals, &v)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
			return ordered(list), nil
		case err != nil:
			return nil, err
		case v.kind == discrete:
			list = append(list, v.interval[0].rate())
			continue
		}
		return ordered([]float64{v.interval[0].rate(), v.interval[1].rate()}), nil // the fastest and the slowest
	}
	return ordered(list), nil
}

// rate is the frames in a second; 0 for what is no time.
func (f fract) rate() float64 {
	if f.numerator == 0 {
		return 0
	}
	return math.Round(float64(f.denominator)/float64(f.numerator)*1000) / 1000
}

func ordered(list []float64) []float64 {
	list = slices.DeleteFunc(list, func(r float64) bool { return r <= 0 || r > 1000 })
	slices.Sort(list)
	list = slices.Compact(list)
	slices.Reverse(list)
	return list
}
