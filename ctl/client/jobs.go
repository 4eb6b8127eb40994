package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"halo.internal/model/apitype"
)

// JobFilter chooses jobs; empty fields choose all.
type JobFilter struct {
	Node   string
	Kind   string
	Active bool
}

// Jobs returns the newest jobs, newest first.
func (c *Client) Jobs(ctx context.Context, f JobFilter, limit int) ([]apitype.Job, error) {
	return newest(limit, func(cursor string, n int) ([]apitype.Job, string, error) {
		q := filter(map[string]string{"node": f.Node, "kind": f.Kind})
		if f.Active {
			q.Set("active", "true")
		}
		q = page(q, cursor)
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.JobList](ctx, c, "/v1/jobs", q)
		return l.Items, l.Next, err
	})
}

// NodeCommands returns the newest commands of people to a node, newest first.
func (c *Client) NodeCommands(ctx context.Context, node string, active bool, limit int) ([]apitype.Job, error) {
	return newest(limit, func(cursor string, n int) ([]apitype.Job, string, error) {
		q := page(nil, cursor)
		if active {
			q.Set("active", "true")
		}
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.JobList](ctx, c, nodePath(node)+"/commands", q)
		return l.Items, l.Next, err
	})
}

func jobPath(id int64) string { return "/v1/jobs/" + strconv.FormatInt(id, 10) }

// Job returns one job.
func (c *Client) Job(ctx context.Context, id int64) (apitype.Job, error) {
	return get[apitype.Job](ctx, c, jobPath(id), nil)
}

// jobWait is how long the gateway may wait for news of a job before it answers.
const jobWait = 20 * time.Second

// JobNews returns a job when it has changed or ended, or after some time.
func (c *Client) JobNews(ctx context.Context, id int64) (apitype.Job, error) {
	var j apitype.Job
	q := url.Values{"wait_s": {strconv.Itoa(int(jobWait / time.Second))}}
	err := c.call(ctx, request{method: http.MethodGet, path: jobPath(id), query: q, wait: jobWait + timeout}, &j)
	return j, err
}

// CancelJob takes a job back, and returns how it is now.
func (c *Client) CancelJob(ctx context.Context, id int64) (apitype.Job, error) {
	var j apitype.Job
	err := c.call(ctx, request{method: http.MethodDelete, path: jobPath(id)}, &j)
	return j, err
}

// JobFile writes what a job has made to w. It is whole, or an error.
func (c *Client) JobFile(ctx context.Context, id int64, w io.Writer) error {
	var file []byte
	if err := c.call(ctx, request{method: http.MethodGet, path: jobPath(id) + "/file", wait: 2 * timeout}, &file); err != nil {
		return err
	}
	_, err := w.Write(file)
	return err
}

// Command gives a command to a node, and returns the job that it is.
func (c *Client) Command(ctx context.Context, node string, cmd apitype.CreateCommand) (apitype.Job, error) {
	var j apitype.Job
	err := c.call(ctx, request{method: http.MethodPost, path: nodePath(node) + "/commands", body: cmd}, &j)
	return j, err
}

// NodeCapabilities tells what a node can be asked to do.
func (c *Client) NodeCapabilities(ctx context.Context, node string) (apitype.NodeCapabilities, error) {
	return get[apitype.NodeCapabilities](ctx, c, nodePath(node)+"/capabilities", nil)
}

// SpeedTest has a node measure the way to another device, and returns the job that
// this is.
func (c *Client) SpeedTest(ctx context.Context, t apitype.CreateSpeedTest) (apitype.Job, error) {
	var j apitype.Job
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/speed-tests", body: t}, &j)
	return j, err
}

// SpeedTests returns the newest speed tests of a node, or of all, newest first.
func (c *Client) SpeedTests(ctx context.Context, node string, limit int) ([]apitype.SpeedTest, error) {
	return newest(limit, func(cursor string, n int) ([]apitype.SpeedTest, string, error) {
		q := page(filter(map[string]string{"node": node}), cursor)
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.SpeedTestList](ctx, c, "/v1/speed-tests", q)
		return l.Items, l.Next, err
	})
}
