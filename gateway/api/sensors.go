package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/commands"
	"halo.internal/gateway/hardware"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// SensorPath names a sensor in a path.
type SensorPath struct {
	ID string `path:"id" maxLength:"200" doc:"as lists have it; the node may be given by its name" example:"fe804000.i2c-76@mast"`
}

// TemplatePath names a template in a path.
type TemplatePath struct {
	Name string `path:"name" maxLength:"32" example:"aht20"`
}

// members tells which nodes there are: names, and whether they are there.
func (a *API) members(ctx context.Context) (hardware.Nodes, error) {
	nodes := map[string]apitype.Node{}
	err := a.everyNode(ctx, func(n apitype.Node) {
		if !n.Revoked {
			nodes[n.ID] = n
		}
	})
	return func(id string) (string, bool, bool) {
		n, ok := nodes[id]
		return n.Name, n.Online, ok
	}, err
}

// sensor finds a sensor by its ID, in which the node may be named.
func (a *API) sensor(ctx context.Context, id string) (s apitype.Sensor, n apitype.Node, at hardware.Nodes, err error) {
	key, ref, ok := model.SplitSensorID(id)
	if !ok {
		return s, n, nil, apitype.Refuse(http.StatusNotFound, "", "there is no sensor %.120q: GET /v1/sensors lists them", id)
	}
	if n, err = a.Registry.Node(ctx, ref); err != nil {
		return s, n, nil, err
	}
	if at, err = a.members(ctx); err != nil {
		return s, n, nil, err
	}
	s, err = a.Hardware.Get(key, n.ID, at)
	return s, n, at, err
}

// command gives a node a command in the name of whoever asks.
func (a *API) command(ctx context.Context, n apitype.Node, c model.SensorCommand, expires int) (*accepted, error) {
	who := callerOf(ctx)
	who.target = n.ID + " " + string(c.Do)
	if c.Do == model.SensorAssign || c.Do == model.SensorForget {
		if err := a.Hardware.Settle(ctx, n.ID, model.SensorKey(c.Bus, c.Address)); err != nil {
			return nil, err
		}
	}
	return accept(a.Commands.Create(ctx, commands.Request{Node: n, Command: model.Command{Kind: model.CommandSensor, Sensor: &c}, By: who.Actor(), Wait: time.Duration(expires) * time.Second}))
}

func (a *API) sensorRoutes() {
	tags, read, write := []string{"sensors"}, scope(apitype.ScopeNodesRead), scope(apitype.ScopeNodesWrite)
	register(a, read, huma.Operation{
		OperationID: "list-sensors", Method: http.MethodGet, Path: "/v1/sensors", Tags: tags,
		Summary:     "Chips on nodes' buses: those that are read, those that a person has to choose for, those that are gone",
		Description: "A sensor is what it is by its place: node, bus and address. As each node told it last; online says whether the node is there.",
	}, func(ctx context.Context, i *struct {
		Page
		Node  string            `query:"node" maxLength:"64" doc:"canonical ID or name" example:"mast"`
		State model.SensorState `query:"state" enum:"ok,offered,gone,failed,ignored" doc:"only those" example:"offered"`
	}) (*body[apitype.SensorList], error) {
		q := hardware.Query{State: i.State}
		if i.Node != "" {
			n, err := a.Registry.Node(ctx, i.Node)
			if err != nil {
				return nil, err
			}
			q.Node = n.ID
		}
		at, err := a.members(ctx)
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(a.Hardware.List(q, at), i.Page, 1, func(s apitype.Sensor) []string { return []string{s.ID} })
		return answer(apitype.SensorList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-sensor", Method: http.MethodGet, Path: "/v1/sensors/{id}", Tags: tags, Summary: "A sensor, and what it measured last",
	}, func(ctx context.Context, i *SensorPath) (*tagged[apitype.SensorDetail], error) {
		s, n, _, err := a.sensor(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		d := apitype.SensorDetail{Sensor: s, Readings: []apitype.Reading{}}
		if s.Label != "" {
			d.Readings = append(d.Readings, a.readings(n.ID, "i2c."+s.Label+".")...)
		}
		return tag(d, hardware.Tag(s), nil)
	})
	register(a, write, huma.Operation{
		OperationID: "update-sensor", Method: http.MethodPatch, Path: "/v1/sensors/{id}", Tags: tags, Summary: "Give a sensor a name, or say where it is",
	}, func(ctx context.Context, i *struct {
		SensorPath
		IfMatch
		In[apitype.UpdateSensor]
	}) (*tagged[apitype.Sensor], error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		s, _, at, err := a.sensor(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		s, err = a.Hardware.Update(ctx, s.Key(), s.Node, m, i.Body, at)
		return tag(s, hardware.Tag(s), err)
	})
	register(a, write, huma.Operation{
		OperationID: "assign-sensor", Method: http.MethodPost, Path: "/v1/sensors/{id}/assignment", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Say which chip a sensor is, how it is called in metrics, and how often it is read",
		Description: "The answer is a job: the node does it when it is there, and remembers it by bus and address. It wins over what is recognised there. The chip none has it be left alone. The sensor need not be in the list: an address of a bus that the node has will do.",
	}, func(ctx context.Context, i *struct {
		SensorPath
		In[apitype.AssignSensor]
	}) (*accepted, error) {
		n, c, err := a.placed(ctx, i.ID, model.SensorAssign)
		if err != nil {
			return nil, err
		}
		c.Chip, c.Label, c.IntervalS, c.Params = i.Body.Chip, i.Body.Label, i.Body.IntervalS, i.Body.Params
		return a.command(ctx, n, c, i.Body.ExpiresS)
	})
	register(a, write, huma.Operation{
		OperationID: "forget-sensor", Method: http.MethodDelete, Path: "/v1/sensors/{id}/assignment", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Have a node forget what was said of a sensor, and that it was there", Description: "The answer is a job. What answers there is looked at anew.",
	}, func(ctx context.Context, i *SensorPath) (*accepted, error) {
		n, c, err := a.placed(ctx, i.ID, model.SensorForget)
		if err != nil {
			return nil, err
		}
		return a.command(ctx, n, c, 0)
	})
	register(a, write, huma.Operation{
		OperationID: "try-sensor", Method: http.MethodPost, Path: "/v1/sensors/{id}/trial", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Set a chip up by a template, read it once, and tell all that happened",
		Description: "The answer is a job, whose result is each transaction, each name's number and the values. It is for people who write templates: text need not be stored.",
	}, func(ctx context.Context, i *struct {
		SensorPath
		In[apitype.TrySensor]
	}) (*accepted, error) {
		n, c, err := a.placed(ctx, i.ID, model.SensorTry)
		if err != nil {
			return nil, err
		}
		c.Chip, c.Params = i.Body.Chip, i.Body.Params
		if i.Body.Text != "" {
			if c.Text, err = hardware.Pack(i.Body.Text); err != nil {
				return nil, apitype.Refuse(http.StatusUnprocessableEntity, "", "text: %v", err)
			}
		}
		return a.command(ctx, n, c, 0)
	})
	register(a, write, huma.Operation{
		OperationID: "scan-sensors", Method: http.MethodPost, Path: "/v1/nodes/{id}/sensors/scan", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Have a node look for chips at once", Description: "It does each minute by itself. The answer is a job.",
	}, func(ctx context.Context, i *struct {
		NodePath
		In[apitype.ScanSensors]
	}) (*accepted, error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		return a.command(ctx, n, model.SensorCommand{Do: model.SensorScan}, i.Body.ExpiresS)
	})
	register(a, read, huma.Operation{
		OperationID: "get-node-inventory", Method: http.MethodGet, Path: "/v1/nodes/{id}/inventory", Tags: tags,
		Summary: "What is on a node's buses: buses, sensors, and templates of people's", Description: "As the node told it last. The board itself is GET /v1/nodes/{id}/board.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.NodeInventory], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		v, at, err := a.Hardware.Inventory(n.ID)
		return answer(apitype.NodeInventory{Node: n.ID, Time: at, Inventory: v}, err)
	})
	a.templateRoutes(read, write)
	a.powerRoutes(read)
}

// placed is the node and the place that a sensor's ID names, whether the gateway knows of
// it or not.
func (a *API) placed(ctx context.Context, id string, do model.SensorAction) (apitype.Node, model.SensorCommand, error) {
	c := model.SensorCommand{Do: do}
	key, ref, ok := model.SplitSensorID(id)
	if !ok {
		return apitype.Node{}, c, apitype.Refuse(http.StatusNotFound, "", "there is no sensor %.120q: expected a bus, an address and a node, such as fe804000.i2c-76@mast", id)
	}
	n, err := a.Registry.Node(ctx, ref)
	if err != nil {
		return n, c, err
	}
	if c.Bus, c.Address, ok = model.SplitSensorKey(key); !ok {
		return n, c, apitype.Refuse(http.StatusNotFound, "", "there is no sensor %.120q: expected a bus and an address in hexadecimal, such as fe804000.i2c-76", key)
	}
	return n, c, nil
}

func (a *API) templateRoutes(read, write access) {
	tags := []string{"sensors"}
	register(a, read, huma.Operation{
		OperationID: "list-sensor-templates", Method: http.MethodGet, Path: "/v1/sensor-templates", Tags: tags,
		Summary: "Templates of chips: those of the release, and those of people's, which all nodes get",
	}, func(ctx context.Context, p *Page) (*body[apitype.SensorTemplateList], error) {
		at, err := a.members(ctx)
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(a.Hardware.Templates(at), *p, 1, func(t apitype.SensorTemplate) []string { return []string{t.Name} })
		return answer(apitype.SensorTemplateList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-sensor-template", Method: http.MethodGet, Path: "/v1/sensor-templates/{name}", Tags: tags, Summary: "A template with its text",
	}, func(ctx context.Context, i *TemplatePath) (*tagged[apitype.SensorTemplateText], error) {
		at, err := a.members(ctx)
		if err != nil {
			return nil, err
		}
		t, err := a.Hardware.Template(i.Name, at)
		return tag(t, hardware.TemplateTag(t), err)
	})
	register(a, write, huma.Operation{
		OperationID: "put-sensor-template", Method: http.MethodPut, Path: "/v1/sensor-templates/{name}", Tags: tags,
		Summary:     "Store a template; all nodes get it, those that are off when they come",
		Description: "It takes the place of one of the release's that has its name. What is wrong in it is said with its line (422).",
	}, func(ctx context.Context, i *struct {
		TemplatePath
		IfMatch
		In[apitype.PutSensorTemplate]
	}) (*tagged[apitype.SensorTemplateText], error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		at, err := a.members(ctx)
		if err != nil {
			return nil, err
		}
		t, err := a.Hardware.PutTemplate(ctx, i.Name, i.Body.Text, callerOf(ctx).Actor(), m, at)
		return tag(t, hardware.TemplateTag(t), err)
	})
	register(a, write, huma.Operation{
		OperationID: "delete-sensor-template", Method: http.MethodDelete, Path: "/v1/sensor-templates/{name}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Take a template of people's from all nodes",
	}, func(ctx context.Context, i *struct {
		TemplatePath
		IfMatch
	}) (*nothing, error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		at, err := a.members(ctx)
		if err != nil {
			return nil, err
		}
		return nil, a.Hardware.DeleteTemplate(ctx, i.Name, callerOf(ctx).Actor(), m, at)
	})
	register(a, read, huma.Operation{
		OperationID: "lint-sensor-template", Method: http.MethodPost, Path: "/v1/sensor-templates/lint", Tags: tags,
		Summary: "What is wrong with a template, with its lines, and what its author may have overlooked", Description: "Nothing is stored.",
	}, func(_ context.Context, i *In[apitype.LintSensorTemplate]) (*body[apitype.SensorTemplateFindings], error) {
		out := apitype.SensorTemplateFindings{Items: hardware.Lint(i.Body.Name, i.Body.Text)}
		out.Usable = !slices.ContainsFunc(out.Items, func(f model.TemplateFinding) bool { return !f.Warning })
		return answer(out, nil)
	})
}

func (a *API) powerRoutes(read access) {
	tags := []string{"power"}
	register(a, read, huma.Operation{
		OperationID: "list-power", Method: http.MethodGet, Path: "/v1/power", Tags: tags,
		Summary: "How nodes are fed: those that measure it", Description: "By their latest readings power.*, which UPS boards and meters give.",
	}, func(ctx context.Context, p *Page) (*body[apitype.NodePowerList], error) {
		var list []apitype.NodePower
		err := a.everyNode(ctx, func(n apitype.Node) {
			if s := a.power(n.ID); !n.Revoked && !s.Time.IsZero() {
				list = append(list, apitype.NodePower{Node: n.ID, NodeName: n.Name, Online: n.Online, Power: s})
			}
		})
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(list, *p, 1, func(n apitype.NodePower) []string { return []string{n.Node} })
		return answer(apitype.NodePowerList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-node-power", Method: http.MethodGet, Path: "/v1/nodes/{id}/power", Tags: tags, Summary: "How a node is fed",
		Description: "source is unknown where nothing measures it. Limits are settings of the node: POST /v1/nodes/{id}/commands, kind config.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.NodePower], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		return answer(apitype.NodePower{Node: n.ID, NodeName: n.Name, Online: n.Online, Power: a.power(n.ID)}, err)
	})
}

// powerAge is how much older than the newest of a node's readings one of its power may be:
// what hardly changes is sent every 15 minutes where a rule says so.
const powerAge = 20 * time.Minute

// power is how a node is fed, or was when it was heard of last.
func (a *API) power(node string) model.PowerState {
	return powerOf(a.readings(node, "power."), a.Telemetry.Latest().Told(node).Add(-powerAge))
}

// powerOf is how a node is fed, by its latest readings but those made before a time: of a
// meter that is gone, say.
func powerOf(readings []apitype.Reading, after time.Time) model.PowerState {
	s := model.PowerState{Source: model.PowerUnknown}
	for _, r := range readings {
		if r.Time.Before(after) {
			continue
		}
		thing, name, _ := strings.Cut(strings.TrimPrefix(r.Metric, "power."), ".")
		if r.Time.After(s.Time) {
			s.Time = r.Time
		}
		switch {
		case thing == "supply" && name == "on_battery":
			if s.Source = model.PowerExternal; r.Value != 0 {
				s.Source = model.PowerBattery
			}
		case thing == "supply" && name == "battery_low":
			s.Low = r.Value != 0
		case thing == "supply" && name == "shutting_down":
			s.ShuttingDown = r.Value != 0
		case thing == "battery" && name == "percent":
			s.Percent, s.By = &r.Value, model.ChargeGauge
		case thing == "battery" && name == "estimated_percent":
			s.Percent, s.By = &r.Value, model.ChargeVoltage
		default:
			if s.Measured == nil {
				s.Measured = map[string]float64{}
			}
			s.Measured[thing+"_"+name] = r.Value
		}
	}
	return s
}
