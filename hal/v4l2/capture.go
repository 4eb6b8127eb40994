package v4l2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Of frames that the kernel may fill before the first is taken there are one that it
// fills, one that is used, and two for a goroutine that comes late. Where they are so
// large that boards had no memory left, the last do without.
const (
	mostBuffers   = 4
	fewestBuffers = 2
)

// Format is what pictures are made in.
type Format struct {
	Pixel         FourCC
	Width, Height int     // pixels
	Stride        int     // octets from one line to the next, of the first plane; 0 where there are none
	Size          int     // octets that a frame has at most
	Rate          float64 // frames per second that the device was asked for; 0: its own
	Full          bool    // luminance and chrominance fill their octets, as in JPEG; else they are of 16 to 235 and 240
}

// Start has the camera make pictures, as near to what is wanted as it can. It returns
// what they are; the pixel format is the one wanted, or there is an error.
func (d *Device) Start(want Format) (got Format, err error) {
	if d.running {
		return got, errors.New("start: the camera runs already; stop it first")
	}
	if want.Width <= 0 || want.Height <= 0 || want.Width > MaxWidth || want.Height > MaxHeight {
		return got, fmt.Errorf("start: expected a size of 1x1 to %dx%d, got %dx%d", MaxWidth, MaxHeight, want.Width, want.Height)
	}
	f := pixFormat{bufType: typeCapture, width: uint32(want.Width), height: uint32(want.Height), pixelformat: uint32(want.Pixel), field: fieldNone}
	if err := ioctl(d.fd, "VIDIOC_S_FMT", vidiocSFmt, &f); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return got, fmt.Errorf("another program uses the camera: %w", err)
		}
		return got, err
	}
	if FourCC(f.pixelformat) != want.Pixel || f.width == 0 || f.height == 0 || f.width > MaxWidth || f.height > MaxHeight || f.sizeimage == 0 || f.sizeimage > maxBuffer || f.bytesperline > maxBuffer {
		return got, fmt.Errorf("VIDIOC_S_FMT: expected %s of at most %dx%d and %d octets, got %s of %dx%d and %d octets, %d in a line",
			want.Pixel, MaxWidth, MaxHeight, maxBuffer, FourCC(f.pixelformat), f.width, f.height, f.sizeimage, f.bytesperline)
	}
	got = Format{Pixel: want.Pixel, Width: int(f.width), Height: int(f.height), Stride: int(f.bytesperline), Size: int(f.sizeimage)}
	got.Full = f.quantization == quantizationFull || f.quantization == 0 && (f.colorspace == colorspaceJPEG || want.Pixel == GREY)
	if got.Rate, err = d.setRate(want.Rate); err != nil {
		return got, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Stop())
		}
	}()
	d.running = true
	if d.wake < 0 {
		if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			d.wake = -1
			return got, fmt.Errorf("eventfd: %w", err)
		}
	}
	if err := d.mapBuffers(got.Size); err != nil {
		return got, err
	}
	for i := range d.buffers {
		if err := d.queue(i); err != nil {
			return got, err
		}
	}
	kind := int32(typeCapture)
	return got, ioctl(d.fd, "VIDIOC_STREAMON", vidiocStreamon, &kind)
}

// setRate asks for frames per second, where the device can be asked.
func (d *Device) setRate(rate float64) (float64, error) {
	if rate <= 0 || math.IsInf(rate, 0) || math.IsNaN(rate) {
		return 0, nil
	}
	p := streamparm{bufType: typeCapture, timeperframe: fract{1000, uint32(min(rate, 1000) * 1000)}}
	err := ioctl(d.fd, "VIDIOC_S_PARM", vidiocSParm, &p)
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return 0, nil // it has one rate
	case err != nil:
		return 0, err
	case p.capability&parmTimePerFrame == 0:
		return 0, nil
	}
	return p.timeperframe.rate(), nil
}

// mapBuffers has the kernel make buffers for frames of so many octets.
func (d *Device) mapBuffers(size int) error {
	r := requestbuffers{count: uint32(max(fewestBuffers, min(maxBuffers/size, mostBuffers))), bufType: typeCapture, memory: memoryMmap}
	if err := ioctl(d.fd, "VIDIOC_REQBUFS", vidiocReqbufs, &r); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("another program uses the camera: %w", err)
		}
		return err
	}
	if r.count < 1 || r.count > 32 {
		return fmt.Errorf("VIDIOC_REQBUFS: expected 1 to 32 buffers, got %d", r.count)
	}
	for i := range r.count {
		b := buffer{index: i, bufType: typeCapture, memory: memoryMmap}
		if err := ioctl(d.fd, "VIDIOC_QUERYBUF", vidiocQuerybuf, &b); err != nil {
			return err
		}
		if b.length == 0 || b.length > maxBuffer {
			return fmt.Errorf("VIDIOC_QUERYBUF: expected 1 to %d octets, got %d", maxBuffer, b.length)
		}
		m, err := unix.Mmap(d.fd, int64(uint32(b.offset)), int(b.length), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("mmap of a frame buffer: %w", err)
		}
		d.buffers = append(d.buffers, m)
	}
	return nil
}

func (d *Device) queue(i int) error {
	b := buffer{index: uint32(i), bufType: typeCapture, memory: memoryMmap}
	return ioctl(d.fd, "VIDIOC_QBUF", vidiocQbuf, &b)
}

// Frame is what the device has made.
type Frame struct {
	Data     []byte // the kernel's, good until use returns
	Sequence uint32 // numbers that are left out are frames that nobody took in time
	Bad      bool   // the driver says that something of it is missing
}

// Next waits for a frame and hands it to use, after which the kernel has its memory
// back. When ctx ends, its error is returned.
func (d *Device) Next(ctx context.Context, use func(Frame)) error {
	if !d.running {
		return errors.New("frame: the camera does not run; start it first")
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(d.wake, binary.NativeEndian.AppendUint64(nil, 1)) // full: it wakes already
	})
	defer func() {
		if !stop() {
			<-woken // it must not write after Close
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buffer{bufType: typeCapture, memory: memoryMmap}
		err := ioctl(d.fd, "VIDIOC_DQBUF", vidiocDqbuf, &b)
		if errors.Is(err, unix.EAGAIN) {
			if err := d.wait(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if int(b.index) >= len(d.buffers) {
			return fmt.Errorf("VIDIOC_DQBUF: expected a buffer below %d, got %d", len(d.buffers), b.index)
		}
		data := d.buffers[b.index]
		use(Frame{Data: data[:min(int(b.bytesused), len(data))], Sequence: b.sequence, Bad: b.flags&bufFlagError != 0})
		return d.queue(int(b.index))
	}
}

// pollTime bounds a wait: drivers have been seen that forget to say that the device is
// gone, and DQBUF tells.
const pollTime = time.Second

// wait returns when there may be a frame, or somebody wants the wait to end.
func (d *Device) wait() error {
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int(pollTime.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for a frame: %w", err)
	}
	if fds[1].Revents != 0 {
		_, _ = unix.Read(d.wake, make([]byte, 8)) // whoever woke is found by ctx
	}
	if fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		// Of an unplugged device that is all that is told: ask it something.
		var c capability
		if err := ioctl(d.fd, "VIDIOC_QUERYCAP", vidiocQuerycap, &c); err != nil {
			return err
		}
		return errors.New("wait for a frame: the device has stopped by itself")
	}
	return nil
}

// Stop ends the pictures; the device stays open.
func (d *Device) Stop() error {
	if !d.running {
		return nil
	}
	d.running = false
	kind := int32(typeCapture)
	err := ioctl(d.fd, "VIDIOC_STREAMOFF", vidiocStreamoff, &kind)
	for _, b := range d.buffers {
		err = errors.Join(err, unix.Munmap(b))
	}
	d.buffers = nil
	return errors.Join(err, ioctl(d.fd, "VIDIOC_REQBUFS", vidiocReqbufs, &requestbuffers{bufType: typeCapture, memory: memoryMmap}))
}
