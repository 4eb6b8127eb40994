package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
	"halo.internal/lab/network"
	"halo.internal/model/pcap"
)

// Air is the answer to GET /v1/air.
type Air struct {
	network.AirStatus
	Capture string `json:"capture,omitempty" doc:"file that is being written"`
}

// Place is the body of PUT /v1/air/place.
type Place struct {
	Name string           `json:"name" doc:"of a machine or radio"`
	At   physics.Position `json:"at"`
}

// Cut is the body of PUT /v1/air/cut: nothing passes between the two any more,
// or all does again. DELETE ends all cuts.
type Cut struct {
	A   string `json:"a"`
	B   string `json:"b"`
	Cut bool   `json:"cut"`
}

// Loss is the body of PUT /v1/air/loss.
type Loss struct {
	A    string  `json:"a"`
	B    string  `json:"b"`
	Loss float64 `json:"loss" doc:"share of attempts that is lost besides, 0 to 1"`
}

// Disorder is the body of PUT /v1/air/disorder; an empty one ends it.
type Disorder struct {
	A        string       `json:"a"`
	B        string       `json:"b"`
	Disorder air.Disorder `json:"disorder"`
}

// RadioFault is the body of PUT /v1/air/radio.
type RadioFault struct {
	Name  string `json:"name" doc:"of a machine or radio"`
	Fault string `json:"fault" enum:"unplug,plug,wedge"`
}

// Crash is the body of POST /v1/crash.
type Crash struct {
	Machine string `json:"machine"`
	Process string `json:"process"`
}

// Quiet is the body of DELETE /v1/air/jam.
type Quiet struct {
	FreqMHz int `json:"freq_mhz,omitempty" doc:"0 is all channels"`
}

// Stranger is the body of PUT /v1/air/rogue. DELETE ends it.
type Stranger struct {
	Attack    rogue.Attack     `json:"attack"`
	PerSecond int              `json:"per_second"`
	At        physics.Position `json:"at"`
}

// Capture is the body of PUT /v1/air/capture. DELETE ends it.
type Capture struct {
	Path string `json:"path" doc:"absolute"`
}

// recorder writes what is in the air into one file at a time.
type recorder struct {
	air *air.Air // nil where there is none

	mu   sync.Mutex // guards what follows
	file *os.File   // nil while nothing is written
}

var errNoCapture = errors.New("nothing of the air is being captured")

func (r *recorder) start(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.air == nil {
		return network.ErrNoAir
	}
	if r.file != nil {
		return fmt.Errorf("the air is captured to %s already", r.file.Name())
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w, err := pcap.New(f, pcap.Radiotap)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file = f
	r.air.Capture(w)
	return nil
}

func (r *recorder) stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return errNoCapture
	}
	r.air.Capture(nil)
	err := r.file.Close()
	r.file = nil
	return err
}

func (r *recorder) path() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return ""
	}
	return r.file.Name()
}

// body hands the body of a request to do.
func body[T any](do func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var v T
		err := json.NewDecoder(r.Body).Decode(&v)
		if err == nil {
			err = do(v)
		}
		answer(w, struct{}{}, err)
	}
}

// plain answers a request without a body.
func plain(do func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, struct{}{}, do()) }
}

func (s *server) radio(f RadioFault) error {
	switch f.Fault {
	case "unplug":
		return s.net.Unplug(f.Name)
	case "plug":
		return s.net.Replug(f.Name)
	case "wedge":
		_, err := s.net.Wedge(f.Name)
		return err
	}
	return fmt.Errorf("fault of a radio: expected unplug, plug or wedge, got %q", f.Fault)
}

// crashLimit is how long a machine may take to kill a process.
const crashLimit = 30 * time.Second

func (s *server) crash(c Crash) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), crashLimit, fmt.Errorf("not within %s", crashLimit))
	defer cancel()
	return s.net.KillProcess(ctx, c.Machine, c.Process)
}

func (s *server) handleAir(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/air", func(w http.ResponseWriter, _ *http.Request) {
		status, err := s.net.AirStatus()
		answer(w, Air{status, s.recorder.path()}, err)
	})
	mux.HandleFunc("PUT /v1/air/place", body(func(p Place) error { return s.net.Move(p.Name, p.At) }))
	mux.HandleFunc("PUT /v1/air/cut", body(func(c Cut) error { return s.net.Cut(c.A, c.B, c.Cut) }))
	mux.HandleFunc("DELETE /v1/air/cut", plain(s.net.Restore))
	mux.HandleFunc("PUT /v1/air/loss", body(func(l Loss) error { return s.net.SetLoss(l.A, l.B, l.Loss) }))
	mux.HandleFunc("PUT /v1/air/disorder", body(func(d Disorder) error { return s.net.SetDisorder(d.A, d.B, d.Disorder) }))
	mux.HandleFunc("PUT /v1/air/radio", body(s.radio))
	mux.HandleFunc("PUT /v1/air/jam", body(s.net.Jam))
	mux.HandleFunc("DELETE /v1/air/jam", body(func(q Quiet) error { return s.net.Quiet(q.FreqMHz) }))
	mux.HandleFunc("PUT /v1/air/rogue", body(func(r Stranger) error {
		return s.net.StartRogue(rogue.Config{Attack: r.Attack, PerSecond: r.PerSecond}, r.At)
	}))
	mux.HandleFunc("DELETE /v1/air/rogue", plain(s.net.StopRogue))
	mux.HandleFunc("PUT /v1/air/capture", body(func(c Capture) error { return s.recorder.start(c.Path) }))
	mux.HandleFunc("DELETE /v1/air/capture", plain(s.recorder.stop))
}
