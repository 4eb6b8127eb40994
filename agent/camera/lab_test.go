//go:build lab

package camera_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image/jpeg"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/agent/camera"
	"halo.internal/hal/v4l2"
	"halo.internal/lab/testvm"
	"halo.internal/lab/webcam"
	"halo.internal/model"
	"halo.internal/model/mjpeg"
)

// The kernel's own test camera, of raw formats, and a port for cameras on USB.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"vivid n_devs=1 node_types=0x1", "uvcvideo", "vhci-hcd"}})
}

const patience = 2 * time.Minute

const vivid = "platform-vivid-000"

// bars are the colours of the kernel's test picture, from the left, at three quarters.
var bars = [][3]int{{191, 191, 191}, {191, 191, 0}, {0, 191, 191}, {0, 191, 0}, {191, 0, 191}, {191, 0, 0}, {0, 0, 191}, {0, 0, 0}}

// shows tells what is wrong with a picture of the kernel's test picture.
func shows(t *testing.T, name string, picture []byte, grey bool) {
	t.Helper()
	m, err := jpeg.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	for k, want := range bars {
		x := w*k/8 + w/16
		r, g, b, _ := m.At(x, h*3/4).RGBA()
		got := [3]int{int(r >> 8), int(g >> 8), int(b >> 8)}
		if grey {
			y := (2126*want[0] + 7152*want[1] + 722*want[2]) / 10000 // the kernel's, ITU-R BT.709
			want = [3]int{y, y, y}
		}
		for c := range 3 {
			if d := got[c] - want[c]; d > 14 || d < -14 {
				t.Errorf("%s: bar %d: got %v, want %v", name, k, got, want)
				break
			}
		}
	}
}

// TestEveryRawFormat: what the kernel draws is what the picture shows, in each format.
func TestEveryRawFormat(t *testing.T) {
	list, err := v4l2.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i v4l2.Info) bool { return i.Driver == "vivid" })
	if i < 0 {
		t.Fatalf("there is no test camera among %+v", list)
	}
	d, err := v4l2.Open(list[i].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, pixel := range camera.Formats {
		if pixel == v4l2.MJPG || pixel == v4l2.JPEG {
			continue
		}
		f, err := d.Start(v4l2.Format{Pixel: pixel, Width: 640, Height: 360})
		if err != nil {
			t.Fatal(err)
		}
		convert, err := camera.Converter(f, 90)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Next(ctx, func(v v4l2.Frame) {
			picture, err := convert(v.Data)
			if err != nil {
				t.Errorf("%s: %v", pixel, err)
				return
			}
			shows(t, pixel.String(), picture, pixel == v4l2.GREY)
		}); err != nil {
			t.Fatal(err)
		}
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// node is a node's cameras, and what it has told of them.
type node struct {
	t   *testing.T
	url string

	mu     sync.Mutex
	events []string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t}
	s, err := camera.New(camera.Config{
		Devices: camera.Kernel{}, Settings: filepath.Join(t.TempDir(), "cameras"), Now: time.Now, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Linger: time.Second,
		Event: func(kind string, _ model.Severity, _ string, fields map[string]string) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, kind+" "+fields["camera"])
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	server := httptest.NewServer(s.Handler())
	n.url = server.URL + model.RouteCameras
	t.Cleanup(func() { cancel(); <-done; server.Close() })
	return n
}

func (n *node) told(event string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.events, event)
}

func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("it never came: %s; told: %q", what, n.events)
		}
	}
}

func (n *node) get(path string) []byte {
	n.t.Helper()
	resp, err := http.Get(n.url + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: %s %s, %v", path, resp.Status, b, err)
	}
	return b
}

func (n *node) camera(id string) (c model.Camera) {
	n.t.Helper()
	if err := json.Unmarshal(n.get("/"+id), &c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *node) stream(id string) (*mjpeg.Reader, func()) {
	n.t.Helper()
	resp, err := http.Get(n.url + "/" + id + "/stream")
	if err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%v, %v", resp, err)
	}
	return mjpeg.NewReader(resp.Body), func() { resp.Body.Close() }
}

func TestVividServed(t *testing.T) {
	n := newNode(t)
	n.until("the kernel's test camera", func() bool { return n.told(camera.EventFound + " " + vivid) })
	shows(t, "snapshot", n.get("/"+vivid+"/snapshot"), false)
	c := n.camera(vivid)
	if c.Driver != "vivid" || len(c.Modes) != model.MaxCameraModes || !c.Modes[0].Usable || c.Counters.Frames == 0 {
		t.Errorf("got %s, %d modes, %+v", c.Driver, len(c.Modes), c.Counters)
	}
	r, end := n.stream(vivid)
	defer end()
	for range 3 {
		b, err := r.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		shows(t, "stream", b, false)
	}
}

// TestPluggedAndUnplugged: a camera on USB that sends frames without tables, broken ones
// among them, is found, shown, and gone in the middle of a frame.
func TestPluggedAndUnplugged(t *testing.T) {
	n := newNode(t)
	n.until("the kernel's test camera", func() bool { return n.told(camera.EventFound + " " + vivid) })
	whole := n.get("/" + vivid + "/snapshot") // colours, to be sent as a camera does
	bare := withoutTables(whole)
	size := webcam.Size{Width: 640, Height: 360, Interval: 400_000}
	c, err := webcam.Plug(webcam.Options{Sizes: []webcam.Size{size}, Frame: func(i int, _ webcam.Size) ([]byte, bool) {
		switch i % 4 {
		case 0:
			return bare[:len(bare)/2], false
		case 1:
			return bytes.Repeat([]byte{0xff, 0xd8}, 500), false
		case 2:
			return bare, true // the camera says that it is bad
		}
		return append(bytes.Clone(bare), make([]byte, 300)...), false
	}})
	if err != nil {
		t.Fatal(err)
	}
	const id = "usb-vhci-hcd.0-1"
	n.until("the camera", func() bool { return n.told(camera.EventFound + " " + id) })
	if m := n.camera(id); !strings.HasPrefix(m.Name, webcam.Name) || m.Driver != "uvcvideo" || m.Product != "1209:0001" || len(m.Controls) != 1 {
		t.Errorf("got %+v", m)
	}
	r, end := n.stream(id)
	defer end()
	for range 3 {
		b, err := r.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		shows(t, "USB", b, false)
	}
	n.until("broken frames, counted", func() bool {
		k := n.camera(id).Counters
		return k.Truncated > 0 && k.Invalid > 0
	})
	c.UnplugWithin(len(bare) / 4)
	for {
		if _, err := r.Next(nil); err != nil {
			break
		}
	}
	n.until("the news that it is gone", func() bool { return n.told(camera.EventLost + " " + id) })
	if err := c.Unplug(); err != nil {
		t.Error(err)
	}
	shows(t, "the other camera, afterwards", n.get("/"+vivid+"/snapshot"), false)
}

// withoutTables cuts the Huffman tables out of a picture.
func withoutTables(b []byte) []byte {
	out := bytes.Clone(b[:2])
	for at := 2; ; {
		n := int(b[at+2])<<8 | int(b[at+3])
		if b[at+1] != 0xc4 {
			out = append(out, b[at:at+2+n]...)
		}
		if b[at+1] == 0xda {
			return append(out, b[at+2+n:]...)
		}
		at += 2 + n
	}
}
