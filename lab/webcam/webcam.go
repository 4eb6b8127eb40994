package webcam

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"time"
)

// Numbers of the device.
const (
	VendorID  = 0x1209 // pid.codes, and there what everybody may use to try
	ProductID = 0x0001
	Name      = "HALO played camera"

	unitProcessing = 2
	endpointIn     = 0x81
	packet         = 512
	payload        = 32 * packet // uvcvideo asks for as much at once
	payloadHead    = 2
)

// Of the payload's head, UVC 1.1, 2.4.3.3.
const (
	headFID = 1 << 0 // another frame
	headEOF = 1 << 1
	headERR = 1 << 6
	headEOH = 1 << 7
)

// Size of pictures that the camera offers, with its interval in units of 100 ns.
type Size struct {
	Width, Height uint16
	Interval      uint32
}

// Options are what a camera is.
type Options struct {
	Port  int // of the kernel's: 0 to 7
	Sizes []Size
	// Frame makes frame n, which counts from 0 since it was plugged in, in one of Sizes.
	// What it returns is sent as it is. With bad, the camera says that it is.
	Frame func(n int, s Size) (jpeg []byte, bad bool)
}

// Camera is one that is plugged in.
type Camera struct {
	Options
	link *link
	wg   sync.WaitGroup
	err  error // of the link, once wg is done

	mu         sync.Mutex // guards what follows
	probe      []byte     // what was agreed on last
	streaming  bool
	brightness int16
	sent       int
	cut        int // octets of the next frame after which it is unplugged; 0: it is not
	ended      chan struct{}
}

// Plug plugs a camera in.
func Plug(o Options) (*Camera, error) {
	l, err := plug(o.Port)
	if err != nil {
		return nil, err
	}
	c := &Camera{Options: o, link: l, brightness: 128, ended: make(chan struct{})}
	c.probe = c.agreed(nil)
	c.wg.Go(func() {
		c.err = l.serve(c.control)
		close(c.ended)
	})
	c.wg.Go(c.play)
	return c, nil
}

// Unplug takes the camera away; of whatever it was sending no more comes.
func (c *Camera) Unplug() error {
	err := c.link.conn.Close()
	c.wg.Wait()
	if errors.Is(err, os.ErrClosed) {
		err = nil // in the middle of a frame
	}
	return errors.Join(err, c.err)
}

// UnplugWithin has the camera go away by itself after so many octets of its next frame.
func (c *Camera) UnplugWithin(octets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = octets
}

// Brightness is what was set last.
func (c *Camera) Brightness() int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.brightness
}

// Sent is how many frames were sent whole.
func (c *Camera) Sent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

// Requests of USB 2.0, table 9-4, and of UVC 1.1, table A-8.
const (
	getStatus        = 0
	clearFeature     = 1
	getDescriptor    = 6
	getConfiguration = 8
	setConfiguration = 9
	getInterface     = 10
	setInterface     = 11

	setCur  = 0x01
	getCur  = 0x81
	getMin  = 0x82
	getMax  = 0x83
	getRes  = 0x84
	getLen  = 0x85
	getInfo = 0x86
	getDef  = 0x87
)

const (
	probeSize     = 34 // UVC 1.1
	probeControl  = 1
	commitControl = 2
	brightness    = 2 // PU_BRIGHTNESS_CONTROL
)

// control answers what comes to endpoint 0.
func (c *Camera) control(s [8]byte, out []byte) (in []byte, ok bool) {
	kind, request := s[0], s[1]
	value, index := binary.LittleEndian.Uint16(s[2:]), binary.LittleEndian.Uint16(s[4:])
	if kind&0x60 == 0 { // a standard request
		switch request {
		case getDescriptor:
			d := c.descriptor(byte(value>>8), byte(value))
			return d, d != nil
		case getStatus:
			return []byte{0, 0}, true
		case getConfiguration:
			return []byte{1}, true
		case getInterface:
			return []byte{0}, true
		case clearFeature, setConfiguration, setInterface:
			if request != setConfiguration {
				c.halt()
			}
			return nil, true
		}
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	selector := byte(value >> 8)
	if byte(index) == 1 && byte(index>>8) == 0 && (selector == probeControl || selector == commitControl) {
		return c.negotiate(request, selector, out)
	}
	if byte(index) == 0 && byte(index>>8) == unitProcessing && selector == brightness {
		return c.bright(request, out)
	}
	return nil, false
}

// halt ends the stream: uvcvideo clears the endpoint when it stops.
func (c *Camera) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streaming = false
}

func (c *Camera) negotiate(request, selector byte, out []byte) ([]byte, bool) {
	switch request {
	case setCur:
		c.probe = c.agreed(out)
		c.streaming = selector == commitControl
		return nil, true
	case getLen:
		return []byte{probeSize, 0}, true
	case getInfo:
		return []byte{3}, true
	case getCur, getMin, getMax, getDef, getRes:
		return slices.Clone(c.probe), true
	}
	return nil, false
}

// agreed is what the camera makes of what it is asked for; nil: of its own.
func (c *Camera) agreed(asked []byte) []byte {
	b := make([]byte, probeSize)
	copy(b, asked)
	frame := max(1, min(b[3], byte(len(c.Sizes))))
	s := c.Sizes[frame-1]
	b[2], b[3] = 1, frame
	binary.LittleEndian.PutUint32(b[4:], s.Interval)
	binary.LittleEndian.PutUint32(b[18:], uint32(s.Width)*uint32(s.Height)*2) // dwMaxVideoFrameSize
	binary.LittleEndian.PutUint32(b[22:], payload)
	return b
}

func (c *Camera) bright(request byte, out []byte) ([]byte, bool) {
	number := func(v int16) ([]byte, bool) { return binary.LittleEndian.AppendUint16(nil, uint16(v)), true }
	switch request {
	case setCur:
		if len(out) < 2 {
			return nil, false
		}
		c.brightness = int16(binary.LittleEndian.Uint16(out))
		return nil, true
	case getCur:
		return number(c.brightness)
	case getMin:
		return number(0)
	case getMax:
		return number(255)
	case getRes:
		return number(1)
	case getDef:
		return number(128)
	case getLen:
		return []byte{2, 0}, true
	case getInfo:
		return []byte{3}, true
	}
	return nil, false
}

// play sends frames, as long as the kernel wants them.
func (c *Camera) play() {
	fid := byte(0)
	for n := 0; ; n++ {
		size, ok := c.wanted()
		if !ok {
			return
		}
		jpeg, bad := c.Frame(n, size)
		fid ^= headFID
		if !c.send(jpeg, fid, bad) {
			return
		}
		c.mu.Lock()
		c.sent++
		c.mu.Unlock()
		select {
		case <-c.ended:
			return
		case <-time.After(time.Duration(size.Interval) * 100):
		}
	}
}

// wanted waits until the kernel streams.
func (c *Camera) wanted() (Size, bool) {
	for {
		c.mu.Lock()
		size, on := c.Sizes[c.probe[3]-1], c.streaming
		c.mu.Unlock()
		if on {
			return size, true
		}
		select {
		case <-c.ended:
			return Size{}, false
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// send sends one frame in payloads.
func (c *Camera) send(frame []byte, fid byte, bad bool) bool {
	done := 0
	for {
		u, ok := c.link.next()
		if !ok {
			c.mu.Lock()
			on := c.streaming
			c.mu.Unlock()
			if !on {
				return true // nobody wants the rest
			}
			select {
			case <-c.ended:
				return false
			case <-c.link.more:
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		n := min(len(frame)-done, min(u.length, payload)-payloadHead)
		head := fid | headEOH
		c.mu.Lock()
		cut := c.cut
		c.mu.Unlock()
		if cut > 0 && done+n >= cut {
			_ = c.link.conn.Close() // that is what is played
			return false
		}
		if bad {
			head |= headERR
		}
		if done+n == len(frame) {
			head |= headEOF
		}
		b := append([]byte{payloadHead, head}, frame[done:done+n]...)
		if err := c.link.answer(retSubmit, u.seqnum, 0, len(b), b); err != nil {
			return false
		}
		if done += n; done == len(frame) {
			return true
		}
	}
}
