package camera

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/hal/v4l2"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/mjpeg"
)

const patience = 30 * time.Second // reached by a failure alone

// played are cameras that are played behind the interface that the kernel's are behind.
type played struct {
	mu      sync.Mutex
	list    []v4l2.Info
	format  v4l2.FourCC
	frames  chan []byte // for who films; nil: one picture again and again
	picture []byte
	every   time.Duration
	gone    chan struct{} // closed when it is unplugged
	opened  int           // at present
	most    int           // at once
	filmed  int           // times
	started []v4l2.Format
	set     map[string]int64
	fails   error         // of Start
	hang    chan struct{} // until it is closed, /dev/video0 does not say what it offers; nil: it does
}

var _ Devices = (*played)(nil)

func newPlayed(t testing.TB) *played {
	return &played{
		list: []v4l2.Info{{Path: "/dev/video0", Node: "video0", Driver: "played", Card: "Played camera", Bus: "usb-0000:01:00.0-1.2"}}, format: v4l2.MJPG,
		picture: sample(t, 64, 48), every: 2 * time.Millisecond, gone: make(chan struct{}), set: map[string]int64{},
	}
}

func sample(t testing.TB, w, h int) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = byte(i * 7)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *played) List() ([]v4l2.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list), nil
}

func (p *played) Open(path string) (Source, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		return nil, v4l2.ErrGone
	}
	p.opened++
	p.most = max(p.most, p.opened)
	s := &playedSource{p: p}
	if path == "/dev/video0" {
		s.hang = p.hang
	}
	return s, nil
}

// feed has frames come until stop: of a capture's first ones, some come too soon after
// those of the capture before.
func (p *played) feed() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case p.frames <- p.picture:
			case <-end:
				return
			}
			time.Sleep(p.every)
		}
	}()
	return func() { close(end); <-done }
}

// unplug takes the camera away, in whatever moment.
func (p *played) unplug() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = nil
	close(p.gone)
}

func (p *played) state() (opened, most, filmed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened, p.most, p.filmed
}

type playedSource struct {
	p    *played
	seq  uint32
	film bool
	hang chan struct{}
}

func (s *playedSource) Modes() ([]v4l2.Mode, error) {
	if s.hang != nil {
		<-s.hang
	}
	return []v4l2.Mode{{Pixel: s.p.format, Text: "played", Sizes: []v4l2.Size{{Width: 64, Height: 48, Rates: []float64{30, 10}}}}, {Pixel: 1, Text: "of no use"}}, nil
}

func (s *playedSource) Controls() ([]v4l2.Control, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	c := v4l2.Control{Name: "brightness", Kind: "integer", Min: 0, Max: 255, Step: 1, Default: 128, Value: 128}
	if v, ok := s.p.set["brightness"]; ok {
		c.Value = v
	}
	return []v4l2.Control{c}, nil
}

func (s *playedSource) Set(c v4l2.Control, v int64) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.set[c.Name] = v
	return c.Check(v)
}

func (s *playedSource) Start(f v4l2.Format) (v4l2.Format, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.fails != nil {
		return f, s.p.fails
	}
	s.p.filmed++
	s.p.started = append(s.p.started, f)
	s.film = true
	f.Size = 1 << 20
	return f, nil
}

func (s *playedSource) Next(ctx context.Context, use func(v4l2.Frame)) error {
	frame := s.p.picture
	select {
	case <-s.p.gone:
		return fmt.Errorf("VIDIOC_DQBUF: %w", v4l2.ErrGone)
	case <-ctx.Done():
		return ctx.Err()
	case frame = <-s.p.frames:
	case <-after(s.p.frames == nil, s.p.every):
	}
	s.seq++
	use(v4l2.Frame{Data: frame, Sequence: s.seq})
	return nil
}

func after(yes bool, d time.Duration) <-chan time.Time {
	if yes {
		return time.After(d)
	}
	return nil
}

func (s *playedSource) Close() error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.opened--
	return nil
}

// site is a service with played cameras, and who asks it.
type site struct {
	*Service
	t   *testing.T
	url string

	mu     sync.Mutex
	events []string
}

func newSite(t *testing.T, p Devices, change ...func(*Config)) *site {
	t.Helper()
	f := &site{t: t}
	c := Config{
		Devices: p, Settings: filepath.Join(t.TempDir(), "cameras"), Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Linger: 50 * time.Millisecond, Stall: patience, Again: 10 * time.Millisecond,
		Event: func(kind string, s model.Severity, _ string, fields map[string]string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, fmt.Sprintf("%s %s %s", kind, s, fields["camera"]))
			return nil
		},
	}
	for _, ch := range change {
		ch(&c)
	}
	var err error
	if f.Service, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := f.Look(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.Handler())
	f.url = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; server.CloseClientConnections(); server.Close() })
	return f
}

const id = "usb-0000-01-00.0-1.2"

// do asks and returns status and body.
func (f *site) do(method, path string, body any) (int, []byte) {
	f.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, in)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, b
}

func (f *site) camera() (c model.Camera) {
	f.t.Helper()
	status, b := f.do("GET", "/v1/cameras/"+id, nil)
	if err := json.Unmarshal(b, &c); err != nil || status != http.StatusOK {
		f.t.Fatalf("%d %s: %v", status, b, err)
	}
	return c
}

// watch opens a stream.
func (f *site) watch() (*mjpeg.Reader, func()) {
	f.t.Helper()
	resp, err := http.Get(f.url + "/v1/cameras/" + id + "/stream")
	if err != nil {
		f.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != mjpeg.ContentType {
		f.t.Fatalf("got %s, %q", resp.Status, resp.Header)
	}
	return mjpeg.NewReader(resp.Body), func() { resp.Body.Close() }
}

func (f *site) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("it never came: %s", what)
		}
	}
}

func (f *site) fast() {
	f.t.Helper()
	s := model.DefaultCameraSettings()
	s.FPS, s.KbitS = 30, 20000
	if status, b := f.do("PUT", "/v1/cameras/"+id+"/settings", s); status != http.StatusOK {
		f.t.Fatalf("%d %s", status, b)
	}
}

func TestOneCaptureForAll(t *testing.T) {
	p := newPlayed(t)
	f := newSite(t, p)
	f.fast()
	if c := f.camera(); c.State != model.CameraIdle || c.Name != "Played camera" || len(c.Controls) != 1 || len(c.Modes) != 2 || c.Modes[1].Usable {
		t.Errorf("got %+v", c)
	}
	var ends []func()
	for range 3 {
		r, end := f.watch()
		ends = append(ends, end)
		for range 3 {
			b, err := r.Next(nil)
			if err != nil || !bytes.Equal(b, p.picture) {
				t.Fatalf("got %d octets, %v", len(b), err)
			}
		}
	}
	if _, most, filmed := p.state(); most != 1 || filmed != 1 {
		t.Errorf("three viewers: opened %d times at once, started %d times, want once", most, filmed)
	}
	c := f.camera()
	if c.State != model.CameraRunning || c.Viewers != 3 || c.Capture == nil || c.Capture.Format != "MJPG" || c.Capture.FPS != 30 || c.Counters.Frames < 3 {
		t.Errorf("got %+v, %+v", c, c.Capture)
	}
	for _, end := range ends {
		end()
	}
	f.until("the end of the capture", func() bool { opened, _, _ := p.state(); return opened == 0 })
	f.until("an idle camera", func() bool { return f.camera().State == model.CameraIdle })
	if status, b := f.do("GET", "/v1/cameras/"+id+"/snapshot", nil); status != http.StatusOK || !bytes.Equal(b, p.picture) {
		t.Errorf("snapshot: %d, %d octets", status, len(b))
	}
	if status, b := f.do("GET", "/v1/cameras/nothing/snapshot", nil); status != http.StatusNotFound {
		t.Errorf("%d %s", status, b)
	}
}

func TestUnpluggedMidFrame(t *testing.T) {
	p := newPlayed(t)
	f := newSite(t, p)
	f.fast()
	r, end := f.watch()
	defer end()
	if _, err := r.Next(nil); err != nil {
		t.Fatal(err)
	}
	p.unplug()
	for {
		if _, err := r.Next(nil); err != nil {
			break
		}
	}
	f.until("the event", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Equal(f.events, []string{"camera.found info " + id, "camera.lost warning " + id})
	})
	if status, b := f.do("GET", "/v1/cameras", nil); status != http.StatusOK || strings.TrimSpace(string(b)) != "[]" {
		t.Errorf("%d %s", status, b)
	}
	// And back again.
	p.mu.Lock()
	p.list, p.gone = []v4l2.Info{{Path: "/dev/video0", Card: "Played camera", Bus: "usb-0000:01:00.0-1.2"}}, make(chan struct{})
	p.mu.Unlock()
	if status, _ := f.do("POST", "/v1/cameras/detect", nil); status != http.StatusOK {
		t.Errorf("detect: %d", status)
	}
	if c := f.camera(); c.Settings.FPS != 30 {
		t.Errorf("its settings were forgotten: %+v", c.Settings)
	}
}

// Frames that are no pictures are counted, and nobody gets them.
func TestHostileFrames(t *testing.T) {
	p := newPlayed(t)
	p.frames = make(chan []byte)
	f := newSite(t, p)
	f.fast()
	r, end := f.watch()
	defer end()
	want := p.picture
	hostile := [][]byte{want[:len(want)/2], nil, []byte("GET / HTTP/1.1"), bytes.Repeat([]byte{0xff}, 1000), make([]byte, mjpeg.MaxFrame+1), want[:len(want)-2]}
	done := make(chan error, 1)
	go func() {
		for range 2 {
			b, err := r.Next(nil)
			if err == nil && !bytes.Equal(b, want) {
				err = fmt.Errorf("got %d octets that were not checked", len(b))
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	judged := func() uint64 {
		c := f.camera().Counters
		return c.Truncated + c.Invalid
	}
	for _, b := range hostile {
		for before := judged(); judged() == before; time.Sleep(10 * time.Millisecond) {
			p.frames <- b // again, where it came sooner than the frame rate's bound lets it
		}
	}
	for sending := true; sending; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			sending = false
		case p.frames <- append(bytes.Clone(want), "padding"...):
		}
	}
	if c := f.camera().Counters; c.Truncated < 3 || c.Invalid < 3 {
		t.Errorf("got %+v of %d, half of which are cut short", c, len(hostile))
	}
}

// A viewer that reads nothing delays nobody.
func TestSlowViewer(t *testing.T) {
	p := newPlayed(t)
	p.picture = sample(t, 1024, 768) // some 700 KiB in a second
	f := newSite(t, p)
	f.fast()
	_, end := f.watch() // it is never read from
	defer end()
	r, end2 := f.watch()
	defer end2()
	for f.camera().Counters.Slow < 3 {
		if _, err := r.Next(nil); err != nil {
			t.Fatal(err)
		}
	}
}

// What goes out keeps within its bounds.
// A snapshot now and then, each with a capture of its own, gets no more than a stream.
func TestSnapshotsAreBound(t *testing.T) {
	p := newPlayed(t)
	p.picture = sample(t, 1600, 1200)
	f := newSite(t, p)
	s := model.DefaultCameraSettings()
	s.KbitS = 16 // 2,000 octets a second
	if owed := len(p.picture) - 2000; owed < 2000*int(patience/time.Second) {
		t.Fatalf("a picture of %d octets is too small for this test", len(p.picture))
	}
	if status, b := f.do("PUT", "/v1/cameras/"+id+"/settings", s); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	if status, _ := f.do("GET", "/v1/cameras/"+id+"/snapshot", nil); status != http.StatusOK {
		t.Fatalf("snapshot: %d", status)
	}
	if status, _ := f.do("POST", "/v1/cameras/"+id+"/stop", nil); status != http.StatusOK {
		t.Fatalf("stop: %d", status)
	}
	before := f.camera().Counters
	_, end := f.watch()
	defer end()
	f.until("another capture", func() bool { return f.camera().Counters.Skipped > before.Skipped })
	if now := f.camera(); now.Counters.Frames != 1 || now.State != model.CameraRunning {
		t.Errorf("%d pictures, want that the second waits for its time: %+v", now.Counters.Frames, now)
	}
}

func TestStartAndStop(t *testing.T) {
	p := newPlayed(t)
	f := newSite(t, p)
	for _, hold := range []int{-1, model.MaxCameraHoldS + 1} {
		if status, b := f.do("POST", "/v1/cameras/"+id+"/start", model.CameraStart{HoldS: hold}); status != http.StatusUnprocessableEntity {
			t.Errorf("%d: %d %s", hold, status, b)
		}
	}
	if status, b := f.do("POST", "/v1/cameras/"+id+"/start", model.CameraStart{HoldS: 600}); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	f.until("frames for nobody", func() bool { c := f.camera(); return c.State == model.CameraRunning && c.Counters.Skipped > 3 })
	if status, _ := f.do("POST", "/v1/cameras/"+id+"/stop", nil); status != http.StatusOK {
		t.Errorf("stop: %d", status)
	}
	if opened, _, _ := p.state(); opened != 0 || f.camera().State != model.CameraIdle {
		t.Errorf("it runs on: %d, %+v", opened, f.camera())
	}
	// A hold ends by itself.
	if err := f.all()[0].start(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	f.until("the end of the hold", func() bool { opened, _, _ := p.state(); return opened == 0 && f.camera().State == model.CameraIdle })
}

func TestSettings(t *testing.T) {
	p := newPlayed(t)
	f := newSite(t, p)
	r, end := f.watch()
	defer end()
	if _, err := r.Next(nil); err != nil {
		t.Fatal(err)
	}
	s := model.DefaultCameraSettings()
	s.FPS, s.Controls = 10, map[string]int64{"brightness": 200}
	if status, b := f.do("PUT", "/v1/cameras/"+id+"/settings", s); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	f.until("a capture with them", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.set["brightness"] == 200 && len(p.started) > 1 && p.started[len(p.started)-1].Rate == 10
	})
	for { // the viewer stays
		before := f.camera().Counters.Frames
		if _, err := r.Next(nil); err != nil {
			t.Fatal(err)
		}
		if f.camera().Counters.Frames > before {
			break
		}
	}
	for name, bad := range map[string]model.CameraSettings{
		"zero":            {},
		"width alone":     {FPS: 1, KbitS: 100, Quality: 50, Width: 640},
		"no such control": {FPS: 1, KbitS: 100, Quality: 50, Controls: map[string]int64{"gain": 1}},
		"out of bounds":   {FPS: 1, KbitS: 100, Quality: 50, Controls: map[string]int64{"brightness": 256}},
		"large":           {FPS: 1, KbitS: 100, Quality: 50, Controls: map[string]int64{"brightness": 1 << 40}},
	} {
		if status, b := f.do("PUT", "/v1/cameras/"+id+"/settings", bad); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	// They last.
	again, err := New(f.Config)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.settings[id]; !got.Equal(s) {
		t.Errorf("got %+v, want %+v", got, s)
	}
	if err := os.WriteFile(f.Config.Settings, []byte(`{"x": {"fps": 1e9}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err = New(f.Config); err == nil || again == nil {
		t.Errorf("settings that are wrong: %v", err)
	}
	// Nobody looks at a camera that is disabled.
	s.Enabled = false
	if status, b := f.do("PUT", "/v1/cameras/"+id+"/settings", s); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	for {
		if _, err := r.Next(nil); err != nil {
			break
		}
	}
	if status, b := f.do("GET", "/v1/cameras/"+id+"/snapshot", nil); status != http.StatusConflict {
		t.Errorf("%d %s", status, b)
	}
	f.until("the camera's rest", func() bool { opened, _, _ := p.state(); return opened == 0 })
}

// A camera that fails is tried again, and told of once.
func TestFailure(t *testing.T) {
	p := newPlayed(t)
	p.fails = errors.New("another program uses the camera")
	f := newSite(t, p)
	r, end := f.watch()
	defer end()
	f.until("the failure", func() bool {
		c := f.camera()
		return c.State == model.CameraFailed && strings.Contains(c.Detail, "another program")
	})
	p.mu.Lock()
	p.fails = nil
	p.mu.Unlock()
	if _, err := r.Next(nil); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := []string{"camera.found info " + id, "camera.failed warning " + id}; !slices.Equal(f.events, want) {
		t.Errorf("got %q, want %q", f.events, want)
	}
}

func TestStall(t *testing.T) {
	p := newPlayed(t)
	p.frames = make(chan []byte)
	f := newSite(t, p, func(c *Config) { c.Stall = 20 * time.Millisecond })
	_, end := f.watch()
	defer end()
	f.until("the failure", func() bool { return strings.Contains(f.camera().Detail, "no picture came") })
}

// Only the gateway may ask: by its address, and with its pass.
func TestOnlyTheGateway(t *testing.T) {
	key, other := identity.New(), identity.New()
	p := newPlayed(t)
	f := newSite(t, p, func(c *Config) { c.Network, c.Node = key.Public(), "n-a" })
	loopback := netip.MustParseAddr("127.0.0.1")
	about := "GET " + model.RouteCameras
	for name, tc := range map[string]struct {
		gateway netip.Addr
		pass    string
		want    int
	}{
		"the gateway":             {loopback, key.Pass("n-a", about, time.Now()), http.StatusOK},
		"somebody else":           {netip.MustParseAddr("10.42.0.1"), key.Pass("n-a", about, time.Now()), 0},
		"a device behind it":      {loopback, "", http.StatusUnauthorized},
		"another network's":       {loopback, other.Pass("n-a", about, time.Now()), http.StatusUnauthorized},
		"a pass for another":      {loopback, key.Pass("n-b", about, time.Now()), http.StatusUnauthorized},
		"a pass for another call": {loopback, key.Pass("n-a", "GET "+model.RouteCameras+"/x/stream", time.Now()), http.StatusUnauthorized},
		"an old one":              {loopback, key.Pass("n-a", about, time.Now().Add(-time.Hour)), http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			l, err := listen(ctx, netip.AddrPortFrom(loopback, 0), tc.gateway)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); f.answerAt(ctx, l, func() bool { return true }) }()
			defer func() { cancel(); <-done }()
			r, err := http.NewRequest("GET", "http://"+l.Addr().String()+model.RouteCameras, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", tc.pass)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				if tc.want != 0 {
					t.Error(err)
				}
				return
			}
			resp.Body.Close()
			if resp.StatusCode != tc.want {
				t.Errorf("got %s, want %d (0: no answer)", resp.Status, tc.want)
			}
		})
	}
}

// A camera that fails over and over is told of once, and one that comes and goes all
// the time is not told of without end.
func TestFewEvents(t *testing.T) {
	p := newPlayed(t)
	p.frames = make(chan []byte)
	f := newSite(t, p, func(c *Config) { c.Stall, c.Again = 20*time.Millisecond, time.Millisecond })
	f.fast()
	r, end := f.watch()
	defer end()
	for range 3 { // it works for an instant, and fails
		stop := p.feed()
		if _, err := r.Next(nil); err != nil {
			t.Fatal(err)
		}
		stop()
		f.until("the failure", func() bool { return f.camera().State == model.CameraFailed })
	}
	f.mu.Lock()
	if want := []string{"camera.found info " + id, "camera.failed warning " + id}; !slices.Equal(f.events, want) {
		t.Errorf("got %q, want %q", f.events, want)
	}
	f.mu.Unlock()
	list := p.list
	for range 2 * eventBurst {
		for _, there := range [][]v4l2.Info{nil, list} {
			p.mu.Lock()
			p.list = there
			p.mu.Unlock()
			if err := f.Look(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.events); n < eventBurst || n > eventBurst+1 {
		t.Errorf("%d events, want %d", n, eventBurst)
	}
	if f.left.Load() == 0 {
		t.Error("none was counted as left out")
	}
}

// A camera that answers nothing for long does not have the others wait for it.
func TestOneHangs(t *testing.T) {
	p := newPlayed(t)
	p.list = nil
	f := newSite(t, p)
	hang := make(chan struct{})
	p.mu.Lock()
	p.list, p.hang = []v4l2.Info{{Path: "/dev/video0", Card: "a", Bus: "usb-1"}, {Path: "/dev/video1", Card: "b", Bus: "usb-2"}}, hang
	p.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- f.Look() }()
	f.until("the one that answers", func() bool { return len(f.Briefs()) == 1 })
	select {
	case err := <-done:
		t.Fatalf("it was over before: %v", err)
	default:
	}
	close(hang)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(f.Briefs()); n != 2 {
		t.Errorf("got %d cameras, want 2", n)
	}
}

// timed is a client that notes for when it has to have taken what is written, which after
// a picture it does not know.
type timed struct {
	http.ResponseWriter
	at      time.Time
	late    bool // something was written before it was known by when
	most    int  // octets at once
	flushed chan struct{}
}

func (w *timed) Write(b []byte) (int, error) {
	w.late = w.late || w.at.IsZero()
	w.most = max(w.most, len(b))
	return len(b), nil
}
func (w *timed) WriteHeader(int) {}
func (w *timed) FlushError() error {
	w.at = time.Time{}
	w.flushed <- struct{}{}
	return nil
}
func (w *timed) SetWriteDeadline(at time.Time) error { w.at = at; return nil }

// The end of a stream is written long after its last picture, and arrives all the same. A
// picture may take as long as it needs, if only it gets on.
func TestTheEndHasItsTime(t *testing.T) {
	p := newPlayed(t)
	p.frames, p.picture = make(chan []byte), sample(t, 1600, 1200)
	f := newSite(t, p)
	f.fast()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/cameras/"+id+"/stream", nil)
	r.SetPathValue("camera", id)
	w := &timed{ResponseWriter: httptest.NewRecorder(), flushed: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); f.stream(w, r) }()
	<-w.flushed // the head
	p.frames <- p.picture
	<-w.flushed
	if status, _ := f.do("POST", "/v1/cameras/"+id+"/stop", nil); status != http.StatusOK {
		t.Errorf("stop: %d", status)
	}
	<-done
	if w.late || w.at.IsZero() {
		t.Errorf("the end has the time of the last picture: %v; something had none: %v", w.at.IsZero(), w.late)
	}
	if len(p.picture) < 1<<15 || w.most > 1<<13 {
		t.Errorf("%d octets of %d had to be taken in one time", w.most, len(p.picture))
	}
}
