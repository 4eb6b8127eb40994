package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/brain"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// NeuronPath names a neuron in a path.
type NeuronPath struct {
	ID string `path:"id" maxLength:"64" doc:"name of the neuron"`
}

// ComponentPath names a component of a neuron.
type ComponentPath struct {
	NeuronPath
	Component model.Component `path:"component" enum:"sensor,thought,memory,send"`
}

// PartPath names a part of a component.
type PartPath struct {
	ComponentPath
	Kind   model.PartKind `path:"kind" enum:"device,process,sensor"`
	Target string         `path:"target" maxLength:"128" doc:"ID of the part: a device by its canonical ID or name, a process as in halo-agent@mast"`
}

func (p PartPath) part() model.Part { return model.Part{Kind: p.Kind, ID: p.Target} }

// brainRoutes are those of neurons. What they change halo-mesh learns at once: names
// lead elsewhere.
func (a *API) brainRoutes() {
	read, write, tags := scope(apitype.ScopeNodesRead), scope(apitype.ScopeNodesWrite), []string{"brain"}
	register(a, read, huma.Operation{
		OperationID: "get-brain", Method: http.MethodGet, Path: "/v1/brain", Tags: tags,
		Summary:     "How all neurons are",
		Description: "The counts are of all; the page is of those in which the device named has a part, or of all.",
	}, func(ctx context.Context, i *struct {
		Page
		Node string `query:"node" maxLength:"64" doc:"canonical ID or name of a device"`
	}) (*body[apitype.Brain], error) {
		return answer(a.Brain.Overview(ctx, i.Node, i.Cursor, i.Limit))
	})
	register(a, read, huma.Operation{
		OperationID: "list-neurons", Method: http.MethodGet, Path: "/v1/brain/neurons", Tags: tags,
		Summary: "Neurons, by name, and what their components are assigned to",
	}, func(ctx context.Context, p *Page) (*body[apitype.NeuronList], error) {
		return answer(a.Brain.Neurons(ctx, p.Cursor, p.Limit))
	})
	register(a, write, huma.Operation{
		OperationID: "create-neuron", Method: http.MethodPost, Path: "/v1/brain/neurons", Tags: tags,
		Summary: "Make a neuron, to which nothing is assigned yet", DefaultStatus: http.StatusCreated,
		Description: "One that is there just as it is asked for stays as it is, so that a client may try again; another of that name is refused (409, name-taken).",
	}, func(ctx context.Context, i *In[apitype.CreateNeuron]) (*tagged[apitype.Neuron], error) {
		c := callerOf(ctx)
		c.target = i.Body.Name
		n, err := a.Brain.Create(ctx, c.Actor(), i.Body)
		return a.neuron(http.StatusCreated, n, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-neuron", Method: http.MethodGet, Path: "/v1/brain/neurons/{id}", Tags: tags,
		Summary: "A neuron and what its components are assigned to",
	}, func(ctx context.Context, i *struct {
		NeuronPath
		IfNoneMatch
	}) (*tagged[apitype.Neuron], error) {
		n, err := a.Brain.Neuron(ctx, i.ID)
		return unlessHad(i.IfNoneMatch, n, brain.Tag(n), err)
	})
	register(a, write, huma.Operation{
		OperationID: "update-neuron", Method: http.MethodPatch, Path: "/v1/brain/neurons/{id}", Tags: tags,
		Summary: "Rename or describe a neuron, or say what it needs", Description: "What is left out stays. Its components' names change with its own.",
	}, func(ctx context.Context, i *struct {
		NeuronPath
		IfMatch
		In[apitype.UpdateNeuron]
	}) (*tagged[apitype.Neuron], error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		n, err := a.Brain.Update(ctx, i.ID, m, i.Body)
		return a.neuron(http.StatusOK, n, err)
	})
	register(a, write, huma.Operation{
		OperationID: "delete-neuron", Method: http.MethodDelete, Path: "/v1/brain/neurons/{id}", Tags: tags,
		Summary: "Remove a neuron; the devices that it was assigned to stay as they are", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *struct {
		NeuronPath
		IfMatch
	}) (*nothing, error) {
		m, err := i.match()
		if err == nil {
			err = a.Brain.Delete(ctx, i.ID, m)
		}
		return nil, a.rewired(err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-neuron-health", Method: http.MethodGet, Path: "/v1/brain/neurons/{id}/health", Tags: tags,
		Summary:     "How a neuron is, and which part lacks what",
		Description: "A component is ok when all its parts are, degraded when some are live, failed when none is; a neuron is as bad as the worst component that it needs.",
	}, func(ctx context.Context, i *NeuronPath) (*body[apitype.NeuronHealth], error) {
		return answer(a.Brain.Health(ctx, i.ID))
	})
	register(a, write, huma.Operation{
		OperationID: "assign-component", Method: http.MethodPut, Path: "/v1/brain/neurons/{id}/components/{component}", Tags: tags,
		Summary:     "Say all that a component is assigned to",
		Description: "A device or process may be part of any number of components. Those that the component has may stay, whatever has become of them; others have to be members', and processes some that their device has.",
	}, func(ctx context.Context, i *struct {
		ComponentPath
		MustMatch
		In[apitype.AssignComponent]
	}) (*tagged[apitype.Neuron], error) {
		callerOf(ctx).target = model.ComponentName(i.Component, i.ID)
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		n, err := a.Brain.Assign(ctx, i.ID, i.Component, m, i.Body.Parts)
		return a.neuron(http.StatusOK, n, err)
	})
	register(a, write, huma.Operation{
		OperationID: "assign-part", Method: http.MethodPut, Path: "/v1/brain/neurons/{id}/components/{component}/parts/{kind}/{target}", Tags: tags,
		Summary: "Assign a component to a device or process, besides what it is assigned to",
	}, func(ctx context.Context, i *struct {
		PartPath
		IfMatch
	}) (*tagged[apitype.Neuron], error) {
		callerOf(ctx).target = i.audited()
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		n, err := a.Brain.AssignPart(ctx, i.ID, i.Component, m, i.part())
		return a.neuron(http.StatusOK, n, err)
	})
	register(a, write, huma.Operation{
		OperationID: "unassign-part", Method: http.MethodDelete, Path: "/v1/brain/neurons/{id}/components/{component}/parts/{kind}/{target}", Tags: tags,
		Summary: "Take a component off a device or process, also one that is no more", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *struct {
		PartPath
		IfMatch
	}) (*nothing, error) {
		callerOf(ctx).target = i.audited()
		m, err := i.match()
		if err == nil {
			err = a.Brain.UnassignPart(ctx, i.ID, i.Component, m, i.part())
		}
		return nil, a.rewired(err)
	})
}

// audited is how the audit log names a part.
func (p PartPath) audited() string {
	return strings.Join([]string{model.ComponentName(p.Component, p.ID), string(p.Kind), p.Target}, " ")
}

// neuron answers with what came of a change.
func (a *API) neuron(status int, n apitype.Neuron, err error) (*tagged[apitype.Neuron], error) {
	if err := a.rewired(err); err != nil {
		return nil, err
	}
	return &tagged[apitype.Neuron]{status, brain.Tag(n), n}, nil
}

// rewired is called after a change of neurons, with its error.
func (a *API) rewired(err error) error {
	if err == nil {
		a.changed()
		a.Mesh.Look()
	}
	return err
}
