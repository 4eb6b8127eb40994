package apitype

import (
	"time"

	"halo.internal/model"
)

// NodeCamera names a camera of the network.
type NodeCamera struct {
	Node   string `json:"node" doc:"canonical ID"`
	Online bool   `json:"online" doc:"its node's stream is open"`
	model.CameraBrief
}

// NodeCameraList is a page of them.
type NodeCameraList struct {
	Items []NodeCamera `json:"items"`
	Next  string       `json:"next,omitempty"`
}

// CameraList is all cameras of a node.
type CameraList struct {
	Items []model.Camera `json:"items"`
}

// UpdateCamera changes those settings of a camera that it names.
type UpdateCamera struct {
	Enabled  *bool             `json:"enabled,omitempty" doc:"it may be looked at"`
	Width    *int              `json:"width,omitempty" minimum:"0" maximum:"4096" doc:"with height; 0 and 0: the largest size up to 640x480" example:"640"`
	Height   *int              `json:"height,omitempty" minimum:"0" maximum:"4096" example:"480"`
	FPS      *float64          `json:"fps,omitempty" minimum:"0.1" maximum:"30" doc:"frames a second at most" example:"5"`
	KbitS    *int              `json:"kbit_s,omitempty" minimum:"16" maximum:"20000" doc:"kbit/s at most that it sends into the mesh" example:"200"`
	Quality  *int              `json:"quality,omitempty" minimum:"10" maximum:"95" doc:"of JPEG, where the camera does not make that itself" example:"60"`
	Controls *map[string]int64 `json:"controls,omitempty" doc:"of controls, all that are not to be as the camera has them" maxProperties:"64"`
}

// Apply returns settings with the change.
func (u UpdateCamera) Apply(s model.CameraSettings) model.CameraSettings {
	set(&s.Enabled, u.Enabled)
	set(&s.Width, u.Width)
	set(&s.Height, u.Height)
	set(&s.FPS, u.FPS)
	set(&s.KbitS, u.KbitS)
	set(&s.Quality, u.Quality)
	set(&s.Controls, u.Controls)
	return s
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// What a camera link shows.
const (
	CameraStream   = "stream"
	CameraSnapshot = "snapshot"
)

// MaxCameraLinkS is how many seconds a link may be opened.
const MaxCameraLinkS = 60

// CreateCameraLink asks for a link to a camera's pictures.
type CreateCameraLink struct {
	Kind     string `json:"kind,omitempty" enum:"stream,snapshot" default:"stream"`
	ExpiresS int    `json:"expires_s,omitempty" minimum:"1" maximum:"60" default:"60" doc:"for how many seconds it can be opened"`
}

// CameraLink is a link that shows a camera without a login, as a browser's <img> does.
type CameraLink struct {
	Path    string    `json:"path" doc:"on this gateway; a secret until it expires" example:"/v1/camera-links/q7Qx0vYw3n5K"`
	Expires time.Time `json:"expires" doc:"until then it can be opened; a stream goes on while the login that it was made with holds"`
}
