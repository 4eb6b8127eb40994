package ctl_test

import (
	"encoding/json"
	"net/http"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// cameraRoutes are those of a node with one camera.
func cameraRoutes() map[string]any {
	brief := model.CameraBrief{ID: "usb-xhci-1.2", Name: "HD Webcam\x1b[31m"}
	c := model.Camera{
		CameraBrief: brief, Driver: "uvcvideo", Product: "046d:0825", State: model.CameraRunning, Viewers: 1,
		Capture:  &model.CameraCapture{Format: "MJPG", Width: 640, Height: 480, FPS: 5, Since: standInNow},
		Counters: model.CameraCounters{Frames: 120, Bytes: 4 << 20, Truncated: 2, Invalid: 1},
		Modes:    []model.CameraMode{{Format: "MJPG", Usable: true, Sizes: []model.CameraSize{{Width: 640, Height: 480}, {Width: 1280, Height: 720}}}, {Format: "H264"}},
		Controls: []model.CameraControl{{Name: "brightness", Kind: "integer", Max: 255, Step: 1, Default: 128}, {Name: "gain", Kind: "integer", Max: 100, Step: 1}},
		Settings: model.DefaultCameraSettings(),
	}
	c.Settings.Controls = map[string]int64{"gain": 7}
	body := func(r *http.Request, v any) {
		b, _ := r.Context().Value(bodyKey{}).(json.RawMessage)
		if err := json.Unmarshal(b, v); err != nil {
			panic(err)
		}
	}
	const one = "/v1/nodes/n01/cameras/usb-xhci-1.2"
	return map[string]any{
		"GET /v1/cameras":                   apitype.NodeCameraList{Items: []apitype.NodeCamera{{Node: nodeID, Online: true, CameraBrief: brief}}},
		"POST /v1/nodes/n01/cameras/detect": apitype.CameraList{Items: []model.Camera{c}},
		"GET " + one:                        c,
		"PATCH " + one: func(r *http.Request) any {
			var u apitype.UpdateCamera
			body(r, &u)
			changed := c
			changed.Settings = u.Apply(c.Settings)
			return changed
		},
		"POST " + one + "/start": func(r *http.Request) any {
			var q model.CameraStart
			if body(r, &q); q.HoldS != 90 {
				return apitype.Problem{Status: http.StatusUnprocessableEntity, Title: "Unprocessable Entity"}
			}
			return c
		},
		"POST " + one + "/stop":    c,
		"GET " + one + "/snapshot": pcapFile("\xff\xd8 a picture"),
		"POST " + one + "/link": func(r *http.Request) any {
			var q apitype.CreateCameraLink
			body(r, &q)
			return apitype.CameraLink{Path: "/v1/camera-links/" + q.Kind + ".c2ln", Expires: standInNow}
		},
	}
}
