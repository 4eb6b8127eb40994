package client

import (
	"context"
	"net/http"
	"net/url"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

const neuronsPath = "/v1/brain/neurons"

func neuronPath(name string) string { return neuronsPath + "/" + url.PathEscape(name) }

func componentPath(neuron string, c model.Component) string {
	return neuronPath(neuron) + "/components/" + url.PathEscape(string(c))
}

func partPath(neuron string, c model.Component, p model.Part) string {
	return componentPath(neuron, c) + "/parts/" + url.PathEscape(string(p.Kind)) + "/" + url.PathEscape(p.ID)
}

// Brain tells how all neurons are, or of those in which a device has a part, if one is
// named: then the counts are of all too.
func (c *Client) Brain(ctx context.Context, node string) (apitype.Brain, error) {
	var first *apitype.Brain
	items, err := all(func(cursor string) ([]apitype.NeuronCondition, string, error) {
		b, err := get[apitype.Brain](ctx, c, "/v1/brain", page(filter(map[string]string{"node": node}), cursor))
		if first == nil {
			first = &b
		}
		return b.Items, b.Next, err
	})
	if err != nil {
		return apitype.Brain{}, err
	}
	first.Items, first.Next = items, ""
	return *first, nil
}

// Neurons lists all neurons.
func (c *Client) Neurons(ctx context.Context) ([]apitype.Neuron, error) {
	return all(func(cursor string) ([]apitype.Neuron, string, error) {
		l, err := get[apitype.NeuronList](ctx, c, neuronsPath, page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// Neuron returns one by name, and its entity tag.
func (c *Client) Neuron(ctx context.Context, name string) (n apitype.Neuron, tag string, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: neuronPath(name), tag: &tag}, &n)
	return n, tag, err
}

// NeuronHealth tells how a neuron is, and why.
func (c *Client) NeuronHealth(ctx context.Context, name string) (apitype.NeuronHealth, error) {
	return get[apitype.NeuronHealth](ctx, c, neuronPath(name)+"/health", nil)
}

// CreateNeuron makes a neuron, or returns the one that is there just so.
func (c *Client) CreateNeuron(ctx context.Context, n apitype.CreateNeuron) (apitype.Neuron, error) {
	var answer apitype.Neuron
	err := c.call(ctx, request{method: http.MethodPost, path: neuronsPath, body: n, once: true}, &answer)
	return answer, err
}

// UpdateNeuron changes what is named.
func (c *Client) UpdateNeuron(ctx context.Context, name string, u apitype.UpdateNeuron) (apitype.Neuron, error) {
	var answer apitype.Neuron
	err := c.call(ctx, request{method: http.MethodPatch, path: neuronPath(name), body: u}, &answer)
	return answer, err
}

// DeleteNeuron removes a neuron.
func (c *Client) DeleteNeuron(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: neuronPath(name)}, nil)
}

// AssignComponent assigns a component of a neuron to those parts and no others, where the
// neuron still has that entity tag.
func (c *Client) AssignComponent(ctx context.Context, neuron string, of model.Component, parts []model.Part, tag string) (apitype.Neuron, error) {
	var answer apitype.Neuron
	err := c.call(ctx, request{method: http.MethodPut, path: componentPath(neuron, of), body: apitype.AssignComponent{Parts: parts}, match: tag}, &answer)
	return answer, err
}

// AssignPart assigns a component of a neuron to a part besides others.
func (c *Client) AssignPart(ctx context.Context, neuron string, of model.Component, p model.Part) (apitype.Neuron, error) {
	var answer apitype.Neuron
	err := c.call(ctx, request{method: http.MethodPut, path: partPath(neuron, of, p)}, &answer)
	return answer, err
}

// UnassignPart takes a component of a neuron off a part.
func (c *Client) UnassignPart(ctx context.Context, neuron string, of model.Component, p model.Part) error {
	return c.call(ctx, request{method: http.MethodDelete, path: partPath(neuron, of, p)}, nil)
}
