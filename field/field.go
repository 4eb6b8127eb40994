// Package field is halo-field, the page that a phone at the mast opens: what
// this node is, where it stands on its way into the network, and what is wrong.
// Anybody may look; nothing can be changed here. It asks halo-mesh and
// halo-agent over their sockets and works, saying so, without either.
package field

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model/paths"
)

// Checks of the health graph.
const (
	checkMesh   = "halo-mesh"
	checkAgent  = "halo-agent"
	checkListen = "listener"
)

// Limits of the server, which answers whoever is in reach.
const (
	maxConns      = 64
	maxHeader     = 8 << 10
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	shutdownWait  = 2 * time.Second
	bindPause     = 2 * time.Second
)

// Config says where things are.
type Config struct {
	Root   string // prefix of HALO's own files; empty on a board
	Listen string // address of the page
	Log    *slog.Logger
}

func (c Config) path(p string) string { return filepath.Join(c.Root, p) }

// Run serves the page until ctx ends.
func Run(ctx context.Context, c Config) error {
	graph := health.New("halo-field")
	graph.Declare(checkListen)
	graph.Declare(checkMesh)
	graph.Declare(checkAgent, checkMesh)
	v := newView(c.path, graph)
	v.refresh(ctx) // so that the first page is not empty
	page, err := handler(v)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { v.follow(ctx); return nil })
	g.Go(func() error { return local.Serve(ctx, c.path(paths.FieldSocket), graph) })
	g.Go(func() error { return serve(ctx, c, graph, page) })
	return g.Wait()
}

// serve answers on the port, and tries again where it can't be had yet.
func serve(ctx context.Context, c Config, graph *health.Graph, h http.Handler) error {
	told := false
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
		if err == nil {
			graph.Set(checkListen, health.OK, "")
			c.Log.Info("halo-field runs", "address", l.Addr().String())
			return answer(ctx, netutil.LimitListener(l, maxConns), h)
		}
		if ctx.Err() != nil {
			return nil
		}
		graph.Set(checkListen, health.Failed, err.Error())
		if !told {
			c.Log.Warn("the page's port can't be had", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(bindPause):
		}
	}
}

func answer(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the page: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	err := srv.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-done
	return err
}
