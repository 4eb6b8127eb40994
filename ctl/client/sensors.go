package client

import (
	"context"
	"net/http"
	"net/url"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

func sensorPath(id string) string { return "/v1/sensors/" + url.PathEscape(id) }

func templatePath(name string) string { return "/v1/sensor-templates/" + url.PathEscape(name) }

// order posts something in the name of whoever is logged in. It may be sent again when its
// answer is lost.
func order[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var answer T
	err := c.call(ctx, request{method: http.MethodPost, path: path, body: body, once: true}, &answer)
	return answer, err
}

// Sensors lists the chips on nodes' buses, of one node and in one state where those are
// named.
func (c *Client) Sensors(ctx context.Context, node, state string) ([]apitype.Sensor, error) {
	return all(func(cursor string) ([]apitype.Sensor, string, error) {
		l, err := get[apitype.SensorList](ctx, c, "/v1/sensors", page(filter(map[string]string{"node": node, "state": state}), cursor))
		return l.Items, l.Next, err
	})
}

// Sensor returns one, with what it measured last.
func (c *Client) Sensor(ctx context.Context, id string) (apitype.SensorDetail, error) {
	return get[apitype.SensorDetail](ctx, c, sensorPath(id), nil)
}

// UpdateSensor gives a sensor a name or a place.
func (c *Client) UpdateSensor(ctx context.Context, id string, u apitype.UpdateSensor) (apitype.Sensor, error) {
	var s apitype.Sensor
	err := c.call(ctx, request{method: http.MethodPatch, path: sensorPath(id), body: u}, &s)
	return s, err
}

// AssignSensor says which chip a sensor is. The job is the node's.
func (c *Client) AssignSensor(ctx context.Context, id string, a apitype.AssignSensor) (apitype.Job, error) {
	return order[apitype.Job](ctx, c, sensorPath(id)+"/assignment", a)
}

// ForgetSensor has a node forget what was said of a sensor.
func (c *Client) ForgetSensor(ctx context.Context, id string) (apitype.Job, error) {
	var j apitype.Job
	err := c.call(ctx, request{method: http.MethodDelete, path: sensorPath(id) + "/assignment"}, &j)
	return j, err
}

// TrySensor has a node set a chip up by a template, and read it once.
func (c *Client) TrySensor(ctx context.Context, id string, t apitype.TrySensor) (apitype.Job, error) {
	return order[apitype.Job](ctx, c, sensorPath(id)+"/trial", t)
}

// ScanSensors has a node look for chips at once.
func (c *Client) ScanSensors(ctx context.Context, node string) (apitype.Job, error) {
	return order[apitype.Job](ctx, c, nodePath(node)+"/sensors/scan", apitype.ScanSensors{})
}

// NodeInventory returns what is on a node's buses.
func (c *Client) NodeInventory(ctx context.Context, node string) (apitype.NodeInventory, error) {
	return get[apitype.NodeInventory](ctx, c, nodePath(node)+"/inventory", nil)
}

// SensorTemplates lists the templates of chips.
func (c *Client) SensorTemplates(ctx context.Context) ([]apitype.SensorTemplate, error) {
	return all(func(cursor string) ([]apitype.SensorTemplate, string, error) {
		l, err := get[apitype.SensorTemplateList](ctx, c, "/v1/sensor-templates", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// SensorTemplate returns one with its text.
func (c *Client) SensorTemplate(ctx context.Context, name string) (apitype.SensorTemplateText, error) {
	return get[apitype.SensorTemplateText](ctx, c, templatePath(name), nil)
}

// PutSensorTemplate stores a template.
func (c *Client) PutSensorTemplate(ctx context.Context, name, text string) (apitype.SensorTemplateText, error) {
	var t apitype.SensorTemplateText
	err := c.call(ctx, request{method: http.MethodPut, path: templatePath(name), body: apitype.PutSensorTemplate{Text: text}}, &t)
	return t, err
}

// DeleteSensorTemplate takes one from all nodes.
func (c *Client) DeleteSensorTemplate(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: templatePath(name)}, nil)
}

// LintSensorTemplate tells what is wrong with a template.
func (c *Client) LintSensorTemplate(ctx context.Context, name, text string) (apitype.SensorTemplateFindings, error) {
	return order[apitype.SensorTemplateFindings](ctx, c, "/v1/sensor-templates/lint", apitype.LintSensorTemplate{Name: name, Text: text})
}

// Power lists how nodes are fed.
func (c *Client) Power(ctx context.Context) ([]apitype.NodePower, error) {
	return all(func(cursor string) ([]apitype.NodePower, string, error) {
		l, err := get[apitype.NodePowerList](ctx, c, "/v1/power", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// NodePower tells how a node is fed.
func (c *Client) NodePower(ctx context.Context, node string) (apitype.NodePower, error) {
	return get[apitype.NodePower](ctx, c, nodePath(node)+"/power", nil)
}

// Findings are the same, of a text that no gateway was asked about.
func Findings(list []model.TemplateFinding) apitype.SensorTemplateFindings {
	out := apitype.SensorTemplateFindings{Usable: true, Items: list}
	for _, f := range list {
		out.Usable = out.Usable && f.Warning
	}
	return out
}
