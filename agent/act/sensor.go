package act

import (
	"bytes"
	"compress/flate"
	"context"
	"io"
	"time"

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
	// Displays are the labels of the displays that are driven now.
	Displays() []string
	// Show has a display show lines for a while, none: how the device is, and returns its
	// label. An empty label is the only one's.
	Show(ctx context.Context, label string, lines []string, d time.Duration) (string, error)
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

func (d Device) displays() error {
	if err := d.senses(); err != nil {
		return err
	}
	if len(d.Sensors.Displays()) == 0 {
		return model.RefuseCommand(model.CodeNoDisplay, "no display is on the device's buses")
	}
	return nil
}

// display has a display show something. It is done again when it comes again: that changes
// nothing but when it ends.
func (d Device) display(ctx context.Context, t *command.Task) (command.Result, error) {
	c := t.Command.Display
	label, err := d.Sensors.Show(ctx, c.Display, c.Lines, time.Duration(c.Seconds)*time.Second)
	if err != nil {
		return command.Result{}, err
	}
	return command.Result{Value: map[string]any{"display": label, "lines": len(c.Lines), "seconds": c.Seconds}}, nil
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
