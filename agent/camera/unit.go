package camera

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"halo.internal/hal/v4l2"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
)

// maxViewers of one camera at its node, which are the gateway and who looks here.
const maxViewers = 8

// unit is one camera.
type unit struct {
	service  *Service
	id, name string
	info     v4l2.Info
	modes    []v4l2.Mode
	controls []v4l2.Control

	mu       sync.Mutex // guards what follows
	settings model.CameraSettings
	viewers  map[*viewer]bool
	held     time.Time     // it runs until then even without viewers
	stop     func()        // ends the capture; nil: there is none
	anew     func()        // has the capture begin anew
	ended    chan struct{} // closed by the capture that stop ends
	idle     *time.Timer
	gone     string // why there is no camera any more; empty: there is
	vanished bool   // the kernel has said so, while it ran
	capture  *model.CameraCapture
	failure  error       // of the capture, until it works
	pace     *mjpeg.Pace // of the latest capture; nil: there was none
	counters model.CameraCounters
}

// viewer is somebody who looks: of the frames that come, the latest waits.
type viewer struct {
	frames chan []byte
	end    chan struct{} // closed when no more come
	why    string        // then
}

// join adds a viewer, for whom the camera makes pictures.
func (u *unit) join() (*viewer, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.gone != "":
		return nil, apitype.Refuse(http.StatusNotFound, "", "%s", u.gone)
	case !u.settings.Enabled:
		return nil, apitype.Refuse(http.StatusConflict, "", "camera %s is disabled by its settings", u.id)
	case len(u.viewers) >= maxViewers:
		return nil, apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "camera %s has %d viewers, which is the most", u.id, maxViewers).After(5 * time.Second)
	}
	v := &viewer{frames: make(chan []byte, 1), end: make(chan struct{})}
	u.viewers[v] = true
	u.begin()
	return v, nil
}

// part takes a viewer away.
func (u *unit) part(v *viewer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.viewers, v)
	u.rest()
}

// begin starts the capture where there is none; mu is held.
func (u *unit) begin() {
	if u.idle != nil {
		u.idle.Stop()
		u.idle = nil
	}
	if u.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) // stop ends it
	before, ended := u.ended, make(chan struct{})
	u.stop, u.ended = cancel, ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before // the device is open there still
		}
		u.run(ctx)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.capture = nil
	}()
}

// rest ends the capture some time behind its last viewer; mu is held.
func (u *unit) rest() {
	if len(u.viewers) > 0 || u.stop == nil || u.idle != nil {
		return
	}
	u.idle = time.AfterFunc(max(u.service.Linger, time.Until(u.held)), func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.idle = nil
		if time.Now().Before(u.held) {
			u.rest()
			return
		}
		if len(u.viewers) == 0 {
			u.halt()
		}
	})
}

// halt ends the capture; mu is held. The device is free once ended is closed.
func (u *unit) halt() {
	if u.stop != nil {
		u.stop()
	}
	u.stop, u.anew, u.capture, u.failure = nil, nil, nil, nil
}

// dismiss ends the viewers; mu is held.
func (u *unit) dismiss(why string) {
	for v := range u.viewers {
		v.why = why
		close(v.end)
		delete(u.viewers, v)
	}
	u.held = time.Time{}
}

// leave ends all, waits for it, and tells whether pictures were being made.
func (u *unit) leave(why string) (ran bool) {
	u.mu.Lock()
	ran, ended := u.stop != nil, u.ended
	u.gone = why
	u.dismiss(why)
	u.halt()
	if u.idle != nil {
		u.idle.Stop()
		u.idle = nil
	}
	u.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return ran
}

func (u *unit) lost() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.vanished
}

// start has the camera run for some time without viewers.
func (u *unit) start(hold time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone != "" || !u.settings.Enabled {
		return apitype.Refuse(http.StatusConflict, "", "camera %s is disabled by its settings, or gone", u.id)
	}
	u.held = time.Now().Add(hold)
	u.begin()
	u.rest()
	return nil
}

// end ends viewers and capture.
func (u *unit) end(why string) {
	u.mu.Lock()
	ended := u.ended
	u.dismiss(why)
	u.halt()
	u.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// fits tells whether the camera can be as settings have it.
func (u *unit) fits(s model.CameraSettings) error {
	if err := s.Check(); err != nil {
		return err
	}
	for name, v := range s.Controls {
		i := slices.IndexFunc(u.controls, func(c v4l2.Control) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("controls: expected one of the %d that the camera has, got %.64q", len(u.controls), name)
		}
		if err := u.controls[i].Check(v); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) set(s model.CameraSettings) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.settings.Equal(s) {
		return
	}
	u.settings = s
	if !s.Enabled {
		u.dismiss("the camera was disabled")
		u.halt()
		return
	}
	if u.anew != nil {
		u.anew()
	}
}

func (u *unit) status() model.Camera {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := model.Camera{
		CameraBrief: model.CameraBrief{ID: u.id, Name: u.name}, Driver: clean(u.info.Driver), Product: clean(u.info.Product),
		State: model.CameraIdle, Viewers: len(u.viewers), Counters: u.counters, Settings: u.settings, Modes: modesOf(u.modes), Controls: controlsOf(u.controls),
	}
	switch {
	case !u.settings.Enabled:
		c.State = model.CameraDisabled
	case u.stop != nil && u.failure != nil:
		c.State, c.Detail = model.CameraFailed, u.failure.Error()
	case u.stop != nil:
		c.State = model.CameraRunning
	}
	if u.capture != nil {
		capture := *u.capture
		c.Capture = &capture
	}
	return c
}

func modesOf(list []v4l2.Mode) []model.CameraMode {
	modes := []model.CameraMode{}
	add := func(usable bool) {
		for _, m := range list {
			if (rank(m.Pixel) >= 0) != usable || len(modes) == model.MaxCameraModes {
				continue
			}
			mode := model.CameraMode{Format: m.Pixel.String(), Text: clean(m.Text), Usable: usable, Sizes: []model.CameraSize{}}
			for _, s := range m.Sizes[:min(len(m.Sizes), model.MaxCameraSizes)] {
				mode.Sizes = append(mode.Sizes, model.CameraSize{Width: s.Width, Height: s.Height, FPS: append([]float64{}, s.Rates...)})
			}
			modes = append(modes, mode)
		}
	}
	add(true) // where there are too many, those that are of no use go
	add(false)
	return modes
}

func controlsOf(list []v4l2.Control) []model.CameraControl {
	controls := []model.CameraControl{}
	for _, c := range list[:min(len(list), model.MaxCameraControls)] {
		m := model.CameraControl{Name: c.Name, Kind: c.Kind, Min: c.Min, Max: c.Max, Step: c.Step, Default: c.Default, Inactive: c.Inactive}
		for v, text := range c.Menu {
			if m.Menu == nil {
				m.Menu = map[string]int64{}
			}
			m.Menu[clean(text)] = v
		}
		controls = append(controls, m)
	}
	return controls
}

var errAnew = errors.New("the settings have changed")
