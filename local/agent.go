package local

import (
	"context"
	"errors"
	"net/http"

	"halo.internal/health"
	"halo.internal/model"
)

// ErrAgentAbsent is wrapped when nobody answers on halo-agent's socket.
var ErrAgentAbsent = errors.New("halo-agent does not answer")

// Agent is the client of halo-agent's socket. Its methods may be called from
// any goroutine.
type Agent struct{ client }

// NewAgent returns a client for the socket at that path (paths.AgentSocket).
func NewAgent(socket string) *Agent { return &Agent{newClient(socket, ErrAgentAbsent)} }

// Health returns halo-agent's dependency graph, healthy or not.
func (a *Agent) Health(ctx context.Context) (health.Report, error) {
	var r health.Report
	err := a.do(ctx, http.MethodGet, RouteHealth, nil, &r)
	return r, err
}

// Status returns the latest readings and what the spool holds.
func (a *Agent) Status(ctx context.Context) (model.AgentStatus, error) {
	var s model.AgentStatus
	err := a.do(ctx, http.MethodGet, RouteStatus, nil, &s)
	return s, err
}

// Board returns the board that the device is. Node is empty.
func (a *Agent) Board(ctx context.Context) (model.NodeBoard, error) {
	var b model.NodeBoard
	err := a.do(ctx, http.MethodGet, RouteBoard, nil, &b)
	return b, err
}
