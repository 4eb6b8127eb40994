//go:build lab

package v4l2_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/uevent"
	"halo.internal/hal/v4l2"
	"halo.internal/lab/testvm"
	"halo.internal/lab/webcam"
	"halo.internal/model/mjpeg"
)

// The kernel's own test camera (vivid), of raw formats, and a port for cameras on USB.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"vivid n_devs=1 node_types=0x1", "uvcvideo", "vhci-hcd"}})
}

const patience = time.Minute

// named finds a camera by a part of its name.
func named(t *testing.T, name string) (v4l2.Info, bool) {
	t.Helper()
	list, err := v4l2.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i v4l2.Info) bool { return strings.Contains(i.Card, name) })
	if i < 0 {
		return v4l2.Info{}, false
	}
	return list[i], true
}

func openNamed(t *testing.T, name string) *v4l2.Device {
	t.Helper()
	i, ok := named(t, name)
	if !ok {
		t.Fatalf("there is no camera %s", name)
	}
	d, err := v4l2.Open(i.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestVivid(t *testing.T) {
	d := openNamed(t, "vivid")
	if i := d.Info(); i.Driver != "vivid" || i.Bus != "platform:vivid-000" {
		t.Errorf("got %+v", i)
	}
	modes, err := d.Modes()
	if err != nil {
		t.Fatal(err)
	}
	has := map[v4l2.FourCC]v4l2.Mode{}
	for _, m := range modes {
		has[m.Pixel] = m
	}
	raw := []v4l2.FourCC{v4l2.YUYV, v4l2.UYVY, v4l2.NV12, v4l2.YU12, v4l2.RGB3, v4l2.BGR3, v4l2.GREY}
	for _, f := range raw {
		m := has[f]
		i := slices.IndexFunc(m.Sizes, func(s v4l2.Size) bool { return s.Width == 640 && s.Height == 360 })
		if i < 0 || len(m.Sizes[i].Rates) == 0 || m.Text == "" {
			t.Errorf("%s: got %+v, want 640x360 with its rates", f, m)
		}
	}
	for _, f := range raw {
		got, err := d.Start(v4l2.Format{Pixel: f, Width: 640, Height: 360, Rate: 25})
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if got.Width != 640 || got.Height != 360 || got.Stride < 640 || got.Rate < 24 || got.Rate > 26 {
			t.Errorf("%s: got %+v", f, got)
		}
		frames, last := 0, uint32(0)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := d.Next(ctx, func(v v4l2.Frame) {
				frames++
				if len(v.Data) != got.Size || v.Bad || frames > 1 && v.Sequence <= last {
					t.Errorf("%s: frame %d (after %d) of %d octets, want %d", f, v.Sequence, last, len(v.Data), got.Size)
				}
				last = v.Sequence
			})
			cancel()
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
		}
		if _, err := d.Start(got); err == nil {
			t.Error("it was started twice")
		}
		if err := d.Stop(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Start(v4l2.Format{Pixel: v4l2.GREY, Width: 640, Height: 360}); err != nil {
		t.Fatal(err)
	}
	if err := d.Next(ended, func(v4l2.Frame) { t.Error("a frame for nobody") }); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	second := openNamed(t, "vivid")
	if _, err := second.Start(v4l2.Format{Pixel: v4l2.YUYV, Width: 320, Height: 180}); err == nil || !strings.Contains(err.Error(), "another program uses the camera") {
		t.Errorf("a second program: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := d.Start(v4l2.Format{Pixel: v4l2.FourCC(0x20202020), Width: 640, Height: 360}); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("a format that it has not: %v", err)
	}
}

func TestControls(t *testing.T) {
	d := openNamed(t, "vivid")
	find := func(name string) v4l2.Control {
		t.Helper()
		list, err := d.Controls()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(c v4l2.Control) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("there is no control %s among %+v", name, list)
		}
		return list[i]
	}
	b := find("brightness")
	if b.Kind != "integer" || b.Min != 0 || b.Max != 255 || b.Value != b.Default {
		t.Errorf("got %+v", b)
	}
	if err := d.Set(b, 17); err != nil {
		t.Fatal(err)
	}
	if b = find("brightness"); b.Value != 17 {
		t.Errorf("got %d, want 17", b.Value)
	}
	for _, v := range []int64{-1, 256, 1 << 40} {
		if err := d.Set(b, v); err == nil || !strings.Contains(err.Error(), "expected 0 to 255") {
			t.Errorf("%d: %v", v, err)
		}
	}
	if err := d.Set(b, b.Default); err != nil {
		t.Error(err)
	}
	if m := find("menu"); m.Kind != "menu" || len(m.Menu) < 2 || m.Check(m.Max+1) == nil || m.Check(m.Default) != nil {
		t.Errorf("got %+v", m)
	}
	if b := find("boolean"); b.Kind != "boolean" || b.Max != 1 {
		t.Errorf("got %+v", b)
	}
}

// picture is a JPEG frame as the played camera sends it.
func picture(t *testing.T, s webcam.Size) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, int(s.Width), int(s.Height)))
	for i := range m.Pix {
		m.Pix[i] = byte(i * i >> 9)
	}
	m.Set(3, 3, color.White)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plug plugs a camera in and waits until the kernel's driver has it.
func plug(t *testing.T, o webcam.Options) *webcam.Camera {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c *webcam.Camera
	err := uevent.After(ctx, func() (err error) { c, err = webcam.Plug(o); return err }, func() (bool, error) {
		_, ok := named(t, webcam.Name)
		return ok, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestUSBCamera has the kernel's driver for USB cameras show a played one.
func TestUSBCamera(t *testing.T) {
	sizes := []webcam.Size{{Width: 320, Height: 240, Interval: 400_000}, {Width: 640, Height: 480, Interval: 400_000}}
	want := map[webcam.Size][]byte{}
	for _, s := range sizes {
		want[s] = picture(t, s)
	}
	c := plug(t, webcam.Options{Sizes: sizes, Frame: func(_ int, s webcam.Size) ([]byte, bool) { return want[s], false }})
	d := openNamed(t, webcam.Name)
	if i, _ := named(t, webcam.Name); i.Driver != "uvcvideo" || i.Product != "1209:0001" || !strings.HasPrefix(i.Bus, "usb-") {
		t.Errorf("got %+v", i)
	}
	modes, err := d.Modes()
	if err != nil || len(modes) != 1 || modes[0].Pixel != v4l2.MJPG || len(modes[0].Sizes) != 2 || !slices.Equal(modes[0].Sizes[1].Rates, []float64{25}) {
		t.Errorf("got %+v, %v", modes, err)
	}
	controls, err := d.Controls()
	if err != nil || len(controls) != 1 || controls[0].Name != "brightness" || controls[0].Max != 255 || controls[0].Value != 128 {
		t.Fatalf("got %+v, %v", controls, err)
	}
	if err := d.Set(controls[0], 200); err != nil || c.Brightness() != 200 {
		t.Errorf("brightness: got %d, %v", c.Brightness(), err)
	}
	got, err := d.Start(v4l2.Format{Pixel: v4l2.MJPG, Width: 640, Height: 480})
	if err != nil || got.Width != 640 || got.Height != 480 {
		t.Fatalf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	whole := 0
	for whole < 3 {
		err := d.Next(ctx, func(f v4l2.Frame) {
			if f.Bad || !bytes.Equal(f.Data, want[sizes[1]]) {
				t.Logf("frame %d: %d octets, bad %v", f.Sequence, len(f.Data), f.Bad)
				return
			}
			whole++
			if _, err := mjpeg.Check(f.Data); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Unplugged in the middle of a frame.
	c.UnplugWithin(len(want[sizes[1]]) / 2)
	for {
		err := d.Next(ctx, func(v4l2.Frame) {})
		if errors.Is(err, v4l2.ErrGone) {
			break
		}
		if err != nil {
			t.Fatalf("unplugged: %v", err)
		}
	}
	if err := c.Unplug(); err != nil {
		t.Error(err)
	}
	if err := uevent.After(ctx, func() error { return nil }, func() (bool, error) { _, ok := named(t, webcam.Name); return !ok, nil }); err != nil {
		t.Error(err)
	}
}
