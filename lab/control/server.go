package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"halo.internal/lab/disk"
	"halo.internal/lab/ether"
	"halo.internal/lab/machine"
	"halo.internal/lab/network"
	"halo.internal/local"
	"halo.internal/model/pcap"
)

// Options of a lab.
type Options struct {
	Network  network.Options // Dir is set by Serve
	Dir      string          // the lab's own folder
	Capture  string          // pcap file of the switch, or where there is none of the air; none when empty
	Patience time.Duration   // how long the network may take to get ready
}

// server is a running lab.
type server struct {
	net      *network.Network
	recorder recorder
	down     context.CancelFunc

	mu    sync.Mutex // guards what follows
	steps Steps
	cards map[string]*disk.Card // that were taken out, by machine
}

// Serve runs a lab in the folder until ctx ends or a client says so.
func Serve(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if err := Clean(o.Dir); err != nil {
		return err
	}
	o.Network.Dir = filepath.Join(o.Dir, machinesDir)
	if err := os.RemoveAll(o.Network.Dir); err != nil {
		return err
	}
	n, err := network.New(ctx, o.Network)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s := &server{net: n, recorder: recorder{air: n.Air}, cards: map[string]*disk.Card{}}
	defer s.closeCards()
	defer func() {
		if stop := s.recorder.stop(); !errors.Is(stop, errNoCapture) {
			err = errors.Join(err, stop)
		}
	}()
	switch {
	case o.Capture == "":
	case o.Network.Mesh == network.ByAir:
		if err := s.recorder.start(o.Capture); err != nil {
			return err
		}
	default:
		done, err := capture(n.Switch, o.Capture)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
	}

	// A socket's path must be short, the lab's folder need not be.
	run, err := os.MkdirTemp("", "halo-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	self, err := machine.Lookup(os.Getpid())
	if err != nil {
		return err
	}
	gateway, err := n.Machine(network.Gateway)
	if err != nil {
		return err
	}
	l := Lab{Process: self, Socket: filepath.Join(run, "lab.sock"), Network: o.Network.Name, API: gateway.URL(), ClaimCode: n.Bundles.Gateway.Gateway.ClaimCode}

	ctx, down := context.WithCancel(ctx)
	defer down()
	s.down = down
	var running sync.WaitGroup
	defer running.Wait()
	defer down()
	running.Go(func() { s.up(ctx, o.Patience) })
	if err := l.save(o.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(filepath.Join(o.Dir, labFile))) }()
	return local.Serve(ctx, l.Socket, s.handler())
}

// capture records the switch's frames into a file until done is called.
func capture(s *ether.Switch, path string) (done func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	c, err := pcap.New(f, pcap.Ethernet)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.Capture(c)
	return func() error { s.Capture(nil); return f.Close() }, nil
}

// up starts the machines and notes their way.
func (s *server) up(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %s", patience))
	defer cancel()
	err := s.net.PowerOnAll()
	if err == nil {
		err = s.net.Ready(ctx, func(p network.Progress) {
			s.mu.Lock()
			s.steps.Items = append(s.steps.Items, p)
			s.mu.Unlock()
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steps.Ready = err == nil; err != nil {
		s.steps.Failure = err.Error()
	}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.status(), nil) })
	mux.HandleFunc("GET /v1/steps", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, s.steps, nil)
	})
	mux.HandleFunc("POST /v1/machines/{name}/{action}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, s.act(r.Context(), r.PathValue("name"), Action(r.PathValue("action"))))
	})
	mux.HandleFunc("PUT /v1/partition", body(func(p Partition) error { return s.net.Partition(p.Groups...) }))
	mux.HandleFunc("DELETE /v1/partition", func(w http.ResponseWriter, _ *http.Request) {
		s.net.Heal()
		answer(w, struct{}{}, nil)
	})
	mux.HandleFunc("PUT /v1/link", body(func(l Link) error { return s.net.SetLink(l.A, l.B, l.Condition) }))
	mux.HandleFunc("POST /v1/crash", body(s.crash))
	s.handleAir(mux)
	s.handleDevices(mux)
	mux.HandleFunc("DELETE /v1/lab", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, struct{}{}, nil)
		s.down()
	})
	return mux
}

// stopLimit is how long a machine may take to end in order: gokrazy gives its
// services 100 s, and then kills them.
const stopLimit = 5 * time.Minute

func (s *server) act(ctx context.Context, name string, a Action) error {
	m, err := s.net.Machine(name)
	if err != nil {
		return err
	}
	switch a {
	case Reboot:
		return m.Reset(ctx)
	case Stop:
		ctx, cancel := context.WithTimeout(ctx, stopLimit)
		defer cancel()
		return m.Shutdown(ctx)
	case Kill:
		return m.PowerCut()
	case Start:
		return s.net.PowerOn(m)
	case Pause:
		return m.Pause(ctx)
	case Resume:
		return m.Resume(ctx)
	case SwapCard:
		return s.swapCard(ctx, m)
	}
	return fmt.Errorf("action: expected reboot, stop, kill, start, pause, resume or swap-card, got %q", a)
}

func (s *server) swapCard(ctx context.Context, m *network.Machine) error {
	if st := m.Status(); st.State != machine.Off && st.State != machine.Failed {
		return fmt.Errorf("expected a machine that is off, %s is %s", m.Name(), st.State)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := s.cards[m.Name()], error(nil)
	if out == nil {
		out, err = s.net.FreshCard(ctx, m)
	} else {
		out, err = s.net.ReturnCard(m, out)
	}
	if out != nil {
		s.cards[m.Name()] = out
	}
	return err
}

// closeCards lets go of the cards that are out.
func (s *server) closeCards() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.cards {
		_ = c.Close() // nobody wants what is on it
	}
}

func (s *server) status() Status {
	s.mu.Lock()
	st := Status{Network: s.net.Bundles.Node.Network, Ready: s.steps.Ready, Failure: s.steps.Failure}
	s.mu.Unlock()
	air, _ := s.net.AirStatus() // without an air there are no radios
	for _, m := range s.net.Machines() {
		if m.Name() == network.Gateway {
			st.API = m.URL()
		}
		st.Machines = append(st.Machines, Machine{m.Name(), m.Role, m.URL(), m.Forwards(), m.Console(), air.Of(m.Name()), m.Status()})
	}
	st.Switch = Switch{Links: s.net.Switch.Status(), Pairs: s.net.Switch.Pairs()}
	return st
}

// problem is the body of an answer that is none.
type problem struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		v = problem{err.Error()}
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}
