// Package cameras shows nodes' cameras to people: it asks the nodes, over the overlay
// and with passes that the gateway signs, and hands their pictures on. However many
// look at a camera, its stream comes through the mesh once; who is slow loses frames
// without delaying anybody. What a node sends is checked, as it may be in other hands.
package cameras

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

const (
	askWait      = 20 * time.Second // for a node's answer
	snapshotWait = 30 * time.Second // for a picture to begin, besides what the node itself waits, and to go on
	snapshotMost = 55 * time.Second // for all of it: the gateway's clients have a minute
	linger       = 3 * time.Second  // a stream goes on behind its last viewer
	quiet        = 3 * time.Minute  // a stream of which nothing comes is over
	maxAnswer    = 1 << 20
	maxText      = 64
)

// Config is what New needs.
type Config struct {
	Key identity.Key // the gateway's
	// Node finds a node by its ID or name; an error is for clients.
	Node func(ctx context.Context, ref string) (apitype.Node, error)
	Now  func() time.Time
	Log  *slog.Logger

	Dial   func(ctx context.Context, at netip.AddrPort) (net.Conn, error) // nil: the network
	Linger time.Duration                                                  // 0: the usual time
}

// Service may be used from any goroutine.
type Service struct {
	Config
	http  *http.Client
	links cipher.AEAD // of links, which end with the process

	fetches chan struct{} // a token for each snapshot that is fetched: pictures are large

	mu      sync.Mutex // guards what follows
	known   map[string][]model.CameraBrief
	feeds   map[place]*feed
	actors  map[string]int          // viewers of each
	changes map[place]chan struct{} // of settings, one at a time; closed when it is over
	ended   bool
	open    sync.WaitGroup
}

// place names a camera.
type place struct{ node, camera string }

// New returns a service.
func New(c Config) *Service {
	s := &Service{Config: c, links: newSeal(), known: map[string][]model.CameraBrief{}, feeds: map[place]*feed{}, actors: map[string]int{},
		changes: map[place]chan struct{}{}, fetches: make(chan struct{}, maxFetches)}
	if s.Linger == 0 {
		s.Linger = linger
	}
	if s.Dial == nil {
		dialer := &net.Dialer{Timeout: askWait}
		s.Dial = func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", at.String())
		}
	}
	s.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				at, err := netip.ParseAddrPort(addr)
				if err != nil {
					return nil, err
				}
				return s.Dial(ctx, at)
			},
			ResponseHeaderTimeout: snapshotWait, MaxResponseHeaderBytes: 16 << 10, MaxIdleConns: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
			ReadBufferSize: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Run ends all streams when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	for _, f := range s.feeds {
		f.cancel()
	}
	s.mu.Unlock()
	s.open.Wait()
	s.http.CloseIdleConnections()
	return nil
}

// Report takes which cameras a node says that it has.
func (s *Service) Report(node string, list []model.CameraBrief) {
	var kept []model.CameraBrief
	for _, c := range list[:min(len(list), model.MaxCameras)] {
		if model.ValidCameraID(c.ID) {
			kept = append(kept, model.CameraBrief{ID: c.ID, Name: clip(c.Name)})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, node)
	if len(kept) > 0 {
		s.known[node] = kept
	}
}

// Known are the cameras that nodes have reported, in the order of nodes and cameras.
func (s *Service) Known() (list []apitype.NodeCamera) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, cameras := range s.known {
		for _, c := range cameras {
			list = append(list, apitype.NodeCamera{Node: node, CameraBrief: c})
		}
	}
	order.By(list, func(a, b apitype.NodeCamera) int { return strings.Compare(a.Node+" "+a.ID, b.Node+" "+b.ID) })
	return list
}

// Detect has a node look at what is plugged in.
func (s *Service) Detect(ctx context.Context, ref string) ([]model.Camera, error) {
	n, err := s.node(ctx, ref)
	if err != nil {
		return nil, err
	}
	var list []model.Camera
	if err := s.ask(ctx, n, http.MethodPost, "/detect", nil, &list); err != nil {
		return nil, err
	}
	kept := []model.Camera{}
	var briefs []model.CameraBrief
	for _, c := range list[:min(len(list), model.MaxCameras)] {
		if trim(&c) {
			kept, briefs = append(kept, c), append(briefs, c.CameraBrief)
		}
	}
	s.Report(n.ID, briefs)
	return kept, nil
}

// Get tells of a camera.
func (s *Service) Get(ctx context.Context, ref, camera string) (model.Camera, error) {
	return s.about(ctx, ref, camera, http.MethodGet, "", nil)
}

// Start has a camera make pictures for some time without viewers.
func (s *Service) Start(ctx context.Context, ref, camera string, q model.CameraStart) (model.Camera, error) {
	return s.about(ctx, ref, camera, http.MethodPost, "/start", q)
}

// Stop ends a camera's pictures for all that look.
func (s *Service) Stop(ctx context.Context, ref, camera string) (model.Camera, error) {
	return s.about(ctx, ref, camera, http.MethodPost, "/stop", nil)
}

// Tag returns the entity tag of a camera's settings.
func Tag(c model.Camera) string { return etag.Of(c.Settings) }

// Update changes settings of a camera that meet a condition.
func (s *Service) Update(ctx context.Context, ref, camera string, m etag.Match, u apitype.UpdateCamera) (model.Camera, error) {
	n, err := s.find(ctx, ref, camera)
	if err != nil {
		return model.Camera{}, err
	}
	over, err := s.change(ctx, place{n.ID, camera})
	if err != nil {
		return model.Camera{}, err
	}
	defer over()
	c, err := s.Get(ctx, ref, camera)
	if err != nil {
		return c, err
	}
	if err := m.Check(Tag(c)); err != nil {
		return c, err
	}
	next := u.Apply(c.Settings)
	if err := next.Check(); err != nil {
		return c, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	return s.about(ctx, ref, camera, http.MethodPut, "/settings", next)
}

// change waits until nobody else changes settings of the camera. A node that does not
// answer holds up its own alone.
func (s *Service) change(ctx context.Context, at place) (over func(), err error) {
	for {
		s.mu.Lock()
		other, busy := s.changes[at]
		if !busy {
			done := make(chan struct{})
			s.changes[at] = done
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.changes, at)
				s.mu.Unlock()
				close(done)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Service) about(ctx context.Context, ref, camera, method, path string, body any) (c model.Camera, err error) {
	n, err := s.find(ctx, ref, camera)
	if err != nil {
		return c, err
	}
	if c, err = s.say(ctx, n, camera, method, path, body); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f := s.feeds[place{n.ID, camera}]; f != nil {
			f.bound(c.Settings)
		}
	}
	return c, err
}

// say asks a node about a camera.
func (s *Service) say(ctx context.Context, n apitype.Node, camera, method, path string, body any) (c model.Camera, err error) {
	if err := s.ask(ctx, n, method, "/"+camera+path, body, &c); err != nil {
		return c, err
	}
	if !trim(&c) || c.ID != camera {
		return c, wrong(n, fmt.Errorf("expected camera %s, got %.64q", camera, c.ID))
	}
	return c, nil
}

// node finds a node that can be asked.
func (s *Service) node(ctx context.Context, ref string) (apitype.Node, error) {
	n, err := s.Node(ctx, ref)
	switch {
	case err != nil:
		return n, err
	case n.Revoked:
		return n, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeRevoked, "node %s was revoked", n.Name)
	case !n.OverlayV4.IsValid():
		return n, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeCannot, "%s has no overlay address", n.Name)
	}
	return n, nil
}

func (s *Service) find(ctx context.Context, ref, camera string) (apitype.Node, error) {
	n, err := s.node(ctx, ref)
	if err == nil && !model.ValidCameraID(camera) {
		err = apitype.Refuse(http.StatusNotFound, "", "there is no camera %.64q", camera)
	}
	return n, err
}

// ask asks a node and decodes its answer.
func (s *Service) ask(ctx context.Context, n apitype.Node, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	resp, err := s.request(ctx, n, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return unreachable(n, err)
	}
	if len(b) > maxAnswer {
		return wrong(n, fmt.Errorf("expected at most %d octets", maxAnswer))
	}
	if err := json.Unmarshal(b, out); err != nil {
		return wrong(n, err)
	}
	return nil
}

// request makes a request of a node, whose answer has the status 200. A node whose clock
// is another one gets a pass of its own time.
func (s *Service) request(ctx context.Context, n apitype.Node, method, path string, body any) (*http.Response, error) {
	at := s.Now()
	for again := false; ; again = true {
		resp, err := s.requestAt(ctx, n, method, path, body, at)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		date, dateErr := http.ParseTime(resp.Header.Get("Date"))
		err = refusal(n, resp)
		_ = resp.Body.Close() // it was read
		if resp.StatusCode != http.StatusUnauthorized || again || dateErr != nil {
			return nil, err
		}
		at = date
	}
}

func (s *Service) requestAt(ctx context.Context, n apitype.Node, method, path string, body any, at time.Time) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: netip.AddrPortFrom(n.OverlayV4, paths.CameraPort).String(), Path: model.RouteCameras + path}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), in)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", s.Key.Pass(n.ID, method+" "+u.RequestURI(), at))
	resp, err := s.http.Do(r)
	if err != nil {
		return nil, unreachable(n, err)
	}
	return resp, nil
}

// refusal makes a problem of a node's. Its words are for people, its status for programs
// where they mean the same here.
func refusal(n apitype.Node, resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var p apitype.Problem
	if err != nil || json.Unmarshal(b, &p) != nil {
		return wrong(n, fmt.Errorf("expected a problem with the status %d, got %.40q", resp.StatusCode, b))
	}
	text := words(p.Detail, 300)
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		return apitype.Refuse(resp.StatusCode, "", "%s: %s", n.Name, text)
	case http.StatusTooManyRequests:
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s: %s", n.Name, text).After(5 * time.Second)
	case http.StatusServiceUnavailable:
		return apitype.Refuse(http.StatusServiceUnavailable, "", "%s: %s", n.Name, text).After(5 * time.Second)
	}
	return apitype.Refuse(http.StatusBadGateway, "", "%s refuses (%d): %s", n.Name, resp.StatusCode, text)
}

func unreachable(n apitype.Node, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return apitype.Refuse(http.StatusServiceUnavailable, "", "%s cannot be asked for its cameras: it is not reached, or its release has none", n.Name).After(10 * time.Second)
}

func wrong(n apitype.Node, err error) error {
	return apitype.Refuse(http.StatusBadGateway, "", "%s answers with what is not of a camera: %v", n.Name, err)
}

// words makes text of what a node says.
func words(s string, most int) string {
	b := []byte(s[:min(len(s), most)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

func clip(s string) string { return words(s, maxText) }

// trim bounds what a node says of a camera, and tells whether it can be one.
func trim(c *model.Camera) bool {
	for _, t := range []*string{&c.Name, &c.Driver, &c.Product} {
		*t = clip(*t)
	}
	c.Detail = words(c.Detail, 300)
	if !slices.Contains([]model.CameraState{model.CameraIdle, model.CameraRunning, model.CameraFailed, model.CameraDisabled}, c.State) {
		c.State = model.CameraFailed
	}
	if c.Capture != nil {
		c.Capture.Format = clip(c.Capture.Format)
	}
	modes := []model.CameraMode{}
	for _, m := range c.Modes[:min(len(c.Modes), model.MaxCameraModes)] {
		m.Format, m.Text = clip(m.Format), clip(m.Text)
		m.Sizes = append([]model.CameraSize{}, m.Sizes[:min(len(m.Sizes), model.MaxCameraSizes)]...)
		for i, s := range m.Sizes {
			m.Sizes[i].FPS = append([]float64{}, s.FPS[:min(len(s.FPS), 32)]...)
		}
		modes = append(modes, m)
	}
	controls := []model.CameraControl{}
	for _, k := range c.Controls[:min(len(c.Controls), model.MaxCameraControls)] {
		k.Name, k.Kind = clip(k.Name), clip(k.Kind)
		menu := map[string]int64{}
		for text, v := range k.Menu {
			if menu[clip(text)] = v; len(menu) == 64 {
				break
			}
		}
		if k.Menu = menu; len(menu) == 0 {
			k.Menu = nil
		}
		controls = append(controls, k)
	}
	c.Modes, c.Controls = modes, controls
	return model.ValidCameraID(c.ID) && c.Settings.Check() == nil
}

// Snapshot returns a picture: of the stream, where somebody looks at it.
func (s *Service) Snapshot(ctx context.Context, ref, camera string, who Who) ([]byte, error) {
	n, err := s.find(ctx, ref, camera)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	if s.streams(place{n.ID, camera}) {
		v, err := s.watch(n, camera, who)
		if err != nil {
			return nil, err
		}
		defer v.Close()
		return v.Next(wait)
	}
	over, err := s.fetch(wait, who)
	if err != nil {
		return nil, err
	}
	defer over()
	b, err := s.still(ctx, n, camera)
	if err != nil {
		return nil, err
	}
	picture, _, err := mjpeg.Clean(make([]byte, 0, len(b)), b)
	if err != nil {
		return nil, wrong(n, err) // a node sends what it has checked
	}
	return picture, nil
}

// still asks a node for a picture, which may take its time if only it gets on.
func (s *Service) still(ctx context.Context, n apitype.Node, camera string) ([]byte, error) {
	within, cancel := context.WithTimeout(ctx, snapshotMost)
	defer cancel()
	stall := time.AfterFunc(snapshotWait, cancel)
	defer stall.Stop()
	resp, err := s.request(within, n, http.MethodGet, "/"+camera+"/snapshot", nil)
	if err == nil {
		defer resp.Body.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(moving{resp.Body, func() { stall.Reset(snapshotWait) }}, mjpeg.MaxFrame+1)); err == nil {
			return b, nil
		}
		err = unreachable(n, err)
	}
	if within.Err() != nil && ctx.Err() == nil { // it took too long
		err = unreachable(n, context.DeadlineExceeded)
	}
	return nil, err
}

// moving calls renew whenever something has come.
type moving struct {
	r     io.Reader
	renew func()
}

func (m moving) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if n > 0 {
		m.renew()
	}
	return n, err
}

// fetch waits for room for one more picture that is fetched for itself. Who asks for it
// has one view less until over is called.
func (s *Service) fetch(ctx context.Context, who Who) (over func(), err error) {
	s.mu.Lock()
	if n := s.actors[who.Actor]; n >= maxOfOne {
		s.mu.Unlock()
		return nil, apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "you look at %d pictures; expected at most %d", n, maxOfOne).After(10 * time.Second)
	}
	s.actors[who.Actor]++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leave(who)
	}
	select {
	case s.fetches <- struct{}{}:
		return func() { <-s.fetches; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, apitype.Refuse(http.StatusServiceUnavailable, "", "too many pictures are fetched").After(5 * time.Second)
	}
}
