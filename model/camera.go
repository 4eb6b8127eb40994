package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Bounds of cameras.
const (
	MaxCameras        = 16 // of a node
	MaxCameraControls = 64
	MaxCameraModes    = 16
	MaxCameraSizes    = 64 // of a mode
)

// Routes of the cameras of a node: plain HTTP with JSON, at its overlay address and
// paths.CameraPort, for the gateway alone. Behind a camera's ID come
//
//	GET  ""         Camera
//	PUT  /settings  CameraSettings → Camera
//	POST /start     CameraStart → Camera
//	POST /stop      → Camera
//	GET  /snapshot  image/jpeg
//	GET  /stream    multipart/x-mixed-replace (model/mjpeg)
//
// GET of the route itself answers with []Camera, POST of its /detect too, after it has
// looked at what is plugged in. Errors are RFC 9457 problems.
const RouteCameras = "/v1/cameras"

// CameraBrief is what a node's status says of a camera.
type CameraBrief struct {
	ID   string `json:"id" doc:"of the camera at its node: by where it is plugged in" maxLength:"64" example:"usb-xhci-hcd.0.auto-1.2"`
	Name string `json:"name" doc:"as it calls itself" maxLength:"64" example:"HD Webcam C270"`
}

// CameraState is what a camera does.
type CameraState string

// States of cameras.
const (
	CameraIdle     CameraState = "idle"     // nobody looks
	CameraRunning  CameraState = "running"  // it makes pictures
	CameraFailed   CameraState = "failed"   // it is to make pictures, and does not
	CameraDisabled CameraState = "disabled" // by its settings
)

// Camera is a camera of a node.
type Camera struct {
	CameraBrief
	Driver   string          `json:"driver" doc:"of the kernel" example:"uvcvideo"`
	Product  string          `json:"product,omitempty" doc:"of USB: vendor and product" example:"046d:0825"`
	State    CameraState     `json:"state" enum:"idle,running,failed,disabled"`
	Detail   string          `json:"detail,omitempty" doc:"why it does not make pictures"`
	Viewers  int             `json:"viewers" doc:"streams and snapshots that it is read for at its node; the gateway's viewers are one"`
	Capture  *CameraCapture  `json:"capture,omitempty" doc:"while it makes pictures"`
	Counters CameraCounters  `json:"counters"`
	Modes    []CameraMode    `json:"modes" doc:"what it offers"`
	Controls []CameraControl `json:"controls"`
	Settings CameraSettings  `json:"settings"`
}

// CameraCapture is what a camera makes.
type CameraCapture struct {
	Format string    `json:"format" doc:"by four characters" example:"MJPG"`
	Width  int       `json:"width" example:"640"`
	Height int       `json:"height" example:"480"`
	FPS    float64   `json:"fps" doc:"that the device was asked for; 0: its own" example:"10"`
	Since  time.Time `json:"since"`
}

// CameraCounters count frames since the camera was found.
type CameraCounters struct {
	Frames    uint64 `json:"frames" doc:"for viewers"`
	Bytes     uint64 `json:"bytes" doc:"of these"`
	Skipped   uint64 `json:"skipped" doc:"left out to keep within fps and kbit_s, or as nobody looked"`
	Slow      uint64 `json:"slow" doc:"that one of the viewers was too slow for"`
	Truncated uint64 `json:"truncated" doc:"cut off, by the camera or the bus; dropped"`
	Invalid   uint64 `json:"invalid" doc:"that were no pictures; dropped"`
	Missed    uint64 `json:"missed" doc:"that the kernel dropped, as nobody took them in time"`
}

// CameraMode is a pixel format of a camera.
type CameraMode struct {
	Format string       `json:"format" example:"MJPG"`
	Text   string       `json:"text" example:"Motion-JPEG"`
	Usable bool         `json:"usable" doc:"pictures can be made of it"`
	Sizes  []CameraSize `json:"sizes"`
}

// CameraSize is a size of pictures.
type CameraSize struct {
	Width  int       `json:"width" example:"640"`
	Height int       `json:"height" example:"480"`
	FPS    []float64 `json:"fps" doc:"that it can come at, highest first"`
}

// CameraControl is something of a camera that can be set.
type CameraControl struct {
	Name     string           `json:"name" example:"brightness"`
	Kind     string           `json:"kind" enum:"integer,boolean,menu"`
	Min      int64            `json:"min"`
	Max      int64            `json:"max"`
	Step     int64            `json:"step"`
	Default  int64            `json:"default"`
	Menu     map[string]int64 `json:"menu,omitempty" doc:"values by what they mean"`
	Inactive bool             `json:"inactive,omitempty" doc:"another control decides at present"`
}

// CameraSettings are what people set of a camera; its node keeps them by where it is
// plugged in.
type CameraSettings struct {
	Enabled  bool             `json:"enabled" doc:"it may be looked at"`
	Width    int              `json:"width,omitempty" minimum:"0" maximum:"4096" doc:"of the nearest size that it offers; 0 with height: the largest up to 640x480" example:"640"`
	Height   int              `json:"height,omitempty" minimum:"0" maximum:"4096" example:"480"`
	FPS      float64          `json:"fps" minimum:"0.1" maximum:"30" doc:"frames a second at most" example:"5"`
	KbitS    int              `json:"kbit_s" minimum:"16" maximum:"20000" doc:"kbit/s at most that it sends into the mesh, however many look" example:"200"`
	Quality  int              `json:"quality" minimum:"10" maximum:"95" doc:"of JPEG, where the camera does not make that itself" example:"60"`
	Controls map[string]int64 `json:"controls,omitempty" doc:"values of controls by name; others are as the camera has them" maxProperties:"64"`
}

// DefaultCameraSettings leave a slow mesh to others.
func DefaultCameraSettings() CameraSettings {
	return CameraSettings{Enabled: true, FPS: 5, KbitS: 200, Quality: 60}
}

// Check tells what is wrong with settings, apart from what a certain camera offers.
func (s CameraSettings) Check() error {
	between := func(name string, v, low, high float64) error {
		if math.IsNaN(v) || v < low || v > high {
			return fmt.Errorf("%s: expected %v to %v, got %v", name, low, high, v)
		}
		return nil
	}
	if (s.Width == 0) != (s.Height == 0) {
		return fmt.Errorf("width and height: expected both or neither, got %dx%d", s.Width, s.Height)
	}
	if len(s.Controls) > MaxCameraControls {
		return fmt.Errorf("controls: expected at most %d, got %d", MaxCameraControls, len(s.Controls))
	}
	for name, v := range s.Controls {
		if name == "" || len(name) > 64 || v != int64(int32(v)) {
			return fmt.Errorf("controls: expected names of 1 to 64 characters and values of 32 bits, got %.40q and %d", name, v)
		}
	}
	return cmp.Or(between("width", float64(s.Width), 0, 4096), between("height", float64(s.Height), 0, 4096), between("fps", s.FPS, 0.1, 30),
		between("kbit_s", float64(s.KbitS), 16, 20000), between("quality", float64(s.Quality), 10, 95))
}

// Equal tells whether two settings are the same.
func (s CameraSettings) Equal(o CameraSettings) bool {
	a, b := s, o
	a.Controls, b.Controls = nil, nil
	return a.Enabled == b.Enabled && a.Width == b.Width && a.Height == b.Height && a.FPS == b.FPS && a.KbitS == b.KbitS && a.Quality == b.Quality && maps.Equal(s.Controls, o.Controls)
}

// CameraStart is for how long a camera is to make pictures without viewers, so that the
// first of them comes at once.
type CameraStart struct {
	HoldS int `json:"hold_s,omitempty" minimum:"1" maximum:"600" default:"60" doc:"seconds" example:"60"`
}

// Bounds of CameraStart.
const (
	DefaultCameraHoldS = 60
	MaxCameraHoldS     = 600
)

// CameraID makes an ID of where a camera is plugged in: what is in URLs and file names.
// taken are those of cameras at the same place.
func CameraID(bus string, taken []string) string {
	const most = 56
	var b strings.Builder
	for _, r := range strings.ToLower(bus) {
		switch {
		case b.Len() >= most:
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.' && b.Len() > 0:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	id := strings.Trim(b.String(), "-.")
	if id == "" {
		id = "camera"
	}
	for n, base := 2, id; slices.Contains(taken, id); n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	return id
}

// ValidCameraID tells whether an ID is one that CameraID makes.
func ValidCameraID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && id[0] != '.' && id[0] != '-'
}
