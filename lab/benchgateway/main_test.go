package benchgateway_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"halo.internal/lab/load"
	"halo.internal/mesh/nstest"
)

// Names of variables by which the test's program, which is started anew for a network of its
// own, tells itself what it has built.
const (
	gatewayProgram  = "HALO_BENCH_GATEWAY"
	victoriaProgram = "HALO_BENCH_VICTORIA"
	journalFolder   = "HALO_BENCH_JOURNAL" // it is to be the bare journal in there
)

// Cores: of the server, and of what plays the nodes.
const serverCore = 0

var playersCore = min(1, runtime.NumCPU()-1)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	built := ""
	defer func() { os.RemoveAll(built) }()
	if dir := os.Getenv(journalFolder); dir != "" {
		return report(serveJournal(dir))
	}
	flag.Parse()
	if which := flag.Lookup("test.bench").Value.String(); which != "" && os.Getenv(gatewayProgram) == "" {
		var err error
		if built, err = build(which); err != nil { // while there is a network
			return report(err)
		}
	}
	if os.Getenv(gatewayProgram) != "" && nstest.Inside() {
		if err := load.Overlay(); err != nil {
			return report(err)
		}
		if err := load.Pin(os.Getpid(), playersCore); err != nil {
			return report(err)
		}
		runtime.GOMAXPROCS(1)
	}
	return nstest.Main(m)
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// build builds what the wanted benchmarks need, and returns the folder that is to go.
func build(which string) (dir string, err error) {
	wanted, err := regexp.Compile(strings.Split(which, "/")[0])
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "halo-bench-"); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "gateway-api")
	if err := errors.Join(goTool("", nil, "build", "-trimpath", "-o", program, "halo.internal/cmd/gateway-api"), os.Setenv(gatewayProgram, program)); err != nil {
		return dir, err
	}
	if !wanted.MatchString("BenchmarkIngest") {
		return dir, nil
	}
	victoria, err := buildVictoria()
	return dir, errors.Join(err, os.Setenv(victoriaProgram, victoria))
}

func goTool(dir string, env []string, args ...string) error {
	c := exec.Command("go", args...)
	c.Dir, c.Env, c.Stderr = dir, append(os.Environ(), env...), os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
