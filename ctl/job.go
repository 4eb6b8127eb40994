package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/doorway"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

const jobLong = `Job shows what takes longer than a request: commands to nodes, speed tests, and
what else the gateway does in the background.`

func (a *app) jobCommand() *cobra.Command {
	var f client.JobFilter
	var limit int
	var watch bool
	var interval time.Duration
	list := a.call("list", "jobs, newest last", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if watch {
			if f != (client.JobFilter{}) {
				return &usageError{errors.New("--watch: expected no filter with it")}
			}
			names := liveNames{app: a, c: c}
			return watchList(ctx, a, c, interval, apitype.TopicJobs, func(t *table.Table, j apitype.Job) {
				known, err := names.of(ctx, j.Node)
				if err != nil {
					known = nil // it is shown by its ID
				}
				jobRow(t, known, c.Now(), j)
			}, jobHeading, jobWide)
		}
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		jobs, err := c.Jobs(ctx, f, limit)
		if err != nil {
			return err
		}
		return a.showJobs(ctx, c, jobs)
	})
	list.Flags().StringVar(&f.Node, "node", "", "only about this `node`")
	list.Flags().StringVar(&f.Kind, "kind", "", "only of this `kind`, such as scan or speed-test")
	list.Flags().BoolVar(&f.Active, "active", false, "only those that have not ended")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	list.Flags().BoolVar(&watch, "watch", false, "print those that have not ended, go on, and print how they fare")
	intervalFlag(list, &interval, "--watch")
	wait := a.ofJob("wait JOB", "wait until a job has ended, and show it", func(ctx context.Context, c *client.Client, id int64) error {
		j, err := c.Job(ctx, id)
		if err == nil {
			j, err = a.awaitJob(ctx, c, j)
		}
		if err != nil {
			return notFound(err, "haloctl job list shows the jobs")
		}
		if err := a.showJob(ctx, c, j); err != nil {
			return err
		}
		return jobError(j)
	})
	g := group("job", "what takes longer than a request", list, wait,
		a.ofJob("show JOB", "how far a job is, and what has come of it", func(ctx context.Context, c *client.Client, id int64) error {
			j, err := c.Job(ctx, id)
			if err != nil {
				return notFound(err, "haloctl job list shows the jobs")
			}
			return a.showJob(ctx, c, j)
		}),
		a.ofJob("cancel JOB", "take a job back", func(ctx context.Context, c *client.Client, id int64) error {
			j, err := c.CancelJob(ctx, id)
			if err != nil {
				return notFound(err, "haloctl job list shows the jobs")
			}
			return a.show(j, func(io.Writer) error {
				if j.Final() {
					a.say("Job %d is %s.", j.ID, j.State)
				} else {
					a.say("Job %d is asked to end; it is %s.", j.ID, j.State)
				}
				return nil
			})
		}),
		a.jobFile(),
	)
	g.Long = jobLong
	return g
}

var jobHeading = []string{"JOB", "KIND", "NODE", "STATE", "MADE", "BY", "DETAIL", "PROGRESS", "CANCELLED"}

const jobWide = 7

func jobRow(t *table.Table, names map[string]string, now time.Time, j apitype.Job) {
	t.Row(strconv.FormatInt(j.ID, 10), j.Kind, nameOf(names, j.Node), table.Two(jobState(j), j.State), table.Age(now, j.Created), j.By, jobDetail(j), j.Progress, j.Cancelled)
}

// nodeCommandsList shows jobs, of people's commands to one node.
func (a *app) nodeCommandsList() *cobra.Command {
	var limit int
	var active bool
	list := a.ofNode("commands NODE", "what a node was asked to do, newest last", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		jobs, err := c.NodeCommands(ctx, args[0], active, limit)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		return a.showJobs(ctx, c, jobs)
	})
	list.Flags().BoolVar(&active, "active", false, "only those that have not ended")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	return list
}

// showJobs prints jobs, which come newest first, newest last.
func (a *app) showJobs(ctx context.Context, c *client.Client, jobs []apitype.Job) error {
	slices.Reverse(jobs)
	names, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Job]{jobs}, func(w io.Writer) error {
		t := table.New(jobHeading...).Wide(jobWide)
		for _, j := range jobs {
			jobRow(t, names, c.Now(), j)
		}
		return t.Write(w)
	})
}

// ofJob is a call about one job.
func (a *app) ofJob(use, short string, run func(context.Context, *client.Client, int64) error) *cobra.Command {
	c := a.call(use, short, cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		id, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || id < 1 {
			return &usageError{fmt.Errorf("JOB: expected the number of a job, got %q", args[0])}
		}
		return run(ctx, c, id)
	})
	return a.completes(c, func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, func(ctx context.Context) ([]apitype.Job, error) { return c.Jobs(ctx, client.JobFilter{}, 50) },
			func(j apitype.Job) (string, string) { return strconv.FormatInt(j.ID, 10), j.Kind + " " + j.State })
	})
}

func (a *app) jobFile() *cobra.Command {
	var out string
	c := a.ofJob("file JOB", "fetch what a job has made, such as a capture", func(ctx context.Context, c *client.Client, id int64) error {
		if out == "" {
			return &usageError{errors.New("--out: expected a file to write, or - for standard output")}
		}
		return a.fetchFile(ctx, c, id, out)
	})
	c.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output")
	return c
}

// fetchFile writes a job's file to out.
func (a *app) fetchFile(ctx context.Context, c *client.Client, id int64, out string) error {
	var file bytes.Buffer
	if err := c.JobFile(ctx, id, &file); err != nil {
		return notFound(err, "haloctl job show tells whether it has made one")
	}
	if out == "-" {
		_, err := a.env.Stdout.Write(file.Bytes())
		return err
	}
	if err := atomicfile.Write(out, file.Bytes(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.env.Stderr, "Wrote %s: %s.\n", out, table.Bytes(int64(file.Len())))
	return nil
}

// A gateway that is asked to start anew does not answer meanwhile.
const (
	awayMost  = 3 * time.Minute
	awayPause = time.Second
)

// awaitJob waits until a job has ended. What is new meanwhile a person is told.
func (a *app) awaitJob(ctx context.Context, c *client.Client, j apitype.Job) (apitype.Job, error) {
	said := ""
	say := func(news string) {
		if news != said && !a.json {
			said = news
			fmt.Fprintf(a.env.Stderr, "job %d: %s\n", j.ID, table.Clean(news))
		}
	}
	var since time.Time // the gateway does not answer
	for !j.Final() {
		if since.IsZero() {
			say(strings.TrimSpace(jobState(j) + " " + j.Message))
		}
		now, err := c.JobNews(ctx, j.ID)
		switch {
		case err == nil:
			j, since = now, time.Time{}
			continue
		case !away(err):
			return j, err
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > awayMost:
			return j, err
		}
		say("the gateway does not answer; waiting for it")
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(awayPause):
		}
	}
	return j, nil
}

// away tells of a gateway, or of a node at its door, that may be back soon, or has too much
// to do.
func away(err error) bool {
	if _, ok := errors.AsType[*client.UnreachableError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*doorway.UnreachableError](err); ok {
		return true
	}
	p, ok := errors.AsType[*apitype.Problem](err)
	return ok && (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests)
}

// jobError is nil where a job was done, and else says what has come of it.
func jobError(j apitype.Job) error {
	if j.State == apitype.JobDone {
		return nil
	}
	what := fmt.Sprintf("job %d (%s) is %s", j.ID, j.Kind, j.State)
	if d := jobDetail(j); d != "" {
		what += ": " + d
	}
	return errors.New(what)
}

// jobState is how far a job is, in a word or two.
func jobState(j apitype.Job) string {
	switch {
	case j.Cancelled && !j.Final():
		return j.State + ", to end"
	case j.State == apitype.JobRunning && j.Progress > 0:
		return fmt.Sprintf("%s %d%%", j.State, j.Progress)
	}
	return j.State
}

func jobDetail(j apitype.Job) string {
	if j.Code == "" || j.Code == j.State {
		return j.Message
	}
	return strings.TrimSuffix(j.Code+": "+j.Message, ": ")
}

// showJob prints a job.
func (a *app) showJob(ctx context.Context, c *client.Client, j apitype.Job) error {
	names, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(j, func(w io.Writer) error {
		t := table.New()
		t.Row("Job", strconv.FormatInt(j.ID, 10))
		t.Row("Kind", j.Kind)
		t.Row("Node", nameOf(names, j.Node))
		t.Row("State", table.Two(jobState(j), j.State))
		t.Programs("Progress", j.Progress)
		t.Programs("Cancelled", j.Cancelled)
		t.Row("Detail", jobDetail(j))
		t.Row("By", j.By)
		t.Row("Made", table.Age(c.Now(), j.Created))
		if j.Expires != nil && j.State == apitype.JobQueued {
			t.Row("Waits until", *j.Expires)
		}
		if j.Ended != nil {
			t.Row("Ended", table.Age(c.Now(), *j.Ended))
		}
		t.Row("Asked", string(j.Request))
		if j.Result != nil {
			t.Row("Result", string(j.Result))
		}
		if j.File != nil {
			t.Row("File", table.Two(fmt.Sprintf("%s (haloctl job file %d --out FILE)", j.File.Type, j.ID), j.File.Type))
			t.Row("Size", table.Bytes(j.File.Bytes))
		}
		return t.Write(w)
	})
}
