package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/commands"
	"halo.internal/gateway/jobs"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// JobPath names a job in a path.
type JobPath struct {
	ID int64 `path:"id" minimum:"1" example:"42"`
}

// longestWait is how long an answer about a job may take: proxies and phones give up
// on what is silent for longer.
const longestWait = 25

// accepted is an answer with a job that has been begun.
type accepted struct {
	Location string `header:"Location" doc:"where to ask how far it is"`
	Body     apitype.Job
}

func accept(j apitype.Job, err error) (*accepted, error) {
	if err != nil {
		return nil, err
	}
	return &accepted{fmt.Sprintf("/v1/jobs/%d", j.ID), j}, nil
}

// before reads the cursor of a list of jobs.
func before(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	id, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || id < 1 {
		return 0, notACursor()
	}
	return id, nil
}

// cursorBefore is the cursor of the next page; empty: there is none.
func cursorBefore(next int64) string {
	if next == 0 {
		return ""
	}
	return strconv.FormatInt(next, 10)
}

func (a *API) jobList(ctx context.Context, q jobs.Query, p Page) (*body[apitype.JobList], error) {
	var err error
	if q.Before, err = before(p.Cursor); err != nil {
		return nil, err
	}
	q.Limit = p.Limit
	list, next, err := a.Jobs.List(ctx, q)
	return answer(apitype.JobList{Items: list, Next: cursorBefore(next)}, err)
}

func (a *API) jobRoutes() {
	tags := []string{"jobs"}
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: "/v1/jobs", Tags: tags,
		Summary:     "What takes longer than a request: commands to nodes, speed tests and the like, newest first",
		Description: "Of each kind the newest that have ended are kept.",
	}, func(ctx context.Context, i *struct {
		Page
		Node   string `query:"node" maxLength:"64" doc:"canonical ID or name: about it" example:"mast-3"`
		Kind   string `query:"kind" maxLength:"32" example:"scan"`
		Active bool   `query:"active" doc:"only those that have not ended"`
	}) (*body[apitype.JobList], error) {
		q := jobs.Query{Active: i.Active}
		if i.Kind != "" {
			q.Kinds = []string{i.Kind}
		}
		var err error
		if q.Nodes, err = a.withPast(ctx, i.Node); err != nil {
			return nil, err
		}
		return a.jobList(ctx, q, i.Page)
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: "/v1/jobs/{id}", Tags: tags,
		Summary:     "How far a job is, and what has come of it",
		Description: "With wait_s the answer comes when the job has changed or ended, or when that time is over.",
	}, func(ctx context.Context, i *struct {
		JobPath
		WaitS int `query:"wait_s" minimum:"0" maximum:"25" example:"20" doc:"seconds to wait for news"`
	}) (*body[apitype.Job], error) {
		if i.WaitS == 0 {
			return answer(a.Jobs.Get(ctx, i.ID))
		}
		return answer(a.Jobs.Wait(ctx, i.ID, time.Duration(min(i.WaitS, longestWait))*time.Second))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "cancel-job", Method: http.MethodDelete, Path: "/v1/jobs/{id}", Tags: tags,
		Summary: "Take a job back",
		Description: "One that waits is over at once. One that runs ends when it can: the answer says how it is now, and cancel_requested that it was asked to. " +
			"A reboot, a restart and a change of settings go on once they have begun. Jobs of kinds that an admin alone may ask for, he alone takes back.",
	}, func(ctx context.Context, i *JobPath) (*body[apitype.Job], error) {
		j, err := a.Jobs.Get(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		c := callerOf(ctx)
		c.target = fmt.Sprintf("%d %s %s", j.ID, j.Kind, j.Node)
		if err := c.Require(a.Jobs.Scope(j.Kind)); err != nil {
			return nil, err
		}
		return answer(a.Jobs.Cancel(ctx, i.ID))
	})
	register(a, admin, huma.Operation{
		OperationID: "get-job-file", Method: http.MethodGet, Path: "/v1/jobs/{id}/file", Tags: tags,
		Summary: "The file that a job has made, such as a capture", Description: "Files are kept as long as there is room for newer ones.",
	}, func(ctx context.Context, i *JobPath) (*rawAnswer, error) {
		j, b, err := a.Jobs.File(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		return &rawAnswer{ContentType: j.File.Type, Body: b}, nil
	})
}

func (a *API) commandRoutes() {
	tags := []string{"commands"}
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "create-node-command", Method: http.MethodPost, Path: "/v1/nodes/{id}/commands", Tags: tags,
		Summary: "Have a node do something", DefaultStatus: http.StatusAccepted,
		Description: "kind says what, the member of that kind how: reboot; restart of a process; locate, by blinking LEDs; set-output; display, of a line or some; scan and capture by a radio of the node; config, of how often it measures and sends; factory-reset. There is nothing else, and no shell. " +
			"The answer is a job. The gateway signs the command and hands it over when the node is there, at the latest after expires_s; the node executes it once, whatever is sent again. " +
			"409 node-cannot: the node has said that it cannot do this. capture, config and factory-reset need an admin. What a capture has recorded is the job's file, what a scan has found and the settings in use its result.",
	}, func(ctx context.Context, i *struct {
		NodePath
		In[apitype.CreateCommand]
	}) (*accepted, error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		c := callerOf(ctx)
		c.target = n.ID + " " + string(i.Body.Kind)
		if err := c.Require(a.Jobs.Scope(string(i.Body.Kind))); err != nil {
			return nil, err
		}
		return accept(a.Commands.Create(ctx, commands.Request{Node: n, Command: i.Body.Command, By: c.Actor(), Wait: time.Duration(i.Body.ExpiresS) * time.Second}))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-node-commands", Method: http.MethodGet, Path: "/v1/nodes/{id}/commands", Tags: tags,
		Summary: "What a node was asked to do, newest first", Description: "They are jobs: GET and DELETE /v1/jobs/{id} are about one of them.",
	}, func(ctx context.Context, i *struct {
		NodePath
		Page
		Active bool `query:"active" doc:"only those that have not ended"`
	}) (*body[apitype.JobList], error) {
		nodes, err := a.withPast(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		q := jobs.Query{Nodes: nodes, Active: i.Active}
		for _, k := range model.PeopleCommands() {
			q.Kinds = append(q.Kinds, string(k))
		}
		return a.jobList(ctx, q, i.Page)
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-node-capabilities", Method: http.MethodGet, Path: "/v1/nodes/{id}/capabilities", Tags: tags,
		Summary: "What a node can be asked to do, and why not where it cannot",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.NodeCapabilities], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		list, known, online := a.Commands.Abilities(n.ID)
		return answer(apitype.NodeCapabilities{Node: n.ID, Online: online, Known: known, Items: append([]model.Ability{}, list...)}, err)
	})
}

func (a *API) speedTestRoutes() {
	tags := []string{"speed tests"}
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "create-speed-test", Method: http.MethodPost, Path: "/v1/speed-tests", Tags: tags,
		Summary: "Measure what the overlay carries between a node and the gateway, or another node", DefaultStatus: http.StatusAccepted,
		Description: "The answer is a job whose result is what was measured: 2 MB to the node and 1 MB from it, or less, and what 15 s carry where a link is slow. " +
			"A mesh shares its channel: tests are made one after the other in the whole network, with pauses, and one node once a minute (429). Both devices have to be there and able (409 node-cannot); a radio of which the law allows too little airtime refuses.",
	}, func(ctx context.Context, i *In[apitype.CreateSpeedTest]) (*accepted, error) {
		c := callerOf(ctx)
		c.target = i.Body.Node
		return accept(a.SpeedTests.Create(ctx, i.Body, c.Actor(), ""))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-speed-tests", Method: http.MethodGet, Path: "/v1/speed-tests", Tags: tags,
		Summary: "What speed tests have measured, newest first", Description: "The newest 500 are kept.",
	}, func(ctx context.Context, i *struct {
		Page
		Node string `query:"node" maxLength:"64" doc:"canonical ID or name: measured by it" example:"mast-3"`
	}) (*body[apitype.SpeedTestList], error) {
		nodes, err := a.withPast(ctx, i.Node)
		if err != nil {
			return nil, err
		}
		from, err := before(i.Cursor)
		if err != nil {
			return nil, err
		}
		list, next, err := a.SpeedTests.List(ctx, nodes, from, i.Limit)
		return answer(apitype.SpeedTestList{Items: list, Next: cursorBefore(next)}, err)
	})
}
