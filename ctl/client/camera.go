package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
)

func camerasPath(node string) string { return nodePath(node) + "/cameras" }

func cameraPath(node, camera string) string {
	return camerasPath(node) + "/" + url.PathEscape(camera)
}

// Cameras lists those that are plugged in at a node, or with an empty node at all.
func (c *Client) Cameras(ctx context.Context, node string) ([]apitype.NodeCamera, error) {
	return all(func(cursor string) ([]apitype.NodeCamera, string, error) {
		l, err := get[apitype.NodeCameraList](ctx, c, "/v1/cameras", page(filter(map[string]string{"node": node}), cursor))
		return l.Items, l.Next, err
	})
}

// DetectCameras has a node look which there are.
func (c *Client) DetectCameras(ctx context.Context, node string) ([]model.Camera, error) {
	var l apitype.CameraList
	err := c.call(ctx, request{method: http.MethodPost, path: camerasPath(node) + "/detect"}, &l)
	return l.Items, err
}

// Camera tells of one.
func (c *Client) Camera(ctx context.Context, node, camera string) (model.Camera, error) {
	return get[model.Camera](ctx, c, cameraPath(node, camera), nil)
}

// UpdateCamera changes settings of one.
func (c *Client) UpdateCamera(ctx context.Context, node, camera string, u apitype.UpdateCamera) (model.Camera, error) {
	var m model.Camera
	err := c.call(ctx, request{method: http.MethodPatch, path: cameraPath(node, camera), body: u}, &m)
	return m, err
}

// StartCamera has one run for some time.
func (c *Client) StartCamera(ctx context.Context, node, camera string, q model.CameraStart) (model.Camera, error) {
	var m model.Camera
	err := c.call(ctx, request{method: http.MethodPost, path: cameraPath(node, camera) + "/start", body: q}, &m)
	return m, err
}

// StopCamera ends its pictures for all.
func (c *Client) StopCamera(ctx context.Context, node, camera string) (model.Camera, error) {
	var m model.Camera
	err := c.call(ctx, request{method: http.MethodPost, path: cameraPath(node, camera) + "/stop"}, &m)
	return m, err
}

// CameraSnapshot writes a picture of one.
func (c *Client) CameraSnapshot(ctx context.Context, node, camera string, w io.Writer) error {
	return c.call(ctx, request{method: http.MethodGet, path: cameraPath(node, camera) + "/snapshot", most: mjpeg.MaxFrame, wait: 2 * timeout}, w)
}

// CameraLink makes a link that shows one without a login, and returns it with its
// whole URL.
func (c *Client) CameraLink(ctx context.Context, node, camera string, q apitype.CreateCameraLink) (l apitype.CameraLink, at string, err error) {
	err = c.call(ctx, request{method: http.MethodPost, path: cameraPath(node, camera) + "/link", body: q}, &l)
	return l, c.base.JoinPath(l.Path).String(), err
}
