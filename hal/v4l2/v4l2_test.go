package v4l2

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers are those of <linux/videodev2.h> as a C compiler makes them on arm64 and
// amd64; strace prints them so.
func TestRequests(t *testing.T) {
	for name, tc := range map[string]struct{ got, want uint }{
		"VIDIOC_QUERYCAP":            {vidiocQuerycap, 0x80685600},
		"VIDIOC_ENUM_FMT":            {vidiocEnumFmt, 0xc0405602},
		"VIDIOC_S_FMT":               {vidiocSFmt, 0xc0d05605},
		"VIDIOC_REQBUFS":             {vidiocReqbufs, 0xc0145608},
		"VIDIOC_QUERYBUF":            {vidiocQuerybuf, 0xc0585609},
		"VIDIOC_QBUF":                {vidiocQbuf, 0xc058560f},
		"VIDIOC_DQBUF":               {vidiocDqbuf, 0xc0585611},
		"VIDIOC_STREAMON":            {vidiocStreamon, 0x40045612},
		"VIDIOC_STREAMOFF":           {vidiocStreamoff, 0x40045613},
		"VIDIOC_S_PARM":              {vidiocSParm, 0xc0cc5616},
		"VIDIOC_G_CTRL":              {vidiocGCtrl, 0xc008561b},
		"VIDIOC_S_CTRL":              {vidiocSCtrl, 0xc008561c},
		"VIDIOC_QUERYCTRL":           {vidiocQueryctrl, 0xc0445624},
		"VIDIOC_QUERYMENU":           {vidiocQuerymenu, 0xc02c5625},
		"VIDIOC_ENUM_FRAMESIZES":     {vidiocEnumFramesizes, 0xc02c564a},
		"VIDIOC_ENUM_FRAMEINTERVALS": {vidiocEnumFrameintervals, 0xc034564b},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %#x, want %#x", name, tc.got, tc.want)
		}
	}
}

func TestNames(t *testing.T) {
	if got := MJPG.String() + FourCC(0x20203859).String() + FourCC(1).String(); got != "MJPGY8...." {
		t.Errorf("got %q", got)
	}
	for in, want := range map[string]string{"White Balance, Automatic": "white_balance_automatic", "  Gain ": "gain", "50 Hz": "50_hz", "…": ""} {
		if got := ControlName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	got := ordered([]float64{fract{1, 15}.rate(), fract{0, 1}.rate(), fract{1001, 30000}.rate(), fract{1, 15}.rate(), fract{1, 1 << 30}.rate()})
	if want := []float64{29.97, 15}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !fits(640, 16, 4096, 16) || fits(641, 16, 4096, 16) || fits(8, 16, 4096, 0) || !fits(641, 0, 641, 0) {
		t.Error("ranges")
	}
}

func TestNoCamera(t *testing.T) {
	if _, err := Open("/dev/null"); !errors.Is(err, ErrNoCamera) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "video0")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	class, dev := t.TempDir(), t.TempDir()
	for _, name := range []string{"video0", "video1", "radio0"} {
		if err := os.Mkdir(filepath.Join(class, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dev, "video1")); err != nil {
		t.Fatal(err)
	}
	if list, err := listIn(class, dev); err != nil || list != nil {
		t.Errorf("got %v, %v", list, err)
	}
	if list, err := listIn(filepath.Join(class, "none"), dev); err != nil || list != nil {
		t.Errorf("got %v, %v", list, err)
	}
	d := &Device{fd: -1}
	if err := d.Next(t.Context(), nil); err == nil {
		t.Error("a frame of what does not run")
	}
	if _, err := d.Start(Format{Width: MaxWidth + 1, Height: 1}); err == nil || !strings.Contains(err.Error(), "expected a size") {
		t.Errorf("got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := ioctl(-1, "VIDIOC_QUERYCAP", vidiocQuerycap, &capability{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v", err)
	}
}

// Whatever a control says of itself, and whatever it is set to, nothing gets past its
// bounds.
func FuzzControl(f *testing.F) {
	f.Add("Brightness", int64(0), int64(255), int64(1), int64(17), false)
	f.Add("Menu", int64(-5), int64(5), int64(0), int64(6), true)
	f.Fuzz(func(t *testing.T, name string, low, high, step, v int64, menu bool) {
		c := Control{Name: ControlName(name), Kind: "integer", Min: int64(int32(low)), Max: int64(int32(high)), Step: max(int64(int32(step)), 1)}
		if menu {
			c.Kind, c.Menu = "menu", map[int64]string{c.Min: "a"}
		}
		err := c.Check(v)
		if err == nil && (v < c.Min || v > c.Max) && !menu {
			t.Errorf("%d was taken by %+v", v, c)
		}
		if strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("got the name %q", c.Name)
		}
	})
}
