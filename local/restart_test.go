package local

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/health"
)

func TestAProcessThatIsAskedToStartAnewEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "x.sock")
	graph := health.New("x")
	ended := make(chan error, 1)
	go func() { ended <- Serve(t.Context(), socket, graph) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := Restart(t.Context(), socket)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrProcessAbsent) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if err := <-ended; !errors.Is(err, ErrRestart) {
		t.Errorf("Serve: got %v, want ErrRestart", err)
	}
	if err := Restart(t.Context(), socket); !errors.Is(err, ErrProcessAbsent) {
		t.Errorf("nobody is there: got %v", err)
	}
}

func TestALookAtTheRestartChangesNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "x.sock")
	serve(t, socket, http.NotFoundHandler()) // which checks that it ends by ctx
	c := newClient(socket, ErrProcessAbsent)
	var r *Refusal
	if err := c.do(t.Context(), http.MethodGet, RouteRestart, nil, nil); !errors.As(err, &r) || r.Status != http.StatusMethodNotAllowed {
		t.Errorf("got %v, want 405", err)
	}
}

// supervisor stands in for gokrazy's socket: the forms and answers are those of
// gokrazy/supervise.go, status.go and update.go.
func supervisor(t *testing.T, asked *[]string) *Supervisor {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "gokrazy.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("path") != "/user/halo-mesh" {
			http.Error(w, "service not found", http.StatusNotFound)
			return
		}
		if !strings.Contains(r.Header.Get("Accept"), "application/json") {
			http.Error(w, "a page", http.StatusOK)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Pid": 77, "Stopped": false, "Path": "/user/halo-mesh", "Args": []string{"/user/halo-mesh"}})
	})
	mux.HandleFunc("/restart", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("gokrazy_xsrf")
		if r.Method != http.MethodPost || err != nil || c.Value != r.FormValue("xsrftoken") {
			http.Error(w, "XSRF token mismatch", http.StatusForbidden)
			return
		}
		if r.FormValue("path") != "/user/halo-mesh" {
			http.Error(w, "no such service", http.StatusNotFound)
			return
		}
		*asked = append(*asked, "restart "+r.FormValue("signal"))
		http.Redirect(w, r, "/status?path=/user/halo-mesh", http.StatusSeeOther)
	})
	mux.HandleFunc("/reboot", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "expected a POST request", http.StatusBadRequest)
			return
		}
		*asked = append(*asked, "reboot "+r.FormValue("kexec")+" "+r.FormValue("wait_per_signal"))
	})
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return NewSupervisor(socket)
}

func TestSupervisor(t *testing.T) {
	var asked []string
	s := supervisor(t, &asked)
	if p, err := s.Process(t.Context(), "halo-mesh"); err != nil || p != (Process{Pid: 77}) {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := s.Process(t.Context(), "halo-air"); !errors.Is(err, ErrNoProcess) {
		t.Errorf("got %v, want ErrNoProcess", err)
	}
	if err := s.Kill(t.Context(), "halo-mesh"); err != nil {
		t.Error(err)
	}
	if err := s.Kill(t.Context(), "halo-air"); !errors.Is(err, ErrNoProcess) {
		t.Errorf("got %v, want ErrNoProcess", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Reboot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reboot that is under way: got %v, want to wait for it", err)
	}
	if got, want := strings.Join(asked, ", "), "restart kill, reboot off 20s"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestNoSupervisor(t *testing.T) {
	s := NewSupervisor(filepath.Join(t.TempDir(), "none.sock"))
	if _, err := s.Process(t.Context(), "halo-mesh"); !errors.Is(err, ErrNoSupervisor) {
		t.Errorf("got %v, want ErrNoSupervisor", err)
	}
	if err := s.Reboot(t.Context()); !errors.Is(err, ErrNoSupervisor) {
		t.Errorf("got %v, want ErrNoSupervisor", err)
	}
}
