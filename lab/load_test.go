package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"halo.internal/gateway"
	"halo.internal/lab/load"
)

// beGateway is gateway-api --data DIR --listen ADDRESS --listen-tls ADDRESS.
func beGateway() (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := gateway.Laptop(os.Args[2], []string{os.Args[4]}, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	c.TLS = []string{os.Args[6]}
	if err := gateway.Run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestLoad(t *testing.T) {
	s := shell{t: t, dir: filepath.Join(t.TempDir(), "lab")}
	few := []string{"load", "--gateway", os.Args[0], "--nodes", "3", "--interval", "500ms", "--send", "1s", "--for", "3s", "--backlog", "10m", "--backlog-nodes", "1", "--asks", "2"}
	out, errs := s.do(0, few...)
	s.mentions(out, "4 with the gateway's own agent, 6 links", "backlog ", "API: 24 h", "MiB resident", "0 with another value")
	s.mentions(errs, "gateway-api answers after", "3 nodes have joined")
	if left, err := os.ReadDir(filepath.Join(s.dir, "load")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	out, errs = s.do(0, append(few, "--json", "--quiet", "--backlog", "0")...)
	var f load.Figures
	if err := json.Unmarshal([]byte(out), &f); err != nil || f.Nodes != 4 || f.Found.Expected == 0 || f.Found.Missing != 0 || f.Backlog != nil || errs != "" {
		t.Errorf("%v: %+v; %s", err, f, errs)
	}

	_, errs = s.do(1, "load", "--gateway", os.Args[0], "--nodes", "1000")
	s.mentions(errs, "expected 1 to 500 nodes, got 1000")
	_, errs = s.do(1, "load", "--gateway", filepath.Join(s.dir, "nothing"))
	s.mentions(errs, "no such file")
	_, errs = s.do(2, "load", "--nodes", "many")
	s.mentions(errs, "invalid argument")
}
