package camera

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/mjpeg"
	"halo.internal/model/paths"
)

const (
	snapshotWait = 20 * time.Second
	writeWait    = 20 * time.Second // for one piece of a picture, on a slow link
	maxConns     = 32
	sendBuffer   = 32 << 10 // what waits in the kernel is old when it arrives
	maxBody      = 64 << 10
)

// Handler serves the routes of model.RouteCameras, to whoever can ask it.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	one := model.RouteCameras + "/{camera}"
	mux.HandleFunc("GET "+model.RouteCameras, func(w http.ResponseWriter, _ *http.Request) { answer(w, s.List(), nil) })
	mux.HandleFunc("POST "+model.RouteCameras+"/detect", func(w http.ResponseWriter, _ *http.Request) {
		err := s.Look()
		if err != nil && len(s.List()) > 0 {
			s.Log.Warn("not all cameras could be looked at", "err", err)
			err = nil // those that could are told
		}
		answer(w, s.List(), err)
	})
	mux.HandleFunc("GET "+one, func(w http.ResponseWriter, r *http.Request) { s.about(w, r, func(*unit) error { return nil }) })
	mux.HandleFunc("POST "+one+"/stop", func(w http.ResponseWriter, r *http.Request) {
		s.about(w, r, func(u *unit) error { u.end("the camera was stopped"); return nil })
	})
	mux.HandleFunc("POST "+one+"/start", func(w http.ResponseWriter, r *http.Request) {
		s.about(w, r, func(u *unit) error {
			q := model.CameraStart{HoldS: model.DefaultCameraHoldS}
			if err := read(r, &q); err != nil {
				return err
			}
			if q.HoldS < 1 || q.HoldS > model.MaxCameraHoldS {
				return apitype.Refuse(http.StatusUnprocessableEntity, "", "hold_s: expected 1 to %d, got %d", model.MaxCameraHoldS, q.HoldS)
			}
			return u.start(time.Duration(q.HoldS) * time.Second)
		})
	})
	mux.HandleFunc("PUT "+one+"/settings", func(w http.ResponseWriter, r *http.Request) {
		var q model.CameraSettings
		if err := read(r, &q); err != nil {
			answer(w, nil, err)
			return
		}
		c, err := s.Set(r.PathValue("camera"), q)
		answer(w, c, err)
	})
	mux.HandleFunc("GET "+one+"/snapshot", s.snapshot)
	mux.HandleFunc("GET "+one+"/stream", s.stream)
	return mux
}

func read(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return nil
	}
	if len(b) > maxBody {
		return apitype.Refuse(http.StatusRequestEntityTooLarge, "", "expected at most %d octets", maxBody)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return apitype.Refuse(http.StatusBadRequest, "", "expected JSON: %v", err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok {
			p = apitype.Refuse(http.StatusInternalServerError, "", "%v", err)
		}
		apitype.WriteProblem(w, p)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

// about does something with a camera and tells how it is then.
func (s *Service) about(w http.ResponseWriter, r *http.Request, do func(*unit) error) {
	u, err := s.camera(r.PathValue("camera"))
	if err == nil {
		err = do(u)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	answer(w, u.status(), nil)
}

// view joins the viewers of the camera that a request is about.
func (s *Service) view(w http.ResponseWriter, r *http.Request) (*unit, *viewer, bool) {
	u, err := s.camera(r.PathValue("camera"))
	if err != nil {
		answer(w, nil, err)
		return nil, nil, false
	}
	v, err := u.join()
	if err != nil {
		answer(w, nil, err)
		return nil, nil, false
	}
	return u, v, true
}

func (s *Service) snapshot(w http.ResponseWriter, r *http.Request) {
	u, v, ok := s.view(w, r)
	if !ok {
		return
	}
	defer u.part(v)
	select {
	case <-r.Context().Done():
	case <-v.end:
		answer(w, nil, apitype.Refuse(http.StatusConflict, "", "there is no picture: %s", v.why))
	case <-time.After(snapshotWait):
		detail := u.status().Detail
		if detail == "" {
			detail = "its bound of kbit/s may be used up"
		}
		answer(w, nil, apitype.Refuse(http.StatusServiceUnavailable, "", "no picture came within %s: %s", snapshotWait, detail).After(5*time.Second))
	case b := <-v.frames:
		w.Header().Set("Content-Type", "image/jpeg")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = slowly(w).Write(b) // the client went away: nobody to tell
	}
}

// slowly writes an answer that has time as long as it gets on.
func slowly(w http.ResponseWriter) io.Writer {
	c := http.NewResponseController(w)
	return mjpeg.Slowly(w, func() { _ = c.SetWriteDeadline(time.Now().Add(writeWait)) }) // no server, no deadline
}

func (s *Service) stream(w http.ResponseWriter, r *http.Request) {
	u, v, ok := s.view(w, r)
	if !ok {
		return
	}
	defer u.part(v)
	c := http.NewResponseController(w)
	// The end is written too, perhaps long after the last picture.
	defer func() { _ = c.SetWriteDeadline(time.Now().Add(writeWait)) }()
	w.Header().Set("Content-Type", mjpeg.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if c.Flush() != nil { // so that the client knows that it is served
		return
	}
	for out := slowly(w); ; {
		select {
		case <-r.Context().Done():
			return
		case <-v.end:
			return
		case b := <-v.frames:
			if mjpeg.WriteFrame(out, b) != nil || c.Flush() != nil {
				return
			}
		}
	}
}

// Serve serves the cameras at the node's overlay address, for the gateway alone: the
// firewall takes packets of the overlay's from its interface only, and who has the
// gateway's address there has proven its key to WireGuard. As the gateway lends that to
// devices of people's, each request shows a pass of it besides. address tells the
// node's; it may come late and change. Serve returns when ctx ends.
func (s *Service) Serve(ctx context.Context, address func() (netip.Addr, bool)) {
	const every = 2 * time.Second
	failed := false
	for ctx.Err() == nil {
		if a, ok := address(); ok {
			l, err := listen(ctx, netip.AddrPortFrom(a, paths.CameraPort), paths.OverlayGateway)
			if (err != nil) != failed {
				if failed = err != nil; failed {
					s.Log.Warn("cameras cannot be asked for", "err", err)
				}
			}
			if err == nil {
				s.answerAt(ctx, l, func() bool { now, ok := address(); return ok && now == a })
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

func listen(ctx context.Context, at netip.AddrPort, gateway netip.Addr) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return netutil.LimitListener(door{l, gateway}, maxConns), nil
}

// door lets the gateway in alone, so that nobody else takes its connections up, and has
// little wait in the kernel.
type door struct {
	net.Listener
	gateway netip.Addr
}

// Accept implements net.Listener.
func (l door) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t, ok := c.(*net.TCPConn)
		if !ok || t.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() != l.gateway {
			_ = c.Close() // refused
			continue
		}
		_ = t.SetWriteBuffer(sendBuffer) // a longer one is slower and works
		return c, nil
	}
}

// answerAt serves until ctx ends or the address is another one.
func (s *Service) answerAt(ctx context.Context, l net.Listener, same func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler: s.only(s.Handler()), ReadHeaderTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case err := <-done:
			s.Log.Warn("cameras are not served any more", "err", err)
			return
		case <-tick.C:
			if same() {
				continue
			}
		}
		_ = server.Close() // streams have no end of their own
		<-done
		return
	}
}

// only lets in who shows the gateway's pass.
func (s *Service) only(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The answer's Date tells a gateway of another time by which one to make it.
		if err := s.Network.CheckPass(r.Header.Get("Authorization"), s.Node, r.Method+" "+r.URL.RequestURI(), s.Now()); err != nil {
			w.Header().Set("Connection", "close") // there are few
			apitype.WriteProblem(w, apitype.Refuse(http.StatusUnauthorized, "", "%v", err))
			return
		}
		h.ServeHTTP(w, r)
	})
}
