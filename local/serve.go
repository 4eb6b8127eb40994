// Package local is how the processes of one device talk to each other: HTTP
// with JSON over Unix sockets in /run/halo. It serves such a socket for every
// daemon and holds the typed client for halo-mesh's, so that the rooms need
// not import each other.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Limits of a socket's server: its clients are our own processes, but one that
// hangs must not hold the others up.
const (
	maxBody      = 1 << 20
	maxHeader    = 16 << 10
	readTimeout  = 10 * time.Second
	idleTimeout  = 2 * time.Minute
	shutdownWait = 2 * time.Second
)

// Serve answers HTTP with h on a Unix socket of mode 0660 until ctx ends. A
// socket left behind by a process that died is replaced; one that still
// answers is not. Request bodies are cut off at 1 MiB. Whoever posts to
// RouteRestart there has Serve return ErrRestart.
func Serve(ctx context.Context, socket string, h http.Handler) error {
	l, err := Listen(ctx, socket)
	if err != nil {
		return err
	}
	return ServeOn(ctx, l, h)
}

// ServeOn is Serve on a socket that is open already.
func ServeOn(ctx context.Context, l net.Listener, h http.Handler) (err error) {
	asked := make(chan struct{}, 1)
	h = restartable(h, asked)
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(h, maxBody),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err = <-done:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-asked:
		err = ErrRestart
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		_ = srv.Close() // an answer that does not end is cut off: the process is leaving
	}
	<-done
	return err
}

// Listen opens a socket, for those who may not do so any more by the time they serve.
func Listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket); err == nil {
		_ = c.Close() // it was only asked whether somebody is there
		return nil, fmt.Errorf("socket %s: another process answers on it", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("stale socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(socket, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}
