package act

import (
	"bytes"
	"context"
	"errors"

	"halo.internal/agent/command"
	"halo.internal/local"
	"halo.internal/model"
)

// radios tells whether the mesh has any here. Until halo-mesh has said, it may: who
// asks for a scan then hears it from halo-mesh itself.
func (d Device) radios() error {
	s := d.Status()
	if s.Node == "" {
		return nil
	}
	for _, r := range s.Radios {
		if r.Iface != "" {
			return nil
		}
	}
	return model.RefuseCommand(model.CodeNoRadio, "the mesh has no radio here")
}

func (d Device) scan(ctx context.Context, t *command.Task) (command.Result, error) {
	s, err := d.Mesh.Scan(ctx, *t.Command.Scan)
	if err != nil {
		return command.Result{}, ofMesh(err)
	}
	return command.Result{Value: s}, nil
}

func (d Device) capture(ctx context.Context, t *command.Task) (command.Result, error) {
	q := *t.Command.Capture
	var frames bytes.Buffer // whole, or nothing
	if err := d.Mesh.Capture(ctx, q, &frames); err != nil {
		return command.Result{}, ofMesh(err)
	}
	return command.Result{File: frames.Bytes()}, nil
}

// ofMesh makes a refusal of halo-mesh's no.
func ofMesh(err error) error {
	code := ""
	switch {
	case errors.Is(err, local.ErrNone):
		code = model.CodeNoRadio
	case errors.Is(err, local.ErrBusy):
		code = model.CodeBusy
	case errors.Is(err, local.ErrInvalid):
		code = model.CodeInvalid
	default:
		return err
	}
	text := err.Error()
	if r, ok := errors.AsType[*local.Refusal](err); ok {
		text = r.Text
	}
	return model.RefuseCommand(code, "%s", text)
}
