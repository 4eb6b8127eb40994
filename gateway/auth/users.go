package auth

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"regexp"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

const maxUsers = 1000

type user struct {
	name, role, password string
	disabled             bool
	generation           int64
}

// tag returns the entity tag of a user. Each change raises the generation, that of a
// password too, of which nothing else is to be seen.
func (u user) tag() string {
	return etag.Of(struct {
		Name, Role string
		Disabled   bool
		Generation int64
	}{u.name, u.role, u.disabled, u.generation})
}

var (
	errNoUser    = errors.New("no such user")
	usernameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

func (s *Service) user(ctx context.Context, name string) (user, error) {
	return readUser(ctx, s.db.Read(), name)
}

// querier is a transaction, or the connections for queries.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readUser returns a user, or errNoUser.
func readUser(ctx context.Context, q querier, name string) (user, error) {
	u := user{name: name}
	err := q.QueryRowContext(ctx, `SELECT role, password, disabled, generation FROM users WHERE username = ?`, name).Scan(&u.role, &u.password, &u.disabled, &u.generation)
	if errors.Is(err, sql.ErrNoRows) {
		return user{}, errNoUser
	}
	return u, store.Classify(err)
}

func noUser(name string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no user %.64q", name)
}

func checkUsername(name string) error {
	if !usernameForm.MatchString(name) {
		return apitype.Refuse(http.StatusUnprocessableEntity, "", "username: expected 1 to 64 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit")
	}
	return nil
}

// Users returns a page of users by name.
func (s *Service) Users(ctx context.Context, cursor string, limit int) (apitype.UserList, error) {
	rows, err := s.db.Read().QueryContext(ctx, `SELECT username, role, disabled, created, last_login FROM users WHERE username > ? ORDER BY username LIMIT ?`, cursor, limit+1)
	if err != nil {
		return apitype.UserList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.UserList{Items: []apitype.User{}}
	for rows.Next() {
		var u apitype.User
		var created int64
		var last sql.NullInt64
		if err := rows.Scan(&u.Username, &u.Role, &u.Disabled, &created, &last); err != nil {
			return apitype.UserList{}, store.Classify(err)
		}
		u.Created, u.LastLogin = store.Time(created), store.TimePtr(last)
		list.Items = append(list.Items, u)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].Username
	}
	return list, store.Classify(rows.Err())
}

// User returns a user and his entity tag. Who is no admin sees himself alone.
func (s *Service) User(ctx context.Context, by Principal, name string) (apitype.User, string, error) {
	if self := by.Kind == "user" && by.Name == name; !self && !by.Has(apitype.ScopeAdmin) {
		return apitype.User{}, "", apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "only an admin may see others than himself")
	}
	u := user{name: name}
	var created int64
	var last sql.NullInt64
	err := s.db.Read().QueryRowContext(ctx, `SELECT role, disabled, generation, created, last_login FROM users WHERE username = ?`, name).Scan(&u.role, &u.disabled, &u.generation, &created, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return apitype.User{}, "", noUser(name)
	}
	if err != nil {
		return apitype.User{}, "", store.Classify(err)
	}
	return apitype.User{Username: name, Role: u.role, Disabled: u.disabled, Created: store.Time(created), LastLogin: store.TimePtr(last)}, u.tag(), nil
}

// CreateUser adds a user.
func (s *Service) CreateUser(ctx context.Context, c apitype.CreateUser) (apitype.User, error) {
	if err := errors.Join(checkUsername(c.Username), checkPassword(c.Username, c.Password)); err != nil {
		return apitype.User{}, first(err)
	}
	phc, err := s.hasher.hash(ctx, "", c.Password)
	if err != nil {
		return apitype.User{}, err
	}
	now := s.clock.Now()
	err = s.db.Write(ctx, func(tx *sql.Tx) error { return insertUser(ctx, tx, c.Username, c.Role, phc, store.Millis(now)) })
	if err != nil {
		return apitype.User{}, err
	}
	return apitype.User{Username: c.Username, Role: c.Role, Created: store.Time(store.Millis(now))}, nil
}

func insertUser(ctx context.Context, tx *sql.Tx, name, role, phc string, created int64) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users`).Scan(&n); err != nil {
		return err
	}
	if n >= maxUsers {
		return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d users already", n)
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO users (username, role, password, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, name, role, phc, created)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, apitype.Refuse(http.StatusConflict, apitype.ProblemNameTaken, "there is a user %s already", name))
	}
	return endAPITokens(ctx, tx, name) // of another who had that name, which a former release left
}

// UpdateUser changes a user that meets the condition, and returns the entity tag that
// comes of it. by is who asks: somebody who is no admin may change his own password
// alone. Whatever is changed ends the user's logins and certificates, so that a stolen
// one does not outlive it; his API tokens, by which machines work, may what he may from
// then on.
func (s *Service) UpdateUser(ctx context.Context, by Principal, name string, m etag.Match, c apitype.UpdateUser) (tag string, err error) {
	self := by.Kind == "user" && by.Name == name
	if !by.Has(apitype.ScopeAdmin) && (!self || c.Role != nil || c.Disabled != nil) {
		return "", apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "only an admin may change this; everybody may change the own password")
	}
	was, err := s.user(ctx, name)
	if errors.Is(err, errNoUser) {
		return "", noUser(name)
	}
	if err != nil {
		return "", err
	}
	if err := m.Check(was.tag()); err != nil {
		return "", err // before a hash is made for nothing
	}
	password, err := s.nextPassword(ctx, was, self, c)
	if err != nil {
		return "", err
	}
	defer s.withdrawn.changed()
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		u, err := readUser(ctx, tx, name) // others may have changed him while the hash was made
		switch {
		case errors.Is(err, errNoUser):
			return noUser(name)
		case err != nil:
			return err
		case self && c.Password != nil && u.password != was.password:
			return errPresent
		}
		if err := m.Check(u.tag()); err != nil {
			return err
		}
		if password != "" {
			u.password = password
		}
		if c.Role != nil {
			u.role = *c.Role
		}
		if c.Disabled != nil {
			u.disabled = *c.Disabled
		}
		u.generation++
		tag = u.tag()
		if _, err := tx.ExecContext(ctx, `UPDATE users SET role = ?, password = ?, disabled = ?, generation = ? WHERE username = ?`, u.role, u.password, u.disabled, u.generation, name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM refresh_tokens WHERE username = ?`, name); err != nil {
			return err
		}
		if err := s.revokeOperators(ctx, tx, name); err != nil {
			return err
		}
		return needAdmin(ctx, tx)
	})
	return tag, err
}

var errPresent = apitype.Refuse(http.StatusForbidden, "", "current_password: expected the present password")

// nextPassword returns the hash of the password that a change asks for; empty: it does
// not. Who changes the own has to know the present one.
func (s *Service) nextPassword(ctx context.Context, u user, self bool, c apitype.UpdateUser) (string, error) {
	if c.Password == nil {
		return "", nil
	}
	who := "" // an admin
	if self {
		who = "password " + u.name // whoever has got hold of a token must not find the password with it
		err := s.attempt(ctx, who, []counter{{key: who}}, func() error {
			ok, err := verify(u.password, c.CurrentPassword)
			if err == nil && !ok {
				s.logins.fail(counter{key: who})
				err = errPresent
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	if err := checkPassword(u.name, *c.Password); err != nil {
		return "", err
	}
	return s.hasher.hash(ctx, who, *c.Password)
}

// DeleteUser removes a user that meets the condition, and with him his logins, API tokens
// and certificates.
func (s *Service) DeleteUser(ctx context.Context, name string, m etag.Match) error {
	defer s.withdrawn.changed()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		u, err := readUser(ctx, tx, name)
		if errors.Is(err, errNoUser) {
			return noUser(name)
		}
		if err != nil {
			return err
		}
		if err := m.Check(u.tag()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM users WHERE username = ?`, name); err != nil {
			return err
		}
		if err := endAPITokens(ctx, tx, name); err != nil {
			return err
		}
		if err := s.revokeOperators(ctx, tx, name); err != nil {
			return err
		}
		return needAdmin(ctx, tx)
	})
}

// needAdmin refuses a change that would leave nobody who can undo it.
func needAdmin(ctx context.Context, tx *sql.Tx) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users WHERE role = 'admin' AND NOT disabled`).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return apitype.Refuse(http.StatusConflict, apitype.ProblemLastAdmin, "this is the last admin; make another one first")
	}
	return nil
}

// first unwraps the first of joined problems, which is what a client can act on.
func first(err error) error {
	if p, ok := errors.AsType[*apitype.Problem](err); ok {
		return p
	}
	return err
}
