package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/cameras"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
	"halo.internal/model/paths"
)

// CameraPath names a camera of a node in a path.
type CameraPath struct {
	NodePath
	Camera string `path:"camera" maxLength:"64" doc:"ID of the camera at its node" example:"usb-xhci-hcd.0.auto-1.2"`
}

const (
	cameraWrite = 20 * time.Second // for one piece of a picture to a client
	cameraCheck = 5 * time.Second  // between two looks whether the login still holds
)

// pictures are the answers of routes with them.
func pictures(kinds ...string) map[string]*huma.Response {
	r := &huma.Response{Description: "pictures", Content: map[string]*huma.MediaType{}}
	for _, kind := range kinds {
		r.Content[kind] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	}
	return map[string]*huma.Response{"200": r}
}

const multipartPictures = "multipart/x-mixed-replace"

func (a *API) cameraRoutes() {
	tags := []string{"cameras"}
	const one = "/v1/nodes/{id}/cameras/{camera}"
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-cameras", Method: http.MethodGet, Path: "/v1/cameras", Tags: tags,
		Summary: "Cameras that are plugged in at nodes", Description: "As the nodes have said last; get-camera asks the node how one is.",
	}, func(ctx context.Context, i *struct {
		Page
		Node string `query:"node" maxLength:"64" doc:"canonical ID or name: of it" example:"mast-3"`
	}) (*body[apitype.NodeCameraList], error) {
		return answer(a.cameraList(ctx, i.Node, i.Page))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "detect-cameras", Method: http.MethodPost, Path: "/v1/nodes/{id}/cameras/detect", Tags: tags,
		Summary: "Have a node look which cameras are plugged in, and tell all of them", Description: "A node hears by itself when one is plugged in: this is for when that was missed, and for all that there is to know of its cameras.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.CameraList], error) {
		list, err := a.Cameras.Detect(ctx, i.ID)
		return answer(apitype.CameraList{Items: list}, err)
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-camera", Method: http.MethodGet, Path: one, Tags: tags,
		Summary: "How a camera is, what it offers, and its settings", Description: "The ETag is of the settings.",
	}, func(ctx context.Context, i *CameraPath) (*tagged[model.Camera], error) {
		c, err := a.Cameras.Get(ctx, i.ID, i.Camera)
		return tag(c, cameras.Tag(c), err)
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "update-camera", Method: http.MethodPatch, Path: one, Tags: tags,
		Summary: "Change settings of a camera: those that are named", Description: "They hold at once, and its node keeps them by where the camera is plugged in. fps and kbit_s bound what goes into the mesh, however many look.",
	}, func(ctx context.Context, i *struct {
		CameraPath
		IfMatch
		In[apitype.UpdateCamera]
	}) (*tagged[model.Camera], error) {
		callerOf(ctx).target = i.ID + " " + i.Camera
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		c, err := a.Cameras.Update(ctx, i.ID, i.Camera, m, i.Body)
		return tag(c, cameras.Tag(c), err)
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "start-camera", Method: http.MethodPost, Path: one + "/start", Tags: tags,
		Summary: "Have a camera run for some time, so that pictures come at once", Description: "It runs by itself while somebody looks: this is never needed to look.",
	}, func(ctx context.Context, i *struct {
		CameraPath
		In[model.CameraStart]
	}) (*body[model.Camera], error) {
		callerOf(ctx).target = i.ID + " " + i.Camera
		return answer(a.Cameras.Start(ctx, i.ID, i.Camera, i.Body))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "stop-camera", Method: http.MethodPost, Path: one + "/stop", Tags: tags,
		Summary: "End a camera's pictures for all that look", Description: "Who looks again has it run again; the setting enabled forbids that.",
	}, func(ctx context.Context, i *CameraPath) (*body[model.Camera], error) {
		callerOf(ctx).target = i.ID + " " + i.Camera
		return answer(a.Cameras.Stop(ctx, i.ID, i.Camera))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-camera-snapshot", Method: http.MethodGet, Path: one + "/snapshot", Tags: tags,
		Summary: "A picture of a camera", Responses: pictures("image/jpeg"),
	}, func(ctx context.Context, i *CameraPath) (*rawAnswer, error) {
		return a.snapshot(ctx, i.ID, i.Camera, looks(ctx, callerOf(ctx).Principal))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "stream-camera", Method: http.MethodGet, Path: one + "/stream", Tags: tags,
		Summary: "The moving picture of a camera, without end", Description: "Each part is a JPEG picture (MJPEG). However many look, it comes through the mesh once; who is slow gets fewer pictures.",
		Responses: pictures(multipartPictures),
	}, func(ctx context.Context, i *CameraPath) (*huma.StreamResponse, error) {
		p := callerOf(ctx).Principal
		v, err := a.Cameras.Watch(ctx, i.ID, i.Camera, looks(ctx, p))
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.stream(hc, v, p) }}, nil
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "create-camera-link", Method: http.MethodPost, Path: one + "/link", Tags: tags,
		Summary: "A signed link that shows a camera without a login, to be opened within a minute at most", DefaultStatus: http.StatusCreated,
		Description: "For what can send no header, as a browser's img. It is for this camera and whoever asks for it: when that login ends, so does a stream.",
	}, func(ctx context.Context, i *struct {
		CameraPath
		In[apitype.CreateCameraLink]
	}) (*body[apitype.CameraLink], error) {
		c := callerOf(ctx)
		c.target = i.ID + " " + i.Camera
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		if !model.ValidCameraID(i.Camera) {
			return nil, apitype.Refuse(http.StatusNotFound, "", "there is no camera %.64q", i.Camera)
		}
		return answer(a.cameraLink(c.Principal, n.ID, i.Camera, i.Body))
	})
	register(a, entry, huma.Operation{
		OperationID: "open-camera-link", Method: http.MethodGet, Path: "/v1/camera-links/{ticket}", Tags: tags,
		Summary: "What a signed link shows", Responses: pictures("image/jpeg", multipartPictures),
	}, func(ctx context.Context, i *struct {
		Ticket string `path:"ticket" maxLength:"1024" doc:"of create-camera-link" example:"q7Qx0vYw3n5K"`
	}) (*huma.StreamResponse, error) {
		l, err := a.Cameras.Open(i.Ticket)
		if err != nil {
			return nil, err
		}
		p, err := a.Auth.Standing(ctx, auth.Principal{Kind: l.By, Name: l.Name, Session: l.Session})
		if err == nil {
			err = p.Require(apitype.ScopeNodesRead)
		}
		if err != nil {
			return nil, apitype.Refuse(http.StatusNotFound, "", "the login that this link was made with has ended, or may see no cameras any more")
		}
		if l.Kind == apitype.CameraSnapshot {
			picture, err := a.Cameras.Snapshot(ctx, l.Node, l.Camera, looks(ctx, p))
			if err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(hc huma.Context) {
				hc.SetHeader("Content-Type", "image/jpeg")
				_, _ = hc.BodyWriter().Write(picture) // the client went away: nobody to tell
			}}, nil
		}
		v, err := a.Cameras.Watch(ctx, l.Node, l.Camera, looks(ctx, p))
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.stream(hc, v, p) }}, nil
	})
}

func (a *API) cameraList(ctx context.Context, node string, p Page) (l apitype.NodeCameraList, err error) {
	l.Items = []apitype.NodeCamera{}
	if node != "" {
		n, err := a.Registry.Node(ctx, node)
		if err != nil {
			return l, err
		}
		node = n.ID
	}
	at := func(c apitype.NodeCamera) string { return c.Node + " " + c.ID }
	for _, c := range a.Cameras.Known() {
		if node != "" && c.Node != node || at(c) <= p.Cursor {
			continue
		}
		n, err := a.Registry.Node(ctx, c.Node)
		if problem, ok := errors.AsType[*apitype.Problem](err); ok && problem.Status == http.StatusNotFound || err == nil && n.Revoked {
			continue
		}
		if err != nil {
			return l, err
		}
		if len(l.Items) == p.Limit {
			l.Next = at(l.Items[len(l.Items)-1])
			break
		}
		c.Online = n.Online
		l.Items = append(l.Items, c)
	}
	return l, nil
}

// looks is who looks, and whether from beyond the mesh.
func looks(ctx context.Context, p auth.Principal) cameras.Who {
	return cameras.Who{Actor: p.Actor(), Far: far(callerOf(ctx).remote)}
}

// far tells whether answers to an address go through the mesh: to members and their
// clients. Of unique local IPv6 addresses, which are not the mesh's alone, all are taken
// for far.
func far(remote netip.Addr) bool {
	if remote == paths.OverlayGateway {
		return false // this device itself
	}
	within := func(p netip.Prefix) bool { return p.Contains(remote) }
	return remote.Is6() && remote.IsPrivate() || within(paths.UnderlayNet) || within(paths.OverlayNet) || within(paths.ClientsNet)
}

func (a *API) snapshot(ctx context.Context, node, camera string, who cameras.Who) (*rawAnswer, error) {
	b, err := a.Cameras.Snapshot(ctx, node, camera, who)
	if err != nil {
		return nil, err
	}
	return &rawAnswer{ContentType: "image/jpeg", Body: b}, nil
}

func (a *API) cameraLink(p auth.Principal, node, camera string, q apitype.CreateCameraLink) (l apitype.CameraLink, err error) {
	if q.Kind == "" {
		q.Kind = apitype.CameraStream
	}
	if q.ExpiresS == 0 {
		q.ExpiresS = apitype.MaxCameraLinkS
	}
	l.Expires = a.Clock.Now().Add(time.Duration(q.ExpiresS) * time.Second).Truncate(time.Second).UTC()
	ticket, err := a.Cameras.Sign(cameras.Link{Node: node, Camera: camera, Kind: q.Kind, By: p.Kind, Name: p.Name, Session: p.Session, Expires: l.Expires.Unix()})
	l.Path = "/v1/camera-links/" + ticket
	return l, err
}

// stream writes pictures as they come, until the client goes, the login ends or no more
// come.
func (a *API) stream(hc huma.Context, v *cameras.Viewer, p auth.Principal) {
	defer v.Close()
	r, w := humago.Unwrap(hc)
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // the server's own is for questions; it would end the answer too
	// The end is written too, perhaps long after the last picture, and behind a deadline
	// that has passed it would be broken TLS.
	defer func() { _ = c.SetWriteDeadline(time.Now().Add(cameraWrite)) }()
	out := mjpeg.Slowly(w, func() { _ = c.SetWriteDeadline(time.Now().Add(cameraWrite)) })
	begun := false
	check := time.Now()
	for {
		wait, cancel := context.WithTimeout(r.Context(), cameraCheck)
		picture, err := v.Next(wait)
		late := wait.Err() != nil && r.Context().Err() == nil
		cancel()
		if err != nil && !late {
			if !begun && r.Context().Err() == nil {
				refuse(hc, a.problem(r.Context(), hc.Operation().OperationID, err))
			}
			return
		}
		if time.Since(check) >= cameraCheck {
			check = time.Now()
			now, err := a.Auth.Standing(r.Context(), p)
			if problem, ok := errors.AsType[*apitype.Problem](err); ok && problem.Status == http.StatusUnauthorized || err == nil && !now.Has(apitype.ScopeNodesRead) {
				return
			}
		}
		if late {
			continue
		}
		if !begun {
			w.Header().Set("Content-Type", mjpeg.ContentType)
			begun = true
		}
		if mjpeg.WriteFrame(out, picture) != nil || c.Flush() != nil {
			return
		}
	}
}
