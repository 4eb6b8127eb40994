package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/network"
)

// Client steers the lab in a folder.
type Client struct {
	Lab
	http *http.Client
}

// maxAnswer bounds a status, some 2 KiB a machine.
const maxAnswer = 4 << 20

// Dial returns a client of the lab that runs in a folder.
func Dial(dir string) (*Client, error) {
	l, err := Find(dir)
	if err != nil {
		return nil, err
	}
	return &Client{l, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.Socket)
		},
	}}}, nil
}

// Status asks for everything.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Act does something to a machine.
func (c *Client) Act(ctx context.Context, name string, a Action) error {
	return c.do(ctx, http.MethodPost, "/v1/machines/"+url.PathEscape(name)+"/"+string(a), nil, nil)
}

// Partition cuts groups of machines off from each other.
func (c *Client) Partition(ctx context.Context, groups [][]string) error {
	return c.do(ctx, http.MethodPut, "/v1/partition", Partition{groups}, nil)
}

// Heal ends a partition.
func (c *Client) Heal(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/partition", nil, nil)
}

// SetLink sets a condition.
func (c *Client) SetLink(ctx context.Context, l Link) error {
	return c.do(ctx, http.MethodPut, "/v1/link", l, nil)
}

// Air asks for what is in the air.
func (c *Client) Air(ctx context.Context) (a Air, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/air", nil, &a)
	return a, err
}

// Move gives a machine's radios another place.
func (c *Client) Move(ctx context.Context, p Place) error {
	return c.do(ctx, http.MethodPut, "/v1/air/place", p, nil)
}

// Cut ends, or restores, what passes between two.
func (c *Client) Cut(ctx context.Context, p Cut) error {
	return c.do(ctx, http.MethodPut, "/v1/air/cut", p, nil)
}

// Restore ends all cuts.
func (c *Client) Restore(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/air/cut", nil, nil)
}

// SetLoss sets what is lost between two.
func (c *Client) SetLoss(ctx context.Context, l Loss) error {
	return c.do(ctx, http.MethodPut, "/v1/air/loss", l, nil)
}

// SetDisorder sets which management frames between two come twice or late.
func (c *Client) SetDisorder(ctx context.Context, d Disorder) error {
	return c.do(ctx, http.MethodPut, "/v1/air/disorder", d, nil)
}

// Radio does something to a machine's radios.
func (c *Client) Radio(ctx context.Context, f RadioFault) error {
	return c.do(ctx, http.MethodPut, "/v1/air/radio", f, nil)
}

// Crash has a process of a machine die.
func (c *Client) Crash(ctx context.Context, p Crash) error {
	return c.do(ctx, http.MethodPost, "/v1/crash", p, nil)
}

// Jam adds noise.
func (c *Client) Jam(ctx context.Context, j air.Jammer) error {
	return c.do(ctx, http.MethodPut, "/v1/air/jam", j, nil)
}

// Quiet ends it.
func (c *Client) Quiet(ctx context.Context, q Quiet) error {
	return c.do(ctx, http.MethodDelete, "/v1/air/jam", q, nil)
}

// StartRogue lets a stranger attack.
func (c *Client) StartRogue(ctx context.Context, s Stranger) error {
	return c.do(ctx, http.MethodPut, "/v1/air/rogue", s, nil)
}

// StopRogue ends the attack.
func (c *Client) StopRogue(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/air/rogue", nil, nil)
}

// StartCapture records the air into a file.
func (c *Client) StartCapture(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodPut, "/v1/air/capture", Capture{path}, nil)
}

// StopCapture ends it.
func (c *Client) StopCapture(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/air/capture", nil, nil)
}

const pollEvery = 200 * time.Millisecond

// Follow reports each step of the lab's coming up until it is ready.
func (c *Client) Follow(ctx context.Context, report func(network.Progress)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for seen := 0; ; {
		var s Steps
		if err := c.do(ctx, http.MethodGet, "/v1/steps", nil, &s); err != nil {
			return err
		}
		for ; seen < len(s.Items); seen++ {
			report(s.Items[seen])
		}
		switch {
		case s.Ready:
			return nil
		case s.Failure != "":
			return errors.New(s.Failure)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Down ends the lab and returns when its process is gone. One that does not go
// is killed, and the kernel ends its machines.
func (c *Client) Down(ctx context.Context, patience time.Duration) error {
	err := c.do(ctx, http.MethodDelete, "/v1/lab", nil, nil)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	limit := time.After(patience)
	for c.Process.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-limit:
			return errors.Join(err, syscall.Kill(c.Process.PID, syscall.SIGKILL))
		}
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, route string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+route, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the lab does not answer: %w", err)
	}
	defer resp.Body.Close()
	b, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var p problem
		if json.Unmarshal(b, &p) != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return errors.New(p.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}
