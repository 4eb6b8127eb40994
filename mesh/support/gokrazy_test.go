package support

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gokrazy answers at a socket, as the real one does in shape: a stream that is flushed
// line by line and does not end. What it says is said by write.
func gokrazy(t *testing.T, write func(ctx context.Context, w http.ResponseWriter)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "http.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/log" || r.FormValue("path") != "/user/halo-agent" || r.FormValue("stream") != "both" {
			http.Error(w, "service not found", http.StatusNotFound)
			return
		}
		write(r.Context(), w)
		<-r.Context().Done()
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return socket
}

func TestProcessLog(t *testing.T) {
	says := func(n int, line string) func(context.Context, http.ResponseWriter) {
		return func(_ context.Context, w http.ResponseWriter) {
			for i := range n {
				fmt.Fprintf(w, line+"\n", i)
				w.(http.Flusher).Flush()
			}
		}
	}
	for _, tc := range []struct {
		name        string
		write       func(context.Context, http.ResponseWriter)
		lines       int
		first, last string
	}{
		{"all that is kept", says(100, "line %d"), 100, "line 0", "line 99"},
		{"one line", says(1, "line %d"), 1, "line 0", "line 0"},
		{"no more than is kept, whatever is said meanwhile", says(5000, "line %d"), logLines, "line 0", fmt.Sprint("line ", logLines-1)},
		{"a line too long", says(1, strings.Repeat("x", 5*maxLine)+"%d"), 1, fmt.Sprintf("[a line of %d octets is left out]", 5*maxLine+2), ""},
		{"long lines", says(100, strings.Repeat("x", maxLine/2)+"%d"), maxLog / (maxLine/2 + 4), "x", "x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, err := ProcessLog(t.Context(), gokrazy(t, tc.write), "/user/halo-agent")
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
			if len(lines) != tc.lines || !strings.HasPrefix(lines[0], tc.first) || !strings.HasPrefix(lines[len(lines)-1], tc.last) {
				t.Errorf("got %d lines from %.60q to %.60q, want %d from %q to %q", len(lines), lines[0], lines[len(lines)-1], tc.lines, tc.first, tc.last)
			}
		})
	}
}

func TestNoProcessLog(t *testing.T) {
	silent := func(context.Context, http.ResponseWriter) {}
	for _, tc := range []struct {
		name, socket, program string
		wait                  time.Duration
		want                  string
	}{
		{"no such program", gokrazy(t, silent), "/user/other", logWait, "log of /user/other: gokrazy says 404: service not found"},
		{"no socket", filepath.Join(t.TempDir(), "none"), "/user/halo-agent", logWait, "no such file"},
		{"not a word", gokrazy(t, silent), "/user/halo-agent", 100 * time.Millisecond, "expected a line of /user/halo-agent from gokrazy within 5s, got none"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), tc.wait)
		defer cancel()
		if _, err := ProcessLog(ctx, tc.socket, tc.program); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want …%s…", tc.name, err, tc.want)
		}
	}
}

// TestTailEnds when nothing comes for a moment, and takes what comes slower than that
// for the end.
func TestTailEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		wrote := make(chan error)
		go func() {
			for _, line := range []string{"one\n", "two\n", "three\n"} {
				if _, err := io.WriteString(w, line); err != nil {
					wrote <- err
					return
				}
				time.Sleep(logQuiet - time.Millisecond)
			}
			time.Sleep(logQuiet)
			_, err := io.WriteString(w, "late\n")
			wrote <- err
		}()
		if got := string(tail(r)); got != "one\ntwo\nthree\n" {
			t.Errorf("got %q", got)
		}
		if err := <-wrote; err == nil {
			t.Error("what is not read any more is not closed")
		}
	})
}
