package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// odd are routes whose answers go wrong.
func (f *fixture) odd() {
	type value struct {
		X float64 `json:"x"`
	}
	get := func(name string) huma.Operation {
		return huma.Operation{OperationID: name, Method: http.MethodGet, Path: "/odd/" + name, Tags: []string{"system"}}
	}
	register(f.API, open, get("no-number"), func(context.Context, *nothing) (*body[value], error) {
		return answer(value{math.Inf(1)}, nil)
	})
	register(f.API, open, get("series"), func(context.Context, *nothing) (*body[apitype.SeriesList], error) {
		return answer(apitype.SeriesList{Items: []apitype.Series{{Points: []apitype.Point{{Mean: math.Inf(1)}}}}}, nil)
	})
	register(f.API, open, get("large"), func(context.Context, *nothing) (*body[string], error) {
		return answer(strings.Repeat("x", 1<<20), nil)
	})
	register(f.API, open, get("octets"), func(context.Context, *nothing) (*rawAnswer, error) {
		return &rawAnswer{ContentType: "text/plain", Body: bytes.Repeat([]byte("x"), 1<<20)}, nil
	})
	register(f.API, open, get("panic"), func(context.Context, *nothing) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(c huma.Context) {
			_, _ = io.WriteString(c.BodyWriter(), "begun") // a test's recorder takes it
			panic("in the middle")
		}}, nil
	})
}

// broken takes what comes before the body, as a connection on which nobody reads.
type broken struct {
	recorder
	statuses []int
}

func (b *broken) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
func (b *broken) WriteHeader(status int)    { b.statuses = append(b.statuses, status) }

// serveOdd answers a request, and tells whether the connection was then cut off.
func (f *fixture) serveOdd(w http.ResponseWriter, path string) (cut bool) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			cut = true
		}
	}()
	f.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1"+path, nil))
	return false
}

// TestNobodyReadsTheAnswer is no error of the gateway's: nothing is said of it, and nothing
// is written behind what has begun.
func TestNobodyReadsTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.odd()
	for _, path := range []string{"/odd/large", "/odd/octets", "/openapi.json", "/docs", "/capabilities"} {
		t.Run("writing fails: "+path, func(t *testing.T) {
			var logged bytes.Buffer
			f.Log = slog.New(slog.NewTextHandler(&logged, nil))
			w := &broken{recorder: recorder{httptest.NewRecorder()}}
			f.serveOdd(w, path)
			if len(w.statuses) > 1 {
				t.Errorf("statuses %v", w.statuses)
			}
			if logged.Len() > 0 {
				t.Errorf("logged: %s", logged.String())
			}
		})
		t.Run("a slow reader: "+path, func(t *testing.T) {
			var logged bytes.Buffer
			f.Log = slog.New(slog.NewTextHandler(&logged, nil))
			near, far := net.Pipe()
			defer near.Close()
			l := &oneConn{conn: far, done: make(chan struct{})}
			ended := make(chan struct{})
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				f.ServeHTTP(w, r)
			}), WriteTimeout: 100 * time.Millisecond, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
			go func() { _ = srv.Serve(l) }() // until it is closed
			defer srv.Close()
			if _, err := io.WriteString(near, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-ended
			if logged.Len() > 0 {
				t.Errorf("logged: %s", logged.String())
			}
		})
	}
}

// oneConn is a listener of one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// TestAnAnswerThatCannotBeWritten as JSON is a problem, and nothing before it.
func TestAnAnswerThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.odd()
	for _, path := range []string{"/odd/no-number", "/odd/series"} {
		var logged bytes.Buffer
		f.Log = slog.New(slog.NewTextHandler(&logged, nil))
		w := httptest.NewRecorder()
		if f.serveOdd(w, path) {
			t.Errorf("%s: cut off", path)
		}
		var p apitype.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusInternalServerError || p.Status != w.Code || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d %s, %v", path, w.Code, w.Body, err)
		}
		if !strings.Contains(logged.String(), strings.TrimPrefix(path, "/odd/")) {
			t.Errorf("%s: logged %q", path, logged.String())
		}
	}
}

// TestWhatHasBegunIsCutOff, where something fails in the middle of an answer: no problem
// is written behind it.
func TestWhatHasBegunIsCutOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.odd()
	var logged bytes.Buffer
	f.Log = slog.New(slog.NewTextHandler(&logged, nil))
	w := httptest.NewRecorder()
	if cut := f.serveOdd(w, "/odd/panic"); !cut || w.Body.String() != "begun" {
		t.Errorf("cut off %v, after %q", cut, w.Body)
	}
	if !strings.Contains(logged.String(), "in the middle") {
		t.Errorf("logged %q", logged.String())
	}
	resp, err := http.Get(f.url + "/odd/panic")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("a client got %v, want an answer without its end", err)
	}
}
