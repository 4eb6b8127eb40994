package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections within this process, whose time can be another.
type pipes struct {
	in   chan net.Conn
	once sync.Once
	done chan struct{}
}

func newPipes() *pipes { return &pipes{in: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.in:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: 1} }

func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.in <- far
	return near
}

// TestSlowClientsAreNotWaitedFor: none of them holds a connection for longer than it may.
func TestSlowClientsAreNotWaitedFor(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for _, tc := range []struct {
		name string
		do   func(net.Conn) error // until the gateway ends it
		most time.Duration
	}{
		{"says nothing", func(c net.Conn) error { return drain(c) }, headerTimeout},
		{"begins a line", func(c net.Conn) error {
			_, err := io.WriteString(c, "GET /health HT")
			return errors.Join(err, drain(c))
		}, headerTimeout},
		{"a header each second", func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: localhost\r\n"); err != nil {
				return err
			}
			go func() { _ = drain(c) }() // the gateway's refusal
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: y\r\n", i); err != nil {
					return io.EOF
				}
				time.Sleep(time.Second)
			}
		}, headerTimeout + 2*time.Second},
		{"an octet of the body each ten seconds", func(c net.Conn) error {
			if _, err := io.WriteString(c, "POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"); err != nil {
				return err
			}
			go func() { _ = drain(c) }()
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					return io.EOF
				}
				time.Sleep(10 * time.Second)
			}
		}, readTimeout + 11*time.Second},
		{"reads the answer no further", func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return err
			}
			b := make([]byte, 100)
			for {
				if _, err := c.Read(b); err != nil {
					return io.EOF
				}
				time.Sleep(time.Second)
			}
		}, writeTimeout + 2*time.Second},
		{"keeps its connection", func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return err
			}
			return drain(c)
		}, idleTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mux := http.NewServeMux()
				mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						http.Error(w, "cut short", http.StatusBadRequest)
					}
				})
				mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, large) }) // it is cut off
				mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") })
				ctx, cancel := context.WithCancel(t.Context())
				l, done := newPipes(), make(chan error, 1)
				go func() { done <- serveOne(ctx, l, mux, slog.New(slog.DiscardHandler)) }()
				c, began := l.dial(), time.Now()
				if err := tc.do(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
					t.Error(err)
				}
				if took := time.Since(began); took > tc.most {
					t.Errorf("it took %s, want at most %s", took, tc.most)
				}
				c.Close()
				cancel()
				_ = l.Close()
				<-done
			})
		})
	}
}

// drain reads until the other side closes.
func drain(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

func TestHugeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, done := newPipes(), make(chan error, 1)
	go func() {
		done <- serveOne(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
	}()
	c := l.dial()
	go func() {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n") // refused before its end
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v", resp, err)
	}
	c.Close()
	cancel()
	_ = l.Close()
	<-done
}
