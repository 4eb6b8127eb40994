package client

import (
	"context"
	"io"
	"net/http"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// MeshStatus is what the gateway's halo-mesh sees.
func (c *Client) MeshStatus(ctx context.Context) (model.MeshStatus, error) {
	return get[model.MeshStatus](ctx, c, "/v1/mesh/status", nil)
}

// Peers lists the members that the gateway reaches directly.
func (c *Client) Peers(ctx context.Context) ([]model.MeshPeer, error) {
	return pages[model.MeshPeer](ctx, c, "/v1/mesh/peers", nil)
}

// Topology is the mesh as the gateway's routing sees it.
func (c *Client) Topology(ctx context.Context) (model.MeshTopology, error) {
	return get[model.MeshTopology](ctx, c, "/v1/mesh/topology", nil)
}

// Channels lists the channels of the gateway's radios.
func (c *Client) Channels(ctx context.Context) ([]model.RadioChannels, error) {
	l, err := get[apitype.RadioChannelsList](ctx, c, "/v1/mesh/channels", nil)
	return l.Items, err
}

// Legal tells what the law lets the gateway's radios do.
func (c *Client) Legal(ctx context.Context) ([]model.Legality, error) {
	l, err := get[apitype.LegalityList](ctx, c, "/v1/mesh/legality", nil)
	return l.Items, err
}

// Timeline tells how each recovery of the gateway went.
func (c *Client) Timeline(ctx context.Context) ([]model.Recovery, error) {
	l, err := get[apitype.RecoveryList](ctx, c, "/v1/mesh/timeline", nil)
	return l.Items, err
}

// Doctor is what the gateway's path doctor knows.
func (c *Client) Doctor(ctx context.Context) (model.DoctorReport, error) {
	return get[model.DoctorReport](ctx, c, "/v1/mesh/doctor", nil)
}

// Examine has it look at all paths in use first, for up to 20 s.
func (c *Client) Examine(ctx context.Context) (model.DoctorReport, error) {
	var r model.DoctorReport
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/mesh/doctor", wait: 2 * timeout}, &r)
	return r, err
}

// Scan has a radio of the gateway look who is there.
func (c *Client) Scan(ctx context.Context, q model.ScanRequest) (model.RadioScan, error) {
	var s model.RadioScan
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/mesh/scan", body: q}, &s)
	return s, err
}

// Capture writes the pcap of what a radio of the gateway hears and sends to w. It
// is whole, or an error.
func (c *Client) Capture(ctx context.Context, q model.CaptureRequest, w io.Writer) error {
	var file []byte
	wait := time.Duration(q.Seconds)*time.Second + 2*timeout // the recording, and its way here
	if err := c.call(ctx, request{method: http.MethodPost, path: "/v1/mesh/capture", body: q, wait: wait}, &file); err != nil {
		return err
	}
	_, err := w.Write(file)
	return err
}

// Profile returns the mesh profile in use, and how far a change of it is.
func (c *Client) Profile(ctx context.Context) (model.MeshProfile, error) {
	return get[model.MeshProfile](ctx, c, "/v1/mesh/profile", nil)
}

// ChangeProfile has the mesh profile changed, and returns how far that is.
func (c *Client) ChangeProfile(ctx context.Context, change model.ProfileChange) (model.MeshProfile, error) {
	var p model.MeshProfile
	err := c.call(ctx, request{method: http.MethodPut, path: "/v1/mesh/profile", body: change}, &p)
	return p, err
}

// Channel returns where the mesh is.
func (c *Client) Channel(ctx context.Context) (apitype.MeshChannel, error) {
	return get[apitype.MeshChannel](ctx, c, "/v1/mesh/channel", nil)
}

// ChangeChannel has the mesh moved to another channel, and returns how far that is.
func (c *Client) ChangeChannel(ctx context.Context, change apitype.ChangeMeshChannel) (model.MeshProfile, error) {
	var p model.MeshProfile
	err := c.call(ctx, request{method: http.MethodPut, path: "/v1/mesh/channel", body: change}, &p)
	return p, err
}
