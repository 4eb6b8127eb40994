package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// What is of any length is neither cut to what fits into RAM nor taken for whole when it
// is not, and its end may be as late as it likes.
func TestWhatIsOfAnyLength(t *testing.T) {
	const length = 3 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			_, _ = w.Write(bytes.Repeat([]byte("x"), length)) // whoever has enough goes
		case "/cut":
			_, _ = w.Write(bytes.Repeat([]byte("x"), length))
			panic(http.ErrAbortHandler)
		case "/up":
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil || n != length || r.Header.Get("Content-Type") != "application/octet-stream" {
				w.WriteHeader(http.StatusTeapot)
			}
			_, _ = w.Write([]byte("{}"))
		}
	}))
	defer srv.Close()
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(base, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	failing := errors.New("the disk is full")
	for _, tc := range []struct {
		name, path string
		most       int64
		to         io.Writer
		err        string // empty: none
	}{
		{"whole", "down", 0, &bytes.Buffer{}, ""},
		{"as much as may come", "down", length, &bytes.Buffer{}, ""},
		{"more than may come", "down", length - 1, &bytes.Buffer{}, "expected at most"},
		{"cut off", "cut", 0, &bytes.Buffer{}, "unexpected EOF"},
		{"nowhere to go", "down", 0, writer(func([]byte) (int, error) { return 0, failing }), failing.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.call(t.Context(), request{method: "GET", path: "/" + tc.path, anon: true, wait: time.Nanosecond, most: tc.most}, tc.to)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			_, unreachable := errors.AsType[*UnreachableError](err)
			if unreachable != (tc.name == "cut off") {
				t.Errorf("who is to blame: %v", err)
			}
			if b, ok := tc.to.(*bytes.Buffer); ok && tc.err == "" && b.Len() != length {
				t.Errorf("%d octets came", b.Len())
			}
		})
	}
	body := bytes.Repeat([]byte("x"), length)
	for name, r := range map[string]request{"a file": {file: body}, "as it comes": {stream: iotest.HalfReader(bytes.NewReader(body))}} {
		r.method, r.path, r.anon = "POST", "/up", true
		if err := c.call(t.Context(), r, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// What stands still ends, and the error says so.
func TestWhatStandsStillEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(time.Hour, func() {})
	defer timer.Stop()
	w := &watch{Reader: iotest.ErrReader(context.Canceled), timer: timer}
	cancel(errStalled)
	if _, err := io.ReadAll(w); !errors.Is(err, context.Canceled) || !errors.Is(stalled(ctx, w.err), errStalled) {
		t.Errorf("got %v, %v", err, w.err)
	}
	if err := stalled(t.Context(), io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("what went on: %v", err)
	}
}
