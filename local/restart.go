package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"halo.internal/model/paths"
)

// RouteRestart of each process's own socket, and of nothing else, has the process
// end itself.
const RouteRestart = "/v1/restart"

// ErrRestart is why a process ends that was asked to start anew. It is an error on
// purpose: gokrazy starts again what ends with a status other than 0, and takes 0 for
// the wish to be left alone.
var ErrRestart = errors.New("asked to start anew")

// restartable answers RouteRestart in front of h.
func restartable(h http.Handler, asked chan<- struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != RouteRestart {
			h.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, RouteRestart+" takes POST", http.StatusMethodNotAllowed)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		select {
		case asked <- struct{}{}:
		default: // somebody has asked already
		}
	})
}

// ErrProcessAbsent is wrapped when nobody answers on a process's socket.
var ErrProcessAbsent = errors.New("the process does not answer")

// Restart has the process of that socket end itself, in order; gokrazy starts it
// again a second later.
func Restart(ctx context.Context, socket string) error {
	c := newClient(socket, ErrProcessAbsent)
	defer c.http.CloseIdleConnections()
	return c.do(ctx, http.MethodPost, RouteRestart, nil, nil)
}

// Supervisor is gokrazy, which starts HALO's processes and can start the machine
// anew. It listens on a Unix socket that the superuser alone can open.
type Supervisor struct {
	http http.Client
}

// ErrNoSupervisor is wrapped when gokrazy does not answer: this is not one of HALO's
// machines.
var ErrNoSupervisor = errors.New("gokrazy does not answer")

// ErrNoProcess is wrapped when gokrazy has no process of that name.
var ErrNoProcess = errors.New("no such process")

// NewSupervisor returns a client for the socket at that path (paths.GokrazySocket).
func NewSupervisor(socket string) *Supervisor {
	return &Supervisor{http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // to its own page
	}}
}

const (
	supervisorWait = 10 * time.Second
	maxStatus      = 64 << 10

	// serviceWait is how long gokrazy lets each process end in order before a restart of
	// the machine. Its own default, 100 s and as long again after a SIGKILL, is for
	// virtual machines.
	serviceWait = 20 * time.Second
)

// Process is how gokrazy keeps a process.
type Process struct {
	Pid     int
	Stopped bool // it does not run, and is not started again by itself
}

// Process asks for one of HALO's programs.
func (s *Supervisor) Process(ctx context.Context, program string) (Process, error) {
	ctx, cancel := context.WithTimeout(ctx, supervisorWait)
	defer cancel()
	var p Process
	b, err := s.do(ctx, http.MethodGet, "/status", url.Values{"path": {paths.Program(program)}})
	if err != nil {
		return p, fmt.Errorf("%s: %w", program, err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("%s: expected gokrazy's JSON: %w", program, err)
	}
	return p, nil
}

// Kill ends a process at once, as one that hangs has to be; gokrazy starts it again.
func (s *Supervisor) Kill(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, supervisorWait)
	defer cancel()
	_, err := s.do(ctx, http.MethodPost, "/restart", url.Values{"path": {paths.Program(program)}, "signal": {"kill"}, "xsrftoken": {xsrf}})
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// Reboot ends all processes in order, this one among them, unmounts the data
// partition and starts the machine anew. It returns when that is refused, or when ctx
// ends.
func (s *Supervisor) Reboot(ctx context.Context) error {
	return s.stop(ctx, "reboot", url.Values{"kexec": {"off"}})
}

// PowerOff ends all processes in order, this one among them, unmounts the data
// partition and turns the machine off. It returns as Reboot does.
func (s *Supervisor) PowerOff(ctx context.Context) error {
	return s.stop(ctx, "poweroff", url.Values{})
}

func (s *Supervisor) stop(ctx context.Context, how string, form url.Values) error {
	form.Set("wait_per_signal", serviceWait.String())
	if _, err := s.do(ctx, http.MethodPost, "/"+how, form); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	<-ctx.Done() // it comes in a second
	return ctx.Err()
}

// xsrf is what gokrazy wants to see twice, in a cookie and in the form: browsers send
// the one unasked, not the other. This is no browser.
const xsrf = "1"

func (s *Supervisor) do(ctx context.Context, method, route string, form url.Values) ([]byte, error) {
	target, body := "http://gokrazy"+route, io.Reader(nil)
	if method == http.MethodGet {
		target += "?" + form.Encode()
	} else {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: "gokrazy_xsrf", Value: xsrf})
	}
	resp, err := s.http.Do(r)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return nil, fmt.Errorf("%w: %w", ErrNoSupervisor, op.Err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, ErrNoProcess
	case resp.StatusCode/100 > 3:
		return nil, fmt.Errorf("gokrazy says %d: %s", resp.StatusCode, firstLine(b))
	}
	return b, nil
}
