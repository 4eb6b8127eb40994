// Package storetest gives tests a config.db as the gateway's first start leaves it. To make
// one takes a commit for each migration, and most of the time of a small test.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"halo.internal/gateway/store"
)

// made is what a config.db that was made and closed consists of, by what the names of its
// files have behind the database's.
var made = sync.OnceValues(func() (files map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "storetest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	const name = "config.db"
	db, _, err := store.OpenConfig(context.Background(), filepath.Join(dir, name))
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	files = map[string][]byte{}
	for _, e := range list {
		b, errRead := os.ReadFile(filepath.Join(dir, e.Name()))
		files[e.Name()[len(name):]], err = b, errors.Join(err, errRead)
	}
	return files, err
})

// PutConfig puts an empty config.db at path, where there is none. All of a process begin with
// the same copy_marks: a test that is about two gateways has one of them made by OpenConfig.
func PutConfig(t testing.TB, path string) {
	t.Helper()
	files, err := made()
	for suffix, b := range files {
		err = errors.Join(err, os.WriteFile(path+suffix, b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Refuse has a database take nothing until takes is called: another connection holds the lock
// for writing, for which nobody waits.
func Refuse(t testing.TB, db *store.DB) (takes func()) {
	t.Helper()
	ctx := context.Background()
	impatient := db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`PRAGMA busy_timeout = 0`)
		return err
	})
	other, err := db.Read().Conn(ctx)
	if err == nil {
		_, err = other.ExecContext(ctx, `PRAGMA query_only = 0; BEGIN IMMEDIATE`)
	}
	if err := errors.Join(impatient, err); err != nil {
		t.Fatal(err)
	}
	takes = sync.OnceFunc(func() {
		t.Helper()
		_, err := other.ExecContext(ctx, `ROLLBACK; PRAGMA query_only = 1`)
		if err := errors.Join(err, other.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(takes)
	return takes
}
