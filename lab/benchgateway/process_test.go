package benchgateway_test

import (
	"testing"
	"time"

	"halo.internal/lab/load"
)

// process is a server on a core of its own.
type process struct {
	*load.Process
	b testing.TB
}

// start starts a program on the server's core.
func start(b testing.TB, env []string, program string, args ...string) *process {
	b.Helper()
	p, err := load.Start(serverCore, env, program, args...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Stop() }) // it has said so where it mattered
	return &process{p, b}
}

// await waits until it answers.
func (p *process) await(url string) {
	p.b.Helper()
	if err := load.Await(p.b.Context(), p.Process, url); err != nil {
		p.b.Fatal(err)
	}
}

// stop ends the process in order.
func (p *process) stop() {
	if err := p.Stop(); err != nil && p.b.Failed() {
		p.b.Log(err)
	}
}

// cpu is the processor time that the process has used.
func (p *process) cpu() time.Duration {
	p.b.Helper()
	used, err := p.CPU()
	if err != nil {
		p.b.Fatal(err)
	}
	return used
}
