package local

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model"
)

// silent takes a connection and says nothing on it, as the kernel does for a
// process that hangs.
func silent(t *testing.T) (client net.Conn) {
	here, there := net.Pipe()
	go func() {
		b := make([]byte, 4096)
		for {
			if _, err := there.Read(b); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { there.Close() })
	return here
}

// /health names a process within 5 s after it began to hang, whatever else goes
// on: the question before was just answered.
func TestAHangIsFoundInTime(t *testing.T) {
	if sum := FollowEvery + AnswerWait; sum > 4500*time.Millisecond {
		t.Errorf("period and wait add up to %s, want half a second less than 5 s at least", sum)
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMesh("mesh.sock")
		m.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return silent(t), nil }}
		for _, tc := range []struct {
			name string
			ask  func() error
			want time.Duration
		}{
			{"status", func() error { _, err := m.Status(t.Context()); return err }, AnswerWait},
			{"health", func() error { _, err := m.Health(t.Context()); return err }, AnswerWait},
			{"what is written to a card", func() error { return m.PutAnnounce(t.Context(), model.Announce{}) }, workWait},
		} {
			begin := time.Now()
			if err := tc.ask(); !errors.Is(err, ErrAbsent) {
				t.Errorf("%s: got %v, want ErrAbsent", tc.name, err)
			}
			if took := time.Since(begin); took != tc.want {
				t.Errorf("%s: given up after %s, want %s", tc.name, took, tc.want)
			}
		}
		m.http.CloseIdleConnections()
	})
}

func TestAHungServerIsAbsent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "mesh.sock")
	l, err := net.Listen("unix", socket) // connections are taken and never served
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := NewMesh(socket).Status(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want ErrAbsent", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := NewMesh(socket).Status(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want the end of the caller's own patience", err)
	}
}
