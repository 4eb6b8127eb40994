package load

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/lab/admin"
	"halo.internal/model/paths"
)

// TLSAddress is where a gateway of this package serves TLS.
const TLSAddress = "127.0.0.1:8443"

const (
	serveTimeout = 2 * time.Minute // until it answers
	servePoll    = time.Millisecond
)

var claimCode = regexp.MustCompile(`Claim code of this gateway: (\S+)`)

// Gateway is a gateway-api that runs alone, without a mesh, as one process after the other.
type Gateway struct {
	Network
	Dir     string   // in which it keeps everything
	Flags   []string // more of the program's
	program string
	core    int

	mu      sync.Mutex // guards what follows
	process *Process   // nil while there is none
	last    *Process
	past    Usage // of the processes before
}

// NewGateway is a gateway in a folder, which gets an identity unless it has one. The process
// is started by Start, on a core or AnyCore.
func NewGateway(program, dir string, core int) (*Gateway, error) {
	file := paths.Dir(dir).File(paths.Identity)
	s, err := identity.Load(file, nil)
	if errors.Is(err, fs.ErrNotExist) {
		s = identity.State{Key: identity.New()}
		err = s.Save(file, nil)
	}
	if err != nil {
		return nil, err
	}
	return &Gateway{Network: Network{Key: s.Key, URL: "http://" + Address()}, Dir: dir, program: program, core: core}, nil
}

// Process is the present process, or the last one.
func (g *Gateway) Process() *Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Start starts it, and returns how long it took until it answered.
func (g *Gateway) Start(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	p, err := Start(g.core, nil, g.program, append([]string{"--data", g.Dir, "--listen", Address(), "--listen-tls", TLSAddress}, g.Flags...)...)
	if err != nil {
		return 0, err
	}
	g.mu.Lock()
	g.process, g.last = p, p
	g.mu.Unlock()
	if err := Await(ctx, p, g.URL+"/capabilities"); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// Await waits until a server answers.
func Await(ctx context.Context, p *Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(servePoll)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w: %s", url, err, p.Tail())
		case <-p.Ended():
			return fmt.Errorf("%s does not answer, since the process has ended: %s", url, p.Tail())
		case <-tick.C:
		}
	}
}

// Claim makes the admin.
func (g *Gateway) Claim(ctx context.Context) (*admin.Admin, error) {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	tick := time.NewTicker(servePoll)
	defer tick.Stop()
	for { // TLS is served somewhat later
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", TLSAddress)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("TLS is not served: %w: %s", err, g.Process().Tail())
		case <-tick.C:
		}
	}
	code := claimCode.FindStringSubmatch(g.Process().Log())
	if code == nil {
		return nil, fmt.Errorf("expected a claim code, got %s", g.Process().Tail())
	}
	return admin.Claim(ctx, "https://"+TLSAddress, code[1])
}

// Stop ends it in order.
func (g *Gateway) Stop() error { return g.end((*Process).Stop) }

// Kill ends it at once.
func (g *Gateway) Kill() {
	_ = g.end(func(p *Process) error { // nothing was to be in order
		p.Kill()
		<-p.Ended()
		return nil
	})
}

// end takes down what the process has used, which the kernel tells while it is there, and
// ends it.
func (g *Gateway) end(by func(*Process) error) error {
	g.mu.Lock()
	p := g.process
	if p != nil {
		if u, err := p.usage(); err == nil { // else it has ended by itself, and what it used is not known
			g.past = g.past.and(u)
		}
		g.process, g.last = nil, p
	}
	g.mu.Unlock()
	if p == nil {
		return nil
	}
	return by(p)
}

// Usage is what processes have taken since they were started.
type Usage struct {
	CPU      time.Duration
	Resident int64 // octets, now
	Most     int64 // octets, at most
	Written  int64 // octets, see Process.Written
}

// and is what a process has taken and the one after it.
func (u Usage) and(next Usage) Usage {
	return Usage{CPU: u.CPU + next.CPU, Resident: next.Resident, Most: max(u.Most, next.Most), Written: u.Written + next.Written}
}

func (p *Process) usage() (u Usage, err error) {
	var errs [3]error
	u.CPU, errs[0] = p.CPU()
	u.Resident, u.Most, errs[1] = p.Memory()
	u.Written, errs[2] = p.Written()
	return u, errors.Join(errs[:]...)
}

// Usage is what the gateway's processes have taken, one after the other.
func (g *Gateway) Usage() (Usage, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.process == nil {
		return g.past, nil
	}
	u, err := g.process.usage()
	return g.past.and(u), err
}
