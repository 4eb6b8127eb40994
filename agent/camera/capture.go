package camera

import (
	"context"
	"errors"
	"fmt"
	"time"

	"halo.internal/hal/v4l2"
	"halo.internal/model"
	"halo.internal/model/mjpeg"
)

// longestAgain is the longest time between two attempts at a camera that fails.
const longestAgain = 30 * time.Second

// steady is how long a camera has to work before its next failure is a new one.
const steady = time.Minute

// run makes pictures until ctx ends or the camera is gone. One that fails is tried
// again, ever more seldom, while somebody waits for it.
func (u *unit) run(ctx context.Context) {
	wait := u.service.Again
	told := false
	for {
		inner, cancel := context.WithCancelCause(ctx)
		u.mu.Lock()
		u.anew = func() { cancel(errAnew) }
		settings := u.settings
		u.mu.Unlock()
		began := time.Now()
		worked, err := u.film(inner, settings)
		anew := errors.Is(context.Cause(inner), errAnew)
		cancel(nil)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, v4l2.ErrGone) {
			u.mu.Lock()
			u.vanished = true
			u.mu.Unlock()
			select { // the kernel's event may come later, or not be heard
			case u.service.gone <- struct{}{}:
			default: // it is going to look
			}
			return
		}
		if worked && time.Since(began) >= steady {
			wait, told = u.service.Again, false
		}
		if anew {
			continue
		}
		u.mu.Lock()
		u.capture, u.failure = nil, err
		u.mu.Unlock()
		if !told {
			told = true
			u.service.tell(EventFailed, model.Warning, u, "a camera makes no pictures: "+u.name, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longestAgain)
	}
}

// film makes pictures until ctx ends or something fails.
func (u *unit) film(ctx context.Context, settings model.CameraSettings) (worked bool, err error) {
	d, err := u.service.Devices.Open(u.info.Path)
	if err != nil {
		return false, err
	}
	defer func() {
		if e := d.Close(); e != nil && err == nil {
			err = e
		}
	}()
	want, err := choose(u.modes, settings)
	if err != nil {
		return false, err
	}
	got, err := d.Start(want)
	if err != nil {
		return false, err
	}
	c, err := newConverter(got, settings.Quality)
	if err != nil {
		return false, err
	}
	if err := u.control(d, settings); err != nil {
		return false, err
	}
	u.mu.Lock()
	u.pace = u.pace.As(settings.FPS, settings.KbitS)
	p := u.pace
	u.capture = &model.CameraCapture{Format: got.Pixel.String(), Width: got.Width, Height: got.Height, FPS: got.Rate, Since: u.service.Now().UTC()}
	u.mu.Unlock()
	var last uint32
	first := true
	heard := time.Now()
	for {
		wait, cancel := context.WithTimeout(ctx, u.service.Stall)
		err := d.Next(wait, func(f v4l2.Frame) {
			if !first && f.Sequence-last > 1 && f.Sequence-last < 1<<31 {
				u.count(func(c *model.CameraCounters) { c.Missed += uint64(f.Sequence - last - 1) })
			}
			first, last = false, f.Sequence
			if u.take(f, c, p) {
				worked, heard = true, time.Now()
			}
		})
		cancel()
		if ctx.Err() != nil {
			return worked, ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) || err == nil && time.Since(heard) > u.service.Stall {
			return worked, fmt.Errorf("no picture came within %s", u.service.Stall)
		}
		if err != nil {
			return worked, err
		}
	}
}

// control sets what settings say, and the rest as the camera has it: another program, or
// other settings, may have changed it.
func (u *unit) control(d Source, settings model.CameraSettings) error {
	list, err := d.Controls()
	if errors.Is(err, v4l2.ErrGone) {
		return err
	}
	if err != nil {
		u.service.Log.Warn("not all controls of a camera can be set", "camera", u.id, "err", err)
	}
	for _, c := range list {
		v, set := settings.Controls[c.Name]
		if !set {
			v = c.Default
		}
		if v == c.Value || c.Inactive && !set {
			continue
		}
		// What cannot be set is no reason to show nothing.
		if err := d.Set(c, v); err != nil {
			if errors.Is(err, v4l2.ErrGone) {
				return err
			}
			u.service.Log.Warn("a camera does not take a setting", "camera", u.id, "err", err)
		}
	}
	return nil
}

func (u *unit) count(f func(*model.CameraCounters)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.counters)
}

// take makes a picture of a frame, where somebody wants it, and tells whether the camera
// works.
func (u *unit) take(f v4l2.Frame, c *converter, p *mjpeg.Pace) (ok bool) {
	now := time.Now()
	if f.Bad {
		u.count(func(c *model.CameraCounters) { c.Truncated++ })
		return false
	}
	u.mu.Lock()
	looking := len(u.viewers)
	wanted := looking > 0 && p.Want(now)
	if !wanted {
		u.failure = nil // it sends frames again, of which no pictures are made
	}
	u.mu.Unlock()
	if !wanted {
		u.count(func(c *model.CameraCounters) { c.Skipped++ })
		return true
	}
	picture, err := c.picture(f.Data)
	if err != nil {
		u.count(func(c *model.CameraCounters) {
			if errors.Is(err, mjpeg.ErrTruncated) {
				c.Truncated++
			} else {
				c.Invalid++
			}
		})
		return false
	}
	p.Spend(now, len(picture)*looking)
	u.show(picture)
	return true
}

// show hands a picture to all viewers; of who has not taken the one before, that one is
// lost.
func (u *unit) show(picture []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failure = nil
	u.counters.Frames++
	u.counters.Bytes += uint64(len(picture))
	for v := range u.viewers {
		select {
		case v.frames <- picture:
			continue
		default:
		}
		u.counters.Slow++
		select {
		case <-v.frames:
		default: // just now it was taken
		}
		v.frames <- picture // nobody else puts any in: there is room
	}
}
