package api

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/jpeg"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/cameras"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
)

// lens is a node's cameras, played: one that is always there, whose settings change as
// they are told.
type lens struct {
	key identity.Key // of the gateway

	mu       sync.Mutex // guards what follows
	settings *model.CameraSettings
	asked    []string
	streams  int
}

// dial connects with the node, of whatever address.
func (l *lens) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	here, there := net.Pipe()
	listener := &once{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	listener.conns <- there
	server := &http.Server{Handler: l, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			listener.Close()
		}
	}}
	go func() { _ = server.Serve(listener) }()
	return here, nil
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

func shot() []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 32, 16)), nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (l *lens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
	if l.settings == nil {
		s := model.DefaultCameraSettings()
		l.settings = &s
	}
	if r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(l.settings); err != nil {
			panic(err)
		}
	}
	c := model.Camera{CameraBrief: model.CameraBrief{ID: "usb-1", Name: "Played\x07"}, State: model.CameraIdle, Settings: *l.settings}
	switch {
	case strings.HasSuffix(r.URL.Path, "/snapshot"):
		_, _ = w.Write(shot())
	case strings.HasSuffix(r.URL.Path, "/stream"):
		l.streams++
		l.mu.Unlock()
		defer l.mu.Lock()
		for mjpeg.WriteFrame(w, shot()) == nil && http.NewResponseController(w).Flush() == nil {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	case strings.HasSuffix(r.URL.Path, "/detect"):
		_ = json.NewEncoder(w).Encode([]model.Camera{c})
	case strings.Contains(r.URL.Path, "usb-1"):
		_ = json.NewEncoder(w).Encode(c)
	default:
		apitype.WriteProblem(w, apitype.Refuse(http.StatusNotFound, "", "there is no such camera"))
	}
}

func TestCameras(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast := f.joined("mast")
	f.Registry.Status(mast, model.NodeStatus{Cameras: []model.CameraBrief{{ID: "usb-1", Name: "Played"}, {ID: "../etc", Name: "no ID"}}})
	var list apitype.NodeCameraList
	f.want(http.StatusOK, "GET", "/v1/cameras?node=mast", nil, &list)
	if len(list.Items) != 1 || list.Items[0].Node != mast || list.Items[0].ID != "usb-1" {
		t.Errorf("got %+v", list)
	}
	const one = "/v1/nodes/mast/cameras/usb-1"
	var found apitype.CameraList
	f.want(http.StatusOK, "POST", "/v1/nodes/mast/cameras/detect", nil, &found)
	if len(found.Items) != 1 || found.Items[0].Name != "Played?" {
		t.Errorf("got %+v", found)
	}
	var c model.Camera
	fps := 2.0
	f.want(http.StatusOK, "PATCH", one, apitype.UpdateCamera{FPS: &fps}, &c)
	if c.Settings.FPS != 2 || c.Settings.KbitS != 200 {
		t.Errorf("got %+v", c.Settings)
	}
	width := 640
	f.want(http.StatusUnprocessableEntity, "PATCH", one, apitype.UpdateCamera{Width: &width}, nil)
	f.want(http.StatusOK, "POST", one+"/start", model.CameraStart{HoldS: 5}, nil)
	f.want(http.StatusOK, "POST", one+"/stop", nil, nil)
	f.want(http.StatusNotFound, "GET", "/v1/nodes/mast/cameras/usb-2", nil, nil)
	f.want(http.StatusNotFound, "GET", "/v1/nodes/mast/cameras/..%2fx", nil, nil)
	resp, b := f.do("GET", one+"/snapshot", nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "image/jpeg" || !bytes.Equal(b, shot()) {
		t.Errorf("snapshot: %s %q, %d octets", resp.Status, resp.Header, len(b))
	}
	f.lens.mu.Lock()
	defer f.lens.mu.Unlock()
	for _, q := range f.lens.asked {
		method, rest, _ := strings.Cut(q, " ")
		path, pass, _ := strings.Cut(rest, " ")
		if err := f.key.Public().CheckPass(pass, mast, method+" "+path, time.Now()); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
}

// link asks for a link and returns its path.
func (f *fixture) link(kind string, seconds int) string {
	f.t.Helper()
	var l apitype.CameraLink
	f.want(http.StatusCreated, "POST", "/v1/nodes/mast/cameras/usb-1/link", apitype.CreateCameraLink{Kind: kind, ExpiresS: seconds}, &l)
	if left := time.Until(l.Expires); left > 60*time.Second {
		f.t.Errorf("a link holds for %s", left)
	}
	return l.Path
}

func TestCameraLinks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.unheld = true
	f.joined("mast")
	root := f.token
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	vera := f.login("vera")
	f.token = vera
	snapshot, stream := f.link(apitype.CameraSnapshot, 0), f.link(apitype.CameraStream, 60)
	short := f.link(apitype.CameraSnapshot, 1)
	f.token = ""
	if resp, b := f.do("GET", snapshot, nil); resp.StatusCode != http.StatusOK || !bytes.Equal(b, shot()) {
		t.Errorf("a link without a login: %s", resp.Status)
	}
	f.want(http.StatusNotFound, "GET", snapshot+"x", nil, nil)
	f.want(http.StatusNotFound, "GET", "/v1/camera-links/e30.", nil, nil)
	ticket := strings.TrimPrefix(snapshot, "/v1/camera-links/")
	f.want(http.StatusNotFound, "GET", "/v1/camera-links/"+ticket[1:], nil, nil)
	time.Sleep(1100 * time.Millisecond) // a link's shortest life
	f.want(http.StatusNotFound, "GET", short, nil, nil)

	// Two look, and one stream comes through the mesh.
	var readers []*mjpeg.Reader
	for range 2 {
		r, err := http.Get(f.url + stream)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != mjpeg.ContentType {
			t.Fatalf("%s %q", r.Status, r.Header)
		}
		readers = append(readers, mjpeg.NewReader(r.Body))
	}
	for range 3 {
		for _, r := range readers {
			if b, err := r.Next(nil); err != nil || !bytes.Equal(b, shot()) {
				t.Fatalf("%d octets, %v", len(b), err)
			}
		}
	}
	f.lens.mu.Lock()
	if f.lens.streams != 1 {
		t.Errorf("%d streams came through the mesh, want one", f.lens.streams)
	}
	f.lens.mu.Unlock()
	// With the login the link ends, and so does what it shows.
	f.token = root
	disabled := true
	f.want(http.StatusNoContent, "PATCH", "/api/auth/users/vera", apitype.UpdateUser{Disabled: &disabled}, nil)
	f.want(http.StatusNotFound, "GET", snapshot, nil, nil)
	for _, r := range readers {
		for {
			if _, err := r.Next(nil); err != nil {
				break
			}
		}
	}
}

// Answers to members and their clients go through the mesh.
func TestFar(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.41.0.9": true, "10.42.0.7": true, "10.43.5.20": true, "fd12:3456::9": true,
		"10.42.0.1": false, "127.0.0.1": false, "::1": false, "192.168.1.7": false, "10.40.0.9": false, "2001:db8::1": false,
	} {
		if got := far(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}

// timed is a client that notes by when it has to have taken what is written next, which
// after a picture it does not know.
type timed struct {
	http.ResponseWriter
	at      time.Time
	picture chan struct{}
	once    sync.Once
}

func (w *timed) FlushError() error {
	w.at = time.Time{}
	w.once.Do(func() { close(w.picture) })
	return nil
}
func (w *timed) SetWriteDeadline(at time.Time) error { w.at = at; return nil }

// The end of a stream is written long after its last picture, and arrives all the same.
func TestTheEndOfAStreamHasItsTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.joined("mast")
	p, err := f.Auth.Authenticate(t.Context(), "Bearer "+f.token)
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.Cameras.Watch(t.Context(), "mast", "usb-1", cameras.Who{Actor: p.Actor()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &timed{ResponseWriter: httptest.NewRecorder(), picture: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.stream(humago.NewContext(&huma.Operation{}, httptest.NewRequestWithContext(ctx, "GET", "/", nil), w), v, p)
	}()
	<-w.picture
	cancel()
	<-done
	if w.at.IsZero() {
		t.Error("the end has the time of the last picture")
	}
}
