package seal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"halo.internal/gateway/store"
)

// Secrets are those of config.db, by name. It may be used from any goroutine.
type Secrets struct {
	db  *store.DB
	box *Box
}

// New returns the secrets in a database.
func New(db *store.DB, box *Box) *Secrets { return &Secrets{db, box} }

// Box is what they are sealed with: for tables that hold secrets of their own.
func (s *Secrets) Box() *Box { return s.box }

func place(name string) string { return "secrets/" + name }

// ErrNone is returned for a name that has no secret.
var ErrNone = errors.New("there is no such secret")

// Get returns a secret. The error wraps ErrNone where there is none, ErrLost where it
// cannot be opened any more.
func (s *Secrets) Get(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT sealed FROM secrets WHERE name = ?`, name).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", name, ErrNone)
	}
	if err != nil {
		return nil, store.Classify(err)
	}
	return s.box.Open(place(name), sealed)
}

// Initial returns a secret; where there is none, or one that cannot be opened any more,
// what initial returns is kept first. lost tells of the second.
func (s *Secrets) Initial(ctx context.Context, name string, initial func() []byte) (secret []byte, lost bool, err error) {
	secret, err = s.Get(ctx, name)
	lost = errors.Is(err, ErrLost)
	if !lost && !errors.Is(err, ErrNone) {
		return secret, false, err
	}
	secret = initial()
	err = s.db.Write(ctx, func(tx *sql.Tx) error { return s.Put(ctx, tx, name, secret) })
	return secret, lost, err
}

// Put keeps a secret within a transaction.
func (s *Secrets) Put(ctx context.Context, tx *sql.Tx, name string, secret []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO secrets (name, sealed) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed`,
		name, s.box.Seal(place(name), secret))
	return err
}

// Delete forgets a secret within a transaction; none is no error.
func (s *Secrets) Delete(ctx context.Context, tx *sql.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM secrets WHERE name = ?`, name)
	return err
}

// Adopt takes those of these secrets that lie in the table settings in the clear, where
// a former release keeps them: before the first update to this one, and again when one
// was undone. They are newer than what is sealed. Of what was in the clear nothing is
// left in the database and its log.
func (s *Secrets) Adopt(ctx context.Context, names ...string) error {
	found := false
	for _, name := range names {
		var clear []byte
		err := s.db.Read().QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, name).Scan(&clear)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return store.Classify(err)
		}
		err = s.db.Write(ctx, func(tx *sql.Tx) error {
			if err := s.Put(ctx, tx, name, clear); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE name = ?`, name)
			return err
		})
		if err != nil {
			return fmt.Errorf("seal %s: %w", name, err)
		}
		found = true
	}
	if !found {
		return nil
	}
	return s.db.Flush(ctx)
}
