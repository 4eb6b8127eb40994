package brain

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Assign has a component assigned to these parts and to no others. Those that it has
// may stay, whatever has become of them.
func (b *Brain) Assign(ctx context.Context, neuron string, c model.Component, m etag.Match, parts []model.Part) (apitype.Neuron, error) {
	if err := checkComponent(c); err != nil {
		return apitype.Neuron{}, err
	}
	if len(parts) > model.MaxComponentParts {
		return apitype.Neuron{}, tooMany()
	}
	was, err := b.Neuron(ctx, neuron)
	if err != nil {
		return apitype.Neuron{}, err
	}
	has, parts := component(&was, c).Parts, slices.Clone(parts)
	for i, p := range parts {
		if parts[i], err = b.canonical(ctx, p, false); err == nil && !slices.Contains(has, parts[i]) {
			parts[i], err = b.canonical(ctx, p, true)
		}
		if err != nil {
			return apitype.Neuron{}, err
		}
	}
	return b.change(ctx, neuron, m, func(tx *sql.Tx, n apitype.Neuron) (string, error) {
		has := component(&n, c).Parts
		for _, p := range has {
			if !slices.Contains(parts, p) {
				if _, err := tx.ExecContext(ctx, `DELETE FROM neuron_parts WHERE neuron = ? AND component = ? AND kind = ? AND target = ?`, neuron, c, p.Kind, p.ID); err != nil {
					return "", err
				}
			}
		}
		for _, p := range parts {
			if err := add(ctx, tx, neuron, c, p); err != nil {
				return "", err
			}
		}
		return neuron, bounded(ctx, tx, neuron, c)
	})
}

// AssignPart has a component assigned to a part besides others. One that it is
// assigned to already is no change.
func (b *Brain) AssignPart(ctx context.Context, neuron string, c model.Component, m etag.Match, p model.Part) (apitype.Neuron, error) {
	if err := checkComponent(c); err != nil {
		return apitype.Neuron{}, err
	}
	p, err := b.canonical(ctx, p, true)
	if err != nil {
		return apitype.Neuron{}, err
	}
	return b.change(ctx, neuron, m, func(tx *sql.Tx, _ apitype.Neuron) (string, error) {
		if err := add(ctx, tx, neuron, c, p); err != nil {
			return "", err
		}
		return neuron, bounded(ctx, tx, neuron, c)
	})
}

// UnassignPart takes a component off a part, which need not be there any more.
func (b *Brain) UnassignPart(ctx context.Context, neuron string, c model.Component, m etag.Match, p model.Part) error {
	if err := checkComponent(c); err != nil {
		return err
	}
	p, err := b.canonical(ctx, p, false)
	if err != nil {
		return err
	}
	_, err = b.change(ctx, neuron, m, func(tx *sql.Tx, n apitype.Neuron) (string, error) {
		if !slices.Contains(component(&n, c).Parts, p) {
			return "", apitype.Refuse(http.StatusNotFound, "", "%s is not assigned to the %s %s", model.ComponentName(c, neuron), p.Kind, p.ID)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM neuron_parts WHERE neuron = ? AND component = ? AND kind = ? AND target = ?`, neuron, c, p.Kind, p.ID)
		return "", err
	})
	return err
}

func add(ctx context.Context, tx *sql.Tx, neuron string, c model.Component, p model.Part) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO neuron_parts (neuron, component, kind, target) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, neuron, c, p.Kind, p.ID)
	return err
}

// bounded returns a problem when a component, or the brain, has too many parts.
func bounded(ctx context.Context, tx *sql.Tx, neuron string, c model.Component) error {
	var here, all int
	if err := tx.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE neuron = ? AND component = ?) FROM neuron_parts`, neuron, c).Scan(&all, &here); err != nil {
		return err
	}
	if here > model.MaxComponentParts || all > model.MaxParts {
		return tooMany()
	}
	return nil
}

func tooMany() error {
	return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "a component is assigned to %d parts at most, and all together to %d", model.MaxComponentParts, model.MaxParts)
}

func checkComponent(c model.Component) error {
	if !c.Valid() {
		return apitype.Refuse(http.StatusNotFound, "", "there is no component %.40q: a neuron has sensor, thought, memory and send", c)
	}
	return nil
}

// canonical returns the part with the canonical ID of its device in place of a name.
// One that is to be there has to be a member's, and a process one that the device has.
func (b *Brain) canonical(ctx context.Context, p model.Part, there bool) (model.Part, error) {
	if p.Kind != model.PartDevice && p.Kind != model.PartProcess && p.Kind != model.PartSensor {
		return p, invalid("kind: expected device, process or sensor, got %.40q", p.Kind)
	}
	ref, process := p.Device()
	if p.Kind == model.PartSensor && (ref == "" || process == "") {
		return p, invalid("id: expected a sensor and its device as in fe804000.i2c-76@n-…; got %.64q", p.ID)
	}
	if ref == "" {
		return p, invalid("id: expected a device by its canonical ID or name, of a process as in halo-agent@n-…; got %.64q", p.ID)
	}
	if p.Kind == model.PartProcess && process == "" {
		return p, invalid("id: expected a process and its device as in halo-agent@n-…; got %.64q", p.ID)
	}
	n, err := b.Devices.Node(ctx, ref)
	if err != nil {
		if problem, ok := errors.AsType[*apitype.Problem](err); !ok || problem.Status != http.StatusNotFound || there || !identity.ValidID(ref) {
			return p, err
		}
		n.ID = ref // it has been forgotten
	}
	if there {
		if n.Revoked {
			return p, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeRevoked, "the device %s was revoked: nothing can be assigned to it", n.ID)
		}
		if p.Kind == model.PartSensor {
			if _, known := b.sensor(process, n.ID); !known {
				return p, invalid("id: expected a sensor that %s has, and it has no %.64q: haloctl sensor list shows them", n.Name, process)
			}
		} else if has := model.ProcessesOf(n.Role); process != "" && !slices.Contains(has, process) {
			return p, invalid("id: expected a process that %s has (%s), got %.40q", n.Name, strings.Join(has, ", "), process)
		}
	}
	if p.ID = n.ID; process != "" {
		p.ID = model.ProcessID(process, n.ID)
	}
	return p, nil
}
