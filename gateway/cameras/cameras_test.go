package cameras_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/camera"
	"halo.internal/gateway/cameras"
	"halo.internal/gateway/etag"
	"halo.internal/hal/v4l2"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
)

const patience = 30 * time.Second // reached by a failure alone

func picture(t testing.TB) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, 320, 240))
	for i := range m.Pix {
		m.Pix[i] = byte(i * i >> 6)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// site is a gateway's cameras and one node, whose answers come from a handler.
type site struct {
	*cameras.Service
	key  identity.Key
	node apitype.Node
}

func newSite(t *testing.T, node http.Handler) *site {
	t.Helper()
	server := httptest.NewServer(node)
	f := &site{key: identity.New(), node: apitype.Node{ID: "n-mast", Name: "mast", OverlayV4: netip.MustParseAddr("10.42.0.7")}}
	f.Service = cameras.New(cameras.Config{
		Key: f.key, Now: time.Now, Log: slog.New(slog.DiscardHandler), Linger: 20 * time.Millisecond,
		Node: func(_ context.Context, ref string) (apitype.Node, error) {
			if ref != "mast" && ref != f.node.ID {
				return apitype.Node{}, apitype.Refuse(http.StatusNotFound, "", "there is no node %s", ref)
			}
			return f.node, nil
		},
		Dial: func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
			if at != netip.MustParseAddrPort("10.42.0.7:4260") {
				return nil, fmt.Errorf("expected the node's cameras, got %s", at)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.CloseClientConnections()
		server.Close()
	})
	return f
}

// streaming is a node with one camera, which has its settings changed as it is told; of
// its pictures a handler decides.
func streaming(s model.CameraSettings, pictures http.HandlerFunc) http.Handler {
	var mu sync.Mutex // guards s
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stream") || strings.HasSuffix(r.URL.Path, "/snapshot") {
			pictures(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPut {
			s = model.CameraSettings{}
			if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
				panic(err)
			}
		}
		_ = json.NewEncoder(w).Encode(model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1"}, State: model.CameraRunning, Settings: s})
	})
}

// full are settings that bound as little as they can.
func full() model.CameraSettings {
	s := model.DefaultCameraSettings()
	s.FPS, s.KbitS = 30, 20000
	return s
}

// eye is a camera, played behind the interface that the kernel's are behind.
type eye struct{ frame []byte }

func (e eye) List() ([]v4l2.Info, error) {
	return []v4l2.Info{{Path: "/dev/video0", Card: "Played", Bus: "usb-1"}}, nil
}
func (e eye) Open(string) (camera.Source, error)       { return e, nil }
func (e eye) Controls() ([]v4l2.Control, error)        { return nil, nil }
func (e eye) Set(v4l2.Control, int64) error            { return nil }
func (e eye) Start(f v4l2.Format) (v4l2.Format, error) { return f, nil }
func (e eye) Close() error                             { return nil }
func (e eye) Modes() ([]v4l2.Mode, error) {
	return []v4l2.Mode{{Pixel: v4l2.MJPG, Sizes: []v4l2.Size{{Width: 320, Height: 240, Rates: []float64{30}}}}}, nil
}

func (e eye) Next(ctx context.Context, use func(v4l2.Frame)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Millisecond):
	}
	use(v4l2.Frame{Data: e.frame})
	return nil
}

// TestWithAnAgent has halo-agent's own service play the node.
func TestWithAnAgent(t *testing.T) {
	frame := picture(t)
	agent, err := camera.New(camera.Config{
		Devices: eye{frame}, Settings: filepath.Join(t.TempDir(), "cameras"), Now: time.Now, Log: slog.New(slog.DiscardHandler), Linger: 20 * time.Millisecond,
		Event: func(string, model.Severity, string, map[string]string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var streams atomic.Int32
	handler := agent.Handler()
	f := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stream") {
			streams.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list, err := f.Detect(ctx, "mast")
	if err != nil || len(list) != 1 || list[0].ID != "usb-1" || list[0].Modes[0].Sizes[0].FPS[0] != 30 {
		t.Fatalf("got %+v, %v", list, err)
	}
	if k := f.Known(); len(k) != 1 || k[0].Node != "n-mast" {
		t.Errorf("got %+v", k)
	}
	fast, full := 30.0, 20000
	c, err := f.Update(ctx, "mast", "usb-1", etag.Match{}, apitype.UpdateCamera{FPS: &fast, KbitS: &full})
	if err != nil || c.Settings.FPS != 30 {
		t.Fatalf("got %+v, %v", c.Settings, err)
	}
	other, err := etag.Parse("If-Match", `"other"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Update(ctx, "mast", "usb-1", other, apitype.UpdateCamera{FPS: &fast}); err == nil {
		t.Error("a change for what is not there was made")
	}
	if b, err := f.Snapshot(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a"}); err != nil || !bytes.Equal(b, frame) {
		t.Errorf("snapshot: %d octets, %v", len(b), err)
	}
	// Some look, one of them slowly; a snapshot is of the same stream.
	slow, err := f.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: "user:slow"})
	if err != nil {
		t.Fatal(err)
	}
	var quick []*cameras.Viewer
	for range 3 {
		v, err := f.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a"})
		if err != nil {
			t.Fatal(err)
		}
		quick = append(quick, v)
	}
	for range 5 {
		for _, v := range quick {
			if b, err := v.Next(ctx); err != nil || !bytes.Equal(b, frame) {
				t.Fatalf("%d octets, %v", len(b), err)
			}
		}
	}
	if b, err := f.Snapshot(ctx, "mast", "usb-1", cameras.Who{Actor: "user:b"}); err != nil || !bytes.Equal(b, frame) {
		t.Errorf("snapshot: %d octets, %v", len(b), err)
	}
	if n := streams.Load(); n != 1 {
		t.Errorf("%d streams came through the mesh, want one", n)
	}
	if got, err := f.Get(ctx, "mast", "usb-1"); err != nil || got.Viewers != 1 || got.State != model.CameraRunning {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, v := range append(quick, slow) {
		v.Close()
		v.Close() // twice is once
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got, err := f.Get(ctx, "mast", "usb-1")
		if err != nil {
			t.Fatal(err)
		}
		if got.State == model.CameraIdle {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the camera runs on behind its last viewer: %+v", got)
		}
	}
	// Stopped, everybody's stream ends.
	v, err := f.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a"})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := v.Next(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Stop(ctx, "mast", "usb-1"); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := v.Next(ctx); err != nil {
			if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusServiceUnavailable {
				t.Errorf("got %v", err)
			}
			break
		}
	}
}

// What a node sends in other hands harms nobody.
func TestHostileNode(t *testing.T) {
	good := model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1"}, State: model.CameraIdle, Settings: model.DefaultCameraSettings()}
	many := good
	many.Name, many.State = strings.Repeat("\x1b[2J", 1000), "burning"
	for range 1000 {
		many.Controls = append(many.Controls, model.CameraControl{Name: strings.Repeat("x", 100)})
		many.Modes = append(many.Modes, model.CameraMode{Sizes: make([]model.CameraSize, 5)})
	}
	var answer atomic.Value
	f := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer.Load().(http.HandlerFunc)(w, r) }))
	say := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
	}
	text := func(status int, s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, s) }
	}
	answer.Store(say([]model.Camera{many, {CameraBrief: model.CameraBrief{ID: "../../etc"}}}))
	list, err := f.Detect(t.Context(), "mast")
	if err != nil || len(list) != 1 || len(list[0].Controls) > model.MaxCameraControls || len(list[0].Modes) > model.MaxCameraModes || len(list[0].Name) > 64 || strings.Contains(list[0].Name, "\x1b") || list[0].State != model.CameraFailed {
		t.Errorf("got %d cameras, %v", len(list), err)
	}
	other := good
	other.ID = "usb-2"
	for name, tc := range map[string]struct {
		say  http.HandlerFunc
		want int
	}{
		"no JSON":        {text(200, "<html>"), http.StatusBadGateway},
		"endless":        {text(200, `["`+strings.Repeat("x", 2<<20)), http.StatusBadGateway},
		"another camera": {say(other), http.StatusBadGateway},
		"no settings":    {say(model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1"}}), http.StatusBadGateway},
		"a redirection": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, http.StatusBadGateway},
		"who asks?": {text(401, `{"detail": "no"}`), http.StatusBadGateway},
		"none":      {text(404, `{"detail": "there is no camera"}`), http.StatusNotFound},
		"words":     {text(409, `{"detail": "\u001b[2J`+strings.Repeat("x", 2000)+`"}`), http.StatusConflict},
		"failing":   {text(500, `{"detail": "no"}`), http.StatusBadGateway},
	} {
		answer.Store(tc.say)
		_, err := f.Get(t.Context(), "mast", "usb-1")
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok || p.Status != tc.want || len(p.Detail) > 400 || strings.Contains(p.Detail, "\x1b") {
			t.Errorf("%s: got %v, want %d", name, err, tc.want)
		}
	}
	for name, body := range map[string]string{
		"noise":       "not a picture",
		"half":        string(picture(t)[:500]),
		"too large":   "\xff\xd8" + strings.Repeat("x", mjpeg.MaxFrame),
		"a page":      "<script>alert(1)</script>",
		"wide":        strings.Replace(string(picture(t)), "\x00\xf0\x01\x40", "\xff\xff\xff\xff", 1),
		"no pictures": "",
	} {
		answer.Store(text(200, body))
		if _, err := f.Snapshot(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:a"}); err == nil {
			t.Errorf("%s: it was handed on", name)
		}
		var stream bytes.Buffer
		if err := mjpeg.WriteFrame(&stream, []byte(body)); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{stream.String(), body} {
			answer.Store(http.HandlerFunc(streaming(full(), text(200, s)).ServeHTTP))
			v, err := f.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:a"})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if b, err := v.Next(ctx); err == nil || ctx.Err() != nil {
				t.Errorf("%s: %d octets were handed on, %v", name, len(b), err)
			}
			cancel()
			v.Close()
		}
	}
}

// A node whose clock is another one is shown a pass of its own time.
func TestANodesClock(t *testing.T) {
	var f *site
	node := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	asked := 0
	f = newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Date", node.Format(http.TimeFormat))
		if err := f.key.Public().CheckPass(r.Header.Get("Authorization"), "n-mast", r.Method+" "+r.URL.RequestURI(), node); err != nil {
			apitype.WriteProblem(w, apitype.Refuse(http.StatusUnauthorized, "", "%v", err))
			return
		}
		_ = json.NewEncoder(w).Encode(model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1"}, Settings: model.DefaultCameraSettings()})
	}))
	if _, err := f.Get(t.Context(), "mast", "usb-1"); err != nil || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestBoundsOfViewers(t *testing.T) {
	f := newSite(t, streaming(full(), func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	var all []*cameras.Viewer
	for k := range 9 {
		v, err := f.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:a"})
		if (err == nil) != (k < 8) {
			t.Errorf("viewer %d: %v", k, err)
		}
		if err == nil {
			all = append(all, v)
		}
	}
	if _, err := f.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:b"}); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	for _, v := range all {
		v.Close()
	}
	if v, err := f.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:a"}); err != nil {
		t.Errorf("afterwards: %v", err)
	} else {
		v.Close()
	}
	for _, id := range []string{"", "..", "a/b", "A", strings.Repeat("a", 65)} {
		if _, err := f.Watch(t.Context(), "mast", id, cameras.Who{Actor: "user:a"}); err == nil {
			t.Errorf("camera %q was looked at", id)
		}
	}
	f.node.Revoked = true
	if _, err := f.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: "user:a"}); err == nil {
		t.Error("a revoked node was asked")
	}
}

// However many look from beyond the mesh, no more pictures go out to them than come in.
func TestFarViewersTakeTurns(t *testing.T) {
	frame := picture(t)
	send := make(chan struct{})
	f := newSite(t, streaming(full(), func(w http.ResponseWriter, r *http.Request) {
		for mjpeg.WriteFrame(w, frame) == nil && http.NewResponseController(w).Flush() == nil {
			select {
			case <-r.Context().Done():
				return
			case <-send:
			}
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := func(actor string, far bool) *cameras.Viewer {
		v, err := f.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: actor, Far: far})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		return v
	}
	near := watch("user:near", false)
	if _, err := near.Next(ctx); err != nil {
		t.Fatal(err)
	}
	const many, rounds = 3, 4
	got := make(chan int)
	for k := range many {
		v := watch(fmt.Sprint("user:", k), true)
		go func() {
			for {
				if _, err := v.Next(ctx); err != nil {
					return
				}
				select {
				case got <- k:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	each := map[int]int{}
	for range many * rounds {
		time.Sleep(20 * time.Millisecond) // by when the settings allow another one
		send <- struct{}{}
		if _, err := near.Next(ctx); err != nil { // who is near sees all of them
			t.Fatal(err)
		}
		select {
		case k := <-got:
			each[k]++
		case <-ctx.Done():
			t.Fatal("nobody beyond the mesh got a picture")
		}
	}
	for k := range many {
		if each[k] != rounds {
			t.Errorf("got %v pictures, want %d each", each, rounds)
		}
	}
}

// A node that sends more than its camera's settings allow does not have it go out into the
// mesh again; settings that allow more hold at once.
func TestANodeThatIgnoresItsBounds(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 1600, 1200))
	for i := range m.Pix {
		m.Pix[i] = byte(i * i >> 6)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	s := model.DefaultCameraSettings()
	s.KbitS = 16 // a quarter more is 2,500 octets a second
	if b.Len() < 2500*int(2*patience/time.Second) || b.Len() > mjpeg.MaxFrame {
		t.Fatalf("a picture of %d octets does not suit this test", b.Len())
	}
	send := make(chan struct{})
	f := newSite(t, streaming(s, func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case <-r.Context().Done():
				return
			case <-send:
			}
			if mjpeg.WriteFrame(w, b.Bytes()) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var viewers []*cameras.Viewer
	for _, far := range []bool{false, true} {
		v, err := f.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a", Far: far})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		viewers = append(viewers, v)
	}
	near, far := viewers[0], viewers[1]
	shown := func(v *cameras.Viewer, within time.Duration) bool {
		t.Helper()
		limit, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		_, err := v.Next(limit)
		if ctx.Err() != nil {
			t.Fatal("it takes too long")
		}
		return err == nil
	}
	for k := range 20 {
		send <- struct{}{}
		if !shown(near, patience) {
			t.Fatal("who is near does not see all")
		}
		if got := shown(far, time.Millisecond); got && k > 0 {
			t.Fatalf("picture %d went out into the mesh", k)
		} else if !got && k == 0 && !shown(far, patience) {
			t.Fatal("who is far sees nothing")
		}
	}
	fps, kbit := 30.0, 20000
	if _, err := f.Update(ctx, "mast", "usb-1", etag.Match{}, apitype.UpdateCamera{FPS: &fps, KbitS: &kbit}); err != nil {
		t.Fatal(err)
	}
	for !shown(far, 20*time.Millisecond) {
		send <- struct{}{}
		if !shown(near, patience) {
			t.Fatal("who is near does not see all")
		}
	}
}

// once is a listener of one connection.
type once struct {
	conns chan net.Conn
	done  chan struct{}
	end   sync.Once
}

func (o *once) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}
func (o *once) Close() error   { o.end.Do(func() { close(o.done) }); return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// piped connects with a node in the same bubble of time.
func piped(node http.Handler) func(context.Context, netip.AddrPort) (net.Conn, error) {
	return func(context.Context, netip.AddrPort) (net.Conn, error) {
		here, there := net.Pipe()
		l := &once{conns: make(chan net.Conn, 1), done: make(chan struct{})}
		l.conns <- there
		server := &http.Server{Handler: node, ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				l.Close()
			}
		}}
		go func() { _ = server.Serve(l) }()
		return here, nil
	}
}

// A picture that takes long arrives, as long as it gets on; what does not get on ends.
func TestPicturesThatTakeLong(t *testing.T) {
	frame := picture(t)
	var stream bytes.Buffer
	if err := mjpeg.WriteFrame(&stream, frame); err != nil {
		t.Fatal(err)
	}
	// slow writes a quarter after each pause, and then no more.
	slow := func(w http.ResponseWriter, r *http.Request, b []byte, pause time.Duration) {
		_ = http.NewResponseController(w).Flush()
		for k := range 4 {
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
			_, _ = w.Write(b[len(b)*k/4 : len(b)*(k+1)/4])
			_ = http.NewResponseController(w).Flush()
		}
	}
	for name, tc := range map[string]struct {
		still   bool
		pause   time.Duration
		arrives bool
		after   time.Duration // it is over
	}{
		"a stream":               {false, 2 * time.Minute, true, 8*time.Minute + 3*time.Minute},
		"a stream that stalls":   {false, 4 * time.Minute, false, 3 * time.Minute},
		"a snapshot":             {true, 12 * time.Second, true, 48 * time.Second},
		"a snapshot that stalls": {true, 40 * time.Second, false, 30 * time.Second},
		"a snapshot without end": {true, 20 * time.Second, false, 55 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := cameras.New(cameras.Config{
					Key: identity.New(), Now: time.Now, Log: slog.New(slog.DiscardHandler),
					Node: func(context.Context, string) (apitype.Node, error) {
						return apitype.Node{ID: "n-mast", Name: "mast", OverlayV4: netip.MustParseAddr("10.42.0.7")}, nil
					},
					Dial: piped(streaming(full(), func(w http.ResponseWriter, r *http.Request) {
						if tc.still {
							slow(w, r, frame, tc.pause)
							return
						}
						slow(w, r, stream.Bytes(), tc.pause)
						<-r.Context().Done()
					})),
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				defer func() { cancel(); <-done }()
				begin := time.Now()
				got, err := []byte(nil), error(nil)
				if tc.still {
					got, err = s.Snapshot(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a"})
				} else {
					v, watchErr := s.Watch(ctx, "mast", "usb-1", cameras.Who{Actor: "user:a"})
					if watchErr != nil {
						t.Fatal(watchErr)
					}
					defer v.Close()
					if got, err = v.Next(ctx); err == nil {
						if _, over := v.Next(ctx); over == nil {
							t.Error("another picture came")
						}
					}
				}
				if arrived := err == nil && bytes.Equal(got, frame); arrived != tc.arrives || time.Since(begin) != tc.after {
					t.Errorf("%d octets after %v, %v", len(got), time.Since(begin), err)
				}
				if p, ok := errors.AsType[*apitype.Problem](err); !tc.arrives && (!ok || p.Status != http.StatusServiceUnavailable) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestLinks(t *testing.T) {
	f := newSite(t, http.NotFoundHandler())
	other := newSite(t, http.NotFoundHandler())
	good := cameras.Link{Node: "n-mast", Camera: "usb-1", Kind: apitype.CameraStream, By: "user", Name: "vera", Session: "ab", Expires: time.Now().Add(30 * time.Second).Unix()}
	ticket, err := f.Sign(good)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := f.Open(ticket); err != nil || l != good {
		t.Errorf("got %+v, %v", l, err)
	}
	sign := func(change func(*cameras.Link)) string {
		l := good
		change(&l)
		s, err := f.Sign(l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if b, err := base64.RawURLEncoding.DecodeString(ticket); err != nil || bytes.Contains(b, []byte("vera")) || bytes.Contains(b, []byte("mast")) {
		t.Errorf("the link tells who has asked, or is no text: %v", err)
	}
	foreign, err := other.Sign(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"another gateway's": foreign, "nothing": "", "a dot": ".", "cut off": ticket[:len(ticket)-1], "more": ticket + "AAAA", "changed": ticket[:20] + string(ticket[20]^1) + ticket[21:],
		"expired":        sign(func(l *cameras.Link) { l.Expires = time.Now().Unix() - 1 }),
		"of the future":  sign(func(l *cameras.Link) { l.Expires = time.Now().Unix() + 3600 }),
		"another camera": sign(func(l *cameras.Link) { l.Camera = "../x" }),
		"long":           strings.Repeat("a", 5000),
	} {
		if l, err := f.Open(s); err == nil {
			t.Errorf("%s: %+v was opened", name, l)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := cameras.New(cameras.Config{Now: time.Now})
	good, err := s.Sign(cameras.Link{Node: "n", Camera: "c", Expires: time.Now().Add(time.Minute).Unix()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("e30.AAAA")
	f.Add(good[1:])
	f.Fuzz(func(t *testing.T, ticket string) {
		if _, err := s.Open(ticket); err == nil && strings.NewReplacer("\r", "", "\n", "").Replace(ticket) != good {
			t.Errorf("%q was opened", ticket)
		}
	})
}

// A node that does not answer holds up nobody's camera but its own, and nobody gets
// more pictures fetched at a time than streams.
func TestAHungCameraHoldsUpItselfAlone(t *testing.T) {
	var waiting atomic.Int32
	free := make(chan struct{})
	f := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/hung") {
			waiting.Add(1)
			defer waiting.Add(-1)
			select {
			case <-free:
			case <-r.Context().Done():
			}
		}
		_ = json.NewEncoder(w).Encode(model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1"}, Settings: model.DefaultCameraSettings()})
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				t.Fatalf("it never came: %s", what)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(free)

	wg.Go(func() { _, _ = f.Update(ctx, "mast", "hung", etag.Match{}, apitype.UpdateCamera{}) })
	until("the question", func() bool { return waiting.Load() == 1 })
	if _, err := f.Update(soon(), "mast", "hung", etag.Match{}, apitype.UpdateCamera{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the same camera: got %v, want that it waits as long as it may", err)
	}
	if waiting.Load() != 1 {
		t.Error("two changes of one camera at a time")
	}
	if _, err := f.Update(ctx, "mast", "usb-1", etag.Match{}, apitype.UpdateCamera{}); err != nil {
		t.Errorf("another camera: %v", err)
	}

	one := cameras.Who{Actor: "one"}
	for range 8 {
		wg.Go(func() {
			for {
				_, err := f.Snapshot(ctx, "mast", "hung", one)
				if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != http.StatusTooManyRequests {
					return
				} // else what is asked below had its place
			}
		})
	}
	refused := func(who cameras.Who) int {
		_, err := f.Snapshot(soon(), "mast", "hung", who)
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok {
			t.Fatalf("got %v, want a problem", err)
		}
		return p.Status
	}
	until("a refusal", func() bool { return refused(one) == http.StatusTooManyRequests })
	until("four pictures that are fetched", func() bool { return waiting.Load() == 1+4 })
	if got := refused(cameras.Who{Actor: "another"}); got != http.StatusServiceUnavailable {
		t.Errorf("another's picture: got %d, want that it waited as long as it may", got)
	}
}
