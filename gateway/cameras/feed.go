package cameras

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
)

// Bounds of who looks.
const (
	maxFeeds   = 32 // streams through the mesh
	maxFetches = 4  // snapshots at a time; others wait
	maxViewers = 64 // of one of them
	maxOfOne   = 8  // of one login or API token, of all
)

// feed is the one stream of a camera that comes through the mesh.
type feed struct {
	cancel  context.CancelFunc
	viewers map[*Viewer]bool // guarded by the service's mu
	idle    *time.Timer      // likewise
	turns   uint64           // likewise: that viewers beyond the mesh have had
	pace    *mjpeg.Pace      // likewise: of what goes out to those; nil: not known yet
}

// bound has viewers beyond the mesh get no more than the camera's settings allow, whatever
// its node sends; the service's mu is held. There is some room, as what comes evenly from a
// camera does not out of a mesh.
func (f *feed) bound(s model.CameraSettings) { f.pace = f.pace.As(2*s.FPS, s.KbitS+s.KbitS/4) }

// Who is somebody who wants to look.
type Who struct {
	Actor string // the login or API token
	Far   bool   // the answer goes through the mesh
}

// Viewer is somebody who looks at a camera: of the pictures that come, the latest waits.
type Viewer struct {
	service *Service
	at      place
	feed    *feed
	who     Who
	turn    uint64 // the last one, where who is far
	frames  chan []byte
	end     chan struct{} // closed when no more come
	err     error         // then
}

// Watch begins to look at a camera.
func (s *Service) Watch(ctx context.Context, ref, camera string, who Who) (*Viewer, error) {
	n, err := s.find(ctx, ref, camera)
	if err != nil {
		return nil, err
	}
	return s.watch(n, camera, who)
}

func (s *Service) streams(at place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeds[at] != nil
}

func (s *Service) watch(n apitype.Node, camera string, who Who) (*Viewer, error) {
	at := place{n.ID, camera}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.feeds[at]
	switch {
	case s.ended:
		return nil, apitype.Refuse(http.StatusServiceUnavailable, "", "the gateway is stopping").After(5 * time.Second)
	case s.actors[who.Actor] >= maxOfOne, f == nil && len(s.feeds) >= maxFeeds, f != nil && len(f.viewers) >= maxViewers:
		return nil, apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited,
			"there are %d streams through the mesh, and you look at %d; expected at most %d, with %d viewers each, and %d", len(s.feeds), s.actors[who.Actor], maxFeeds, maxViewers, maxOfOne).After(10 * time.Second)
	}
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background()) // it ends behind its last viewer
		f = &feed{cancel: cancel, viewers: map[*Viewer]bool{}}
		s.feeds[at] = f
		s.open.Add(1)
		go func() {
			defer s.open.Done()
			defer cancel()
			s.over(at, f, s.carry(ctx, n, camera, f))
		}()
	}
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
	v := &Viewer{service: s, at: at, feed: f, who: who, frames: make(chan []byte, 1), end: make(chan struct{})}
	f.viewers[v] = true
	s.actors[who.Actor]++
	return v, nil
}

// Next waits for the next picture.
func (v *Viewer) Next(ctx context.Context) ([]byte, error) {
	select {
	case b := <-v.frames:
		return b, nil
	default:
	}
	select {
	case b := <-v.frames:
		return b, nil
	case <-v.end:
		return nil, v.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, apitype.Refuse(http.StatusServiceUnavailable, "", "no picture came in time").After(5 * time.Second)
		}
		return nil, ctx.Err()
	}
}

// Close ends the look.
func (v *Viewer) Close() {
	s := v.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if !v.feed.viewers[v] {
		return
	}
	s.drop(v)
	if f := v.feed; len(f.viewers) == 0 && f.idle == nil {
		f.idle = time.AfterFunc(s.Linger, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if f.idle = nil; len(f.viewers) == 0 {
				f.cancel()
				if s.feeds[v.at] == f {
					delete(s.feeds, v.at) // who comes now needs another one
				}
			}
		})
	}
}

// drop forgets a viewer; mu is held.
func (s *Service) drop(v *Viewer) {
	delete(v.feed.viewers, v)
	s.leave(v.who)
}

// leave counts one look less; mu is held.
func (s *Service) leave(who Who) {
	if s.actors[who.Actor]--; s.actors[who.Actor] <= 0 {
		delete(s.actors, who.Actor)
	}
}

// over ends a feed for all that look.
func (s *Service) over(at place, f *feed, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feeds[at] == f {
		delete(s.feeds, at)
	}
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
	for v := range f.viewers {
		v.err = err
		close(v.end)
		s.drop(v)
	}
}

// carry takes the stream of a camera from its node until ctx ends.
func (s *Service) carry(ctx context.Context, n apitype.Node, camera string, f *feed) error {
	c, err := s.say(ctx, n, camera, http.MethodGet, "", nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	f.bound(c.Settings)
	s.mu.Unlock()
	resp, err := s.request(ctx, n, http.MethodGet, "/"+camera+"/stream", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	watch := time.AfterFunc(quiet, f.cancel)
	defer watch.Stop()
	r := mjpeg.NewReader(moving{resp.Body, func() { watch.Reset(quiet) }})
	for {
		raw, err := r.Next(nil)
		if errors.Is(err, io.EOF) {
			return apitype.Refuse(http.StatusServiceUnavailable, "", "%s has ended the stream: the camera was unplugged, stopped or disabled", n.Name).After(5 * time.Second)
		}
		if err != nil && ctx.Err() != nil {
			return apitype.Refuse(http.StatusServiceUnavailable, "", "nothing of the stream came from %s in %s", n.Name, quiet).After(5 * time.Second)
		}
		if err != nil {
			return unreachable(n, err)
		}
		picture, _, err := mjpeg.Clean(make([]byte, 0, len(raw)), raw)
		if err != nil {
			return wrong(n, err) // a node sends what it has checked
		}
		s.show(f, picture)
	}
}

// show hands a picture to all that look; of who has not taken the one before, that one
// is lost. Those beyond the mesh take turns, so that however many they are, no more goes
// out to them than comes in from the node, and within the camera's fps and kbit_s.
func (s *Service) show(f *feed, picture []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next *Viewer
	now := time.Now()
	for v := range f.viewers {
		switch {
		case !v.who.Far:
			v.give(picture)
		case len(v.frames) > 0: // another picture instead of one costs what it is larger
			f.pace.Spend(now, len(picture)-v.give(picture))
		case next == nil || v.turn < next.turn:
			next = v
		}
	}
	if next != nil && f.pace.Want(now) {
		f.turns++
		next.turn = f.turns
		next.give(picture)
		f.pace.Spend(now, len(picture))
	}
}

// give has the latest picture wait; the service's mu is held. It returns how large the one
// was that it took the place of.
func (v *Viewer) give(picture []byte) (instead int) {
	select {
	case b := <-v.frames:
		instead = len(b)
	default: // it was taken
	}
	v.frames <- picture // nobody else puts any in: there is room
	return instead
}
