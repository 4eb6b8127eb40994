// Package camera serves the pictures of a node's cameras. A camera makes pictures while
// somebody looks, and for some seconds more; all that look have the same ones. A
// setting bounds how many frames a second and how many kbit/s go out, and who is too
// slow for them loses frames without delaying anybody. What a camera sends is checked
// before anybody gets it; one that is unplugged, in whatever moment, is an event.
package camera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/hal/uevent"
	"halo.internal/hal/v4l2"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// Source is a camera that is open: hal/v4l2's Device, or in tests one that is played.
type Source interface {
	Modes() ([]v4l2.Mode, error)
	Controls() ([]v4l2.Control, error)
	Set(v4l2.Control, int64) error
	Start(v4l2.Format) (v4l2.Format, error)
	Next(context.Context, func(v4l2.Frame)) error
	Close() error
}

var _ Source = (*v4l2.Device)(nil)

// Devices are the cameras that there are.
type Devices interface {
	List() ([]v4l2.Info, error)
	Open(path string) (Source, error)
}

// Kernel is the kernel's cameras.
type Kernel struct{}

var _ Devices = Kernel{}

// List implements Devices.
func (Kernel) List() ([]v4l2.Info, error) { return v4l2.List() }

// Open implements Devices.
func (Kernel) Open(path string) (Source, error) {
	d, err := v4l2.Open(path)
	if err != nil {
		return nil, err // no Device in it
	}
	return d, nil
}

// Events of cameras.
const (
	EventFound  = "camera.found"
	EventLost   = "camera.lost"
	EventFailed = "camera.failed"
)

// Config is what New needs.
type Config struct {
	Devices  Devices
	Settings string             // file
	Network  identity.PublicKey // the gateway's, whose passes are good
	Node     string             // canonical ID
	Event    func(kind string, s model.Severity, message string, fields map[string]string) error
	// Now is the time as people have it.
	Now func() time.Time
	Log *slog.Logger

	// Times; 0: the usual ones.
	Linger time.Duration // a camera runs on behind its last viewer
	Stall  time.Duration // without a frame a camera has failed
	Again  time.Duration // until it is tried again, the first time
}

// Usual times.
const (
	linger   = 5 * time.Second
	stall    = 10 * time.Second
	again    = time.Second
	lookSoon = 300 * time.Millisecond // devices come in several pieces
	lookLate = 30 * time.Second       // what comes and goes all the time, or could not be looked at
)

// Events of a node's cameras: so many at once, and then one in so long. A cable that
// comes loose over and over is told of no more often.
const (
	eventBurst = 20
	eventEvery = time.Minute
)

// Service is a node's cameras. Its methods may be called from any goroutine.
type Service struct {
	Config
	looking sync.Mutex    // one look at a time
	gone    chan struct{} // a camera has vanished while it ran
	events  *rate.Limiter
	left    atomic.Int64 // events that were left out since the last one

	mu       sync.Mutex // guards what follows
	ended    bool
	units    []*unit
	settings map[string]model.CameraSettings
}

// New returns the service. Settings that cannot be read are those of the release, and
// the error says so beside it.
func New(c Config) (*Service, error) {
	c.Linger, c.Stall, c.Again = or(c.Linger, linger), or(c.Stall, stall), or(c.Again, again)
	s := &Service{Config: c, gone: make(chan struct{}, 1), events: rate.NewLimiter(rate.Every(eventEvery), eventBurst), settings: map[string]model.CameraSettings{}}
	return s, s.read()
}

func or(d, usual time.Duration) time.Duration {
	if d == 0 {
		return usual
	}
	return d
}

const (
	maxSettings = 64 // cameras, of which most are not plugged in
	maxFile     = 256 << 10
)

func (s *Service) read() error {
	b, err := os.ReadFile(s.Settings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all map[string]model.CameraSettings
	if len(b) > maxFile {
		return fmt.Errorf("%s: expected at most %d octets, got %d", s.Settings, maxFile, len(b))
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("%s: %w", s.Settings, err)
	}
	for id, one := range all {
		if err := one.Check(); err != nil {
			return fmt.Errorf("%s: camera %.64q: %w", s.Settings, id, err)
		}
		if !model.ValidCameraID(id) || len(s.settings) >= maxSettings {
			return fmt.Errorf("%s: expected at most %d cameras by their IDs, got %d and %.64q", s.Settings, maxSettings, len(all), id)
		}
		s.settings[id] = one
	}
	return nil
}

// keep has settings last.
func (s *Service) keep(id string, one model.CameraSettings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]model.CameraSettings, len(s.settings)+1)
	for k, v := range s.settings {
		all[k] = v
	}
	all[id] = one
	for k := range all { // of cameras that are gone some have to make room
		if len(all) <= maxSettings {
			break
		}
		if k != id && !slices.ContainsFunc(s.units, func(u *unit) bool { return u.id == k }) {
			delete(all, k)
		}
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.Settings, b, 0o644); err != nil {
		return err
	}
	s.settings = all
	return nil
}

// Run follows what is plugged in, until ctx ends; then no camera runs any more.
func (s *Service) Run(ctx context.Context) {
	defer s.end()
	came := make(chan struct{}, 1)
	var heard sync.WaitGroup
	heard.Go(func() { s.hear(ctx, came) })
	defer heard.Wait()
	failed := false
	soon := lookSoon
	for {
		err := s.Look()
		if (err != nil) != failed {
			if failed = err != nil; failed {
				s.Log.Warn("not all cameras could be looked at", "err", err)
			}
		}
		var again <-chan time.Time
		if failed {
			again = time.After(lookLate)
		}
		looked := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-again:
			continue
		case <-s.gone:
		case <-came:
		}
		// What comes and goes all the time is looked at ever more seldom.
		if soon = min(2*soon, lookLate); time.Since(looked) > lookLate {
			soon = lookSoon
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(soon):
		}
		select {
		case <-came: // of this same change
		default:
		}
	}
}

// hear tells when a video device came or went.
func (s *Service) hear(ctx context.Context, came chan<- struct{}) {
	l, err := uevent.Listen()
	if err != nil {
		s.Log.Warn("it is not heard when a camera is plugged in: ask for a detection", "err", err)
		return
	}
	defer l.Close() // nobody waits on it
	for ctx.Err() == nil {
		e, err := l.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, uevent.ErrLost), err == nil && e["SUBSYSTEM"] == "video4linux":
			select {
			case came <- struct{}{}:
			default: // it is going to look
			}
		case err != nil:
			select { // a socket that fails at once must not take the processor
			case <-ctx.Done():
			case <-time.After(linger):
			}
		}
	}
}

// end ends all captures.
func (s *Service) end() {
	s.looking.Lock() // what is found by a look that is on its way ends too
	defer s.looking.Unlock()
	s.mu.Lock()
	units := s.units
	s.units, s.ended = nil, true
	s.mu.Unlock()
	var left sync.WaitGroup
	for _, u := range units {
		left.Go(func() { u.leave("the node is stopping") })
	}
	left.Wait()
}

// Look finds out what is plugged in. Of what could not be looked at the error tells.
func (s *Service) Look() error {
	s.looking.Lock()
	defer s.looking.Unlock()
	if s.over() {
		return nil
	}
	list, err := s.Devices.List()
	if err != nil && list == nil {
		return err // that is not to say that there are none
	}
	errs := []error{err}
	list = list[:min(len(list), model.MaxCameras)]
	var ids []string
	var gone []*unit
	there := map[string]v4l2.Info{}
	for _, i := range list {
		id := model.CameraID(i.Bus, ids)
		ids = append(ids, id)
		there[id] = i
	}
	s.mu.Lock()
	known := map[string]bool{}
	s.units = slices.DeleteFunc(s.units, func(u *unit) bool {
		if i, ok := there[u.id]; ok && i == u.info && !u.lost() {
			known[u.id] = true
			return false
		}
		gone = append(gone, u)
		return true
	})
	s.mu.Unlock()
	for _, u := range gone {
		s.away(u)
	}
	// Apart from each other: one that hangs has the kernel wait for seconds.
	failed := make([]error, len(ids))
	var asked sync.WaitGroup
	for i, id := range ids {
		if !known[id] {
			asked.Go(func() { failed[i] = s.find(id, there[id]) })
		}
	}
	asked.Wait()
	return errors.Join(append(errs, failed...)...)
}

func (s *Service) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// away takes leave of a camera that is gone.
func (s *Service) away(u *unit) {
	running := u.leave("the camera was unplugged")
	severity, text := model.Info, "a camera is gone: "+u.name
	if running {
		severity, text = model.Warning, "a camera is gone, of which pictures were being made: "+u.name
	}
	s.tell(EventLost, severity, u, text, nil)
}

func (s *Service) tell(kind string, severity model.Severity, u *unit, text string, cause error) {
	if !s.events.Allow() {
		s.left.Add(1)
		return
	}
	fields := map[string]string{"camera": u.id, "name": u.name}
	if cause != nil {
		fields["error"] = cause.Error()
	}
	if n := s.left.Swap(0); n > 0 {
		fields["left_out"] = strconv.FormatInt(n, 10)
	}
	if err := s.Event(kind, severity, text, fields); err != nil {
		s.Log.Warn("event is lost", "err", err)
	}
}

// find asks a camera what it is, and takes it in.
func (s *Service) find(id string, i v4l2.Info) error {
	d, err := s.Devices.Open(i.Path)
	if err != nil {
		return fmt.Errorf("camera %s: %w", id, err)
	}
	defer d.Close() // nothing was changed
	modes, err := d.Modes()
	if err != nil {
		return fmt.Errorf("camera %s: %w", id, err)
	}
	controls, err := d.Controls()
	if errors.Is(err, v4l2.ErrGone) {
		return fmt.Errorf("camera %s: %w", id, err)
	}
	if err != nil {
		s.Log.Warn("not all controls of a camera are known", "camera", id, "err", err)
	}
	name := clean(i.Card)
	if name == "" {
		name = id
	}
	u := &unit{service: s, id: id, name: name, info: i, modes: modes, controls: controls, viewers: map[*viewer]bool{}, settings: model.DefaultCameraSettings()}
	s.mu.Lock()
	if set, ok := s.settings[id]; ok {
		u.settings = set
	}
	s.units = append(s.units, u)
	slices.SortFunc(s.units, func(a, b *unit) int { return strings.Compare(a.id, b.id) })
	s.mu.Unlock()
	s.tell(EventFound, model.Info, u, "a camera is there: "+u.name, nil)
	return nil
}

// clean makes text of what a device calls itself.
func clean(name string) string {
	b := []byte(name)
	for k, c := range b {
		if c < ' ' || c > '~' {
			b[k] = '?'
		}
	}
	return string(b[:min(len(b), 64)])
}

// Briefs names the cameras, for the node's status.
func (s *Service) Briefs() (list []model.CameraBrief) {
	for _, u := range s.all() {
		list = append(list, model.CameraBrief{ID: u.id, Name: u.name})
	}
	return list
}

func (s *Service) all() []*unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.units)
}

// List tells of all cameras.
func (s *Service) List() []model.Camera {
	list := []model.Camera{}
	for _, u := range s.all() {
		list = append(list, u.status())
	}
	return list
}

// camera finds one.
func (s *Service) camera(id string) (*unit, error) {
	for _, u := range s.all() {
		if u.id == id {
			return u, nil
		}
	}
	return nil, apitype.Refuse(http.StatusNotFound, "", "there is no camera %.64q; expected one of %d that are plugged in", id, len(s.all()))
}

// Set changes a camera's settings, which hold at once.
func (s *Service) Set(id string, one model.CameraSettings) (model.Camera, error) {
	u, err := s.camera(id)
	if err != nil {
		return model.Camera{}, err
	}
	if err := u.fits(one); err != nil {
		return model.Camera{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	if err := s.keep(id, one); err != nil {
		return model.Camera{}, fmt.Errorf("settings of camera %s are not kept: %w", id, err)
	}
	u.set(one)
	return u.status(), nil
}
