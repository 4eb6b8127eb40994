package commit

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func serve(t *testing.T, healthy func() error) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "guard.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, healthy) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return socket
}

func TestHealthy(t *testing.T) {
	var result error
	calls := 0
	socket := serve(t, func() error { calls++; return result })
	if err := Healthy(t.Context(), socket); err != nil || calls != 1 {
		t.Fatalf("got %v after %d calls", err, calls)
	}
	result = errors.New("slot state: write copy 0:\nread-only")
	if err := Healthy(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "slot state: write copy 0:; read-only") {
		t.Errorf("a failed commit: got %v, want its reason on one line", err)
	}
	result = errors.New(strings.Repeat("x", 2*maxLine))
	if err := Healthy(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "xxx") {
		t.Errorf("a long reason: got %v, want its beginning", err)
	}
}

func TestServeRefusesOtherWords(t *testing.T) {
	socket := serve(t, func() error { t.Error("committed without the word"); return nil })
	for name, send := range map[string]string{"other word": "reboot\n", "empty": "\n", "endless": strings.Repeat("healthy", 200) + "\n"} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, send); err != nil {
				t.Fatal(err)
			}
			if got, err := line(c); err != nil || !strings.HasPrefix(got, failed) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestHealthyWithoutGuard(t *testing.T) {
	if err := Healthy(t.Context(), filepath.Join(t.TempDir(), "none.sock")); err == nil {
		t.Error("nobody listens, and it succeeded")
	}
}
