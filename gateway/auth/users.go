package auth

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"regexp"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

const maxUsers = 1000

type user struct {
	name, role, password string
	disabled             bool
	generation           int64
}

var (
	errNoUser    = errors.New("no such user")
	usernameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

func (s *Service) user(ctx context.Context, name string) (user, error) {
	u := user{name: name}
	err := s.db.Read().QueryRowContext(ctx, `SELECT role, password, disabled, generation FROM users WHERE username = ?`, name).Scan(&u.role, &u.password, &u.disabled, &u.generation)
	if errors.Is(err, sql.ErrNoRows) {
		return user{}, errNoUser
	}
	return u, store.Classify(err)
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

// CreateUser adds a user.
func (s *Service) CreateUser(ctx context.Context, c apitype.CreateUser) (apitype.User, error) {
	if err := errors.Join(checkUsername(c.Username), checkPassword(c.Username, c.Password)); err != nil {
		return apitype.User{}, first(err)
	}
	phc, err := s.hasher.hash(ctx, c.Password)
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
		return apitype.Refuse(http.StatusConflict, "", "there are %d users already", n)
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO users (username, role, password, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, name, role, phc, created)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, apitype.Refuse(http.StatusConflict, apitype.ProblemNameTaken, "there is a user %s already", name))
	}
	return nil
}

// UpdateUser changes a user. by is who asks: somebody who is no admin may
// change his own password alone. Whatever is changed ends the user's logins and
// certificates, so that a stolen one does not outlive it.
func (s *Service) UpdateUser(ctx context.Context, by Principal, name string, c apitype.UpdateUser) error {
	self := by.Kind == "user" && by.Name == name
	if !by.Has(apitype.ScopeAdmin) && (!self || c.Role != nil || c.Disabled != nil) {
		return apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "only an admin may change this; everybody may change the own password")
	}
	u, err := s.user(ctx, name)
	if errors.Is(err, errNoUser) {
		return apitype.Refuse(http.StatusNotFound, "", "there is no user %q", name)
	}
	if err != nil {
		return err
	}
	if c.Password != nil {
		if self {
			limit := "password " + name // whoever has got hold of a token must not find the password with it
			if err := s.logins.allow(limit); err != nil {
				return err
			}
			ok, err := s.hasher.verify(ctx, u.password, c.CurrentPassword)
			if err != nil {
				return err
			}
			if !ok {
				s.logins.fail(limit)
				return apitype.Refuse(http.StatusForbidden, "", "current_password: expected the present password")
			}
		}
		if err := checkPassword(name, *c.Password); err != nil {
			return err
		}
		if u.password, err = s.hasher.hash(ctx, *c.Password); err != nil {
			return err
		}
	}
	if c.Role != nil {
		u.role = *c.Role
	}
	if c.Disabled != nil {
		u.disabled = *c.Disabled
	}
	defer s.withdrawn.changed()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE users SET role = ?, password = ?, disabled = ?, generation = generation + 1 WHERE username = ?`, u.role, u.password, u.disabled, name); err != nil {
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
}

// DeleteUser removes a user, and with him his logins and certificates.
func (s *Service) DeleteUser(ctx context.Context, name string) error {
	defer s.withdrawn.changed()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM users WHERE username = ?`, name)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, apitype.Refuse(http.StatusNotFound, "", "there is no user %q", name))
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
		return apitype.Refuse(http.StatusConflict, "", "this is the last admin; make another one first")
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
