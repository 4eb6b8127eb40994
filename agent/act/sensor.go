package act

import (
	"bytes"
	"compress/flate"
	"context"
	"io"

	"halo.internal/agent/command"
	"halo.internal/model"
)

// Sensors is what looks after the chips on the device's buses.
type Sensors interface {
	Scan(context.Context) (model.Inventory, error)
	Assign(context.Context, model.SensorCommand) (model.SensorChip, error)
	Forget(ctx context.Context, bus string, addr uint16) error
	Try(ctx context.Context, c model.SensorCommand, text []byte) (model.SensorTrial, error)
	PutTemplate(name string, text []byte) error
	DeleteTemplate(name string) error
}

func (d Device) senses() error {
	if d.Sensors == nil {
		return model.RefuseCommand(model.CodeUnsupported, "the device has no buses")
	}
	return nil
}

// sensor does what a command says about the chips on buses.
func (d Device) sensor(ctx context.Context, t *command.Task) (command.Result, error) {
	c := *t.Command.Sensor
	var text []byte
	if len(c.Text) > 0 {
		var err error
		if text, err = inflate(c.Text); err != nil {
			return command.Result{}, err
		}
	}
	var value any
	var err error
	switch c.Do {
	case model.SensorScan:
		var v model.Inventory
		v, err = d.Sensors.Scan(ctx)
		value = map[string]int{"sensors": len(v.Sensors), "buses": len(v.Buses)}
	case model.SensorAssign:
		value, err = d.Sensors.Assign(ctx, c)
	case model.SensorForget:
		err = d.Sensors.Forget(ctx, c.Bus, c.Address)
	case model.SensorTry:
		value, err = d.Sensors.Try(ctx, c, text)
	case model.SensorPutTemplate:
		err = d.Sensors.PutTemplate(c.Name, text)
	case model.SensorDeleteTemplate:
		err = d.Sensors.DeleteTemplate(c.Name)
	}
	if err != nil {
		return command.Result{}, err
	}
	return command.Result{Value: value}, nil
}

// inflate unpacks a template, and no more than one may have.
func inflate(b []byte) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), model.MaxTemplateText+1))
	if err != nil {
		return nil, model.RefuseCommand(model.CodeInvalid, "the template: expected a deflated text: %v", err)
	}
	if len(text) > model.MaxTemplateText {
		return nil, model.RefuseCommand(model.CodeInvalid, "the template: expected at most %d octets", model.MaxTemplateText)
	}
	return text, nil
}
