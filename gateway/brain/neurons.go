package brain

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const maxDescription = 256 // characters

// Tag returns the entity tag of a neuron.
func Tag(n apitype.Neuron) string { return etag.Of(n) }

// querier is a transaction or the connections for queries.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// read returns neurons with their parts, by name: those that a condition chooses, in
// SQL. It is one query, so that no change comes in between.
func read(ctx context.Context, q querier, chosen string, args ...any) ([]apitype.Neuron, error) {
	rows, err := q.QueryContext(ctx, `SELECT n.name, n.description, n.needs, n.created, n.created_by, p.component, p.kind, p.target
		FROM (SELECT * FROM neurons `+chosen+`) AS n LEFT JOIN neuron_parts AS p ON p.neuron = n.name
		ORDER BY n.name, p.component, p.kind, p.target`, args...)
	if err != nil {
		return nil, store.Classify(err)
	}
	defer rows.Close()
	list := []apitype.Neuron{}
	for rows.Next() {
		var n apitype.Neuron
		var needs string
		var created int64
		var of, kind, target sql.Null[string]
		if err := rows.Scan(&n.Name, &n.Description, &needs, &created, &n.By, &of, &kind, &target); err != nil {
			return nil, store.Classify(err)
		}
		if len(list) == 0 || list[len(list)-1].Name != n.Name {
			n.Created = store.Time(created)
			for _, c := range strings.Fields(needs) {
				n.Needs = append(n.Needs, model.Component(c))
			}
			for _, c := range model.Components() {
				n.Components = append(n.Components, apitype.Component{Component: c, Name: model.ComponentName(c, n.Name), Parts: []model.Part{}})
			}
			list = append(list, n)
		}
		if of.Valid {
			c := component(&list[len(list)-1], model.Component(of.V))
			c.Parts = append(c.Parts, model.Part{Kind: model.PartKind(kind.V), ID: target.V})
		}
	}
	return list, store.Classify(rows.Err())
}

// component returns that of a neuron.
func component(n *apitype.Neuron, c model.Component) *apitype.Component {
	i := slices.IndexFunc(n.Components, func(of apitype.Component) bool { return of.Component == c })
	if i < 0 {
		panic("brain: a component that is none: " + string(c)) // the database and the API let in no other
	}
	return &n.Components[i]
}

func (b *Brain) load(ctx context.Context) ([]apitype.Neuron, error) {
	return read(ctx, b.DB.Read(), "")
}

// Neurons returns a page of neurons by name.
func (b *Brain) Neurons(ctx context.Context, cursor string, limit int) (apitype.NeuronList, error) {
	list, err := read(ctx, b.DB.Read(), `WHERE name > ? ORDER BY name LIMIT ?`, cursor, limit+1)
	l := apitype.NeuronList{Items: list}
	if len(list) > limit {
		l.Items = list[:limit]
		l.Next = list[limit-1].Name
	}
	return l, err
}

// Neuron finds one by name.
func (b *Brain) Neuron(ctx context.Context, name string) (apitype.Neuron, error) {
	return one(ctx, b.DB.Read(), name)
}

func one(ctx context.Context, q querier, name string) (apitype.Neuron, error) {
	list, err := read(ctx, q, `WHERE name = ?`, name)
	if err != nil {
		return apitype.Neuron{}, err
	}
	if len(list) == 0 {
		return apitype.Neuron{}, noNeuron(name)
	}
	return list[0], nil
}

// write runs a change; what came of it counts as one whatever the error says.
func (b *Brain) write(ctx context.Context, f func(*sql.Tx) error) error {
	defer b.changes.Add(1)
	return b.DB.Write(ctx, f)
}

func invalid(format string, args ...any) error {
	return apitype.Refuse(http.StatusUnprocessableEntity, "", format, args...)
}

func checkDescription(s string) error {
	if n := len([]rune(s)); n > maxDescription {
		return invalid("description: expected at most %d characters, got %d", maxDescription, n)
	}
	return nil
}

// packNeeds checks components and returns them as they are kept: each once, in their
// order.
func packNeeds(list []model.Component) (string, error) {
	var words []string
	for _, c := range list {
		if !c.Valid() {
			return "", invalid("needs: expected components (sensor, thought, memory, send), got %.40q", c)
		}
	}
	for _, c := range model.Components() {
		if slices.Contains(list, c) {
			words = append(words, string(c))
		}
	}
	return strings.Join(words, " "), nil
}

// Create makes a neuron that nothing is assigned to yet. One that is there just as it
// is asked for stays as it is, so that a client may try again.
func (b *Brain) Create(ctx context.Context, by string, c apitype.CreateNeuron) (n apitype.Neuron, err error) {
	if err := model.CheckNeuronName(c.Name); err != nil {
		return n, invalid("name: %v", err)
	}
	if err := checkDescription(c.Description); err != nil {
		return n, err
	}
	needs, err := packNeeds(c.Needs)
	if err != nil {
		return n, err
	}
	err = b.write(ctx, func(tx *sql.Tx) error {
		var description, has string
		err := tx.QueryRowContext(ctx, `SELECT description, needs FROM neurons WHERE name = ?`, c.Name).Scan(&description, &has)
		switch {
		case err == nil && description == c.Description && has == needs:
			n, err = one(ctx, tx, c.Name)
			return err
		case err == nil:
			return taken(c.Name)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		var count int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM neurons`).Scan(&count); err != nil {
			return err
		}
		if count >= model.MaxNeurons {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d neurons already; remove some", count)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO neurons (name, description, needs, created, created_by) VALUES (?, ?, ?, ?, ?)`,
			c.Name, c.Description, needs, store.Millis(b.Clock.Now()), by); err != nil {
			return err
		}
		n, err = one(ctx, tx, c.Name)
		return err
	})
	return n, err
}

func taken(name string) error {
	return apitype.Refuse(http.StatusConflict, apitype.ProblemNameTaken, "there is another neuron %s", name)
}

// change runs f on a neuron that meets the condition, and returns what came of it
// under the name that f returns.
func (b *Brain) change(ctx context.Context, name string, m etag.Match, f func(*sql.Tx, apitype.Neuron) (name string, err error)) (n apitype.Neuron, err error) {
	err = b.write(ctx, func(tx *sql.Tx) error {
		was, err := one(ctx, tx, name)
		if err != nil {
			return err
		}
		if err := m.Check(Tag(was)); err != nil {
			return err
		}
		name, err := f(tx, was)
		if err != nil || name == "" {
			return err
		}
		n, err = one(ctx, tx, name)
		return err
	})
	return n, err
}

// Update changes what is named.
func (b *Brain) Update(ctx context.Context, name string, m etag.Match, u apitype.UpdateNeuron) (apitype.Neuron, error) {
	if u.Name != nil {
		if err := model.CheckNeuronName(*u.Name); err != nil {
			return apitype.Neuron{}, invalid("name: %v", err)
		}
	}
	if u.Description != nil {
		if err := checkDescription(*u.Description); err != nil {
			return apitype.Neuron{}, err
		}
	}
	return b.change(ctx, name, m, func(tx *sql.Tx, n apitype.Neuron) (string, error) {
		if u.Name != nil && *u.Name != n.Name {
			var there bool
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM neurons WHERE name = ?)`, *u.Name).Scan(&there); err != nil {
				return "", err
			}
			if there {
				return "", taken(*u.Name)
			}
			n.Name = *u.Name
		}
		if u.Description != nil {
			n.Description = *u.Description
		}
		if u.Needs != nil {
			n.Needs = *u.Needs
		}
		needs, err := packNeeds(n.Needs)
		if err != nil {
			return "", err
		}
		_, err = tx.ExecContext(ctx, `UPDATE neurons SET name = ?, description = ?, needs = ? WHERE name = ?`, n.Name, n.Description, needs, name)
		return n.Name, err
	})
}

// Delete removes a neuron and all that is assigned to it.
func (b *Brain) Delete(ctx context.Context, name string, m etag.Match) error {
	_, err := b.change(ctx, name, m, func(tx *sql.Tx, _ apitype.Neuron) (string, error) {
		_, err := tx.ExecContext(ctx, `DELETE FROM neurons WHERE name = ?`, name)
		return "", err
	})
	return err
}
