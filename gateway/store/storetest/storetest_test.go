package storetest

import (
	"path/filepath"
	"reflect"
	"testing"

	"halo.internal/gateway/store"
)

// What is put is what the first start makes.
func TestPutConfig(t *testing.T) {
	schema := func(path string) (tables []string) {
		t.Helper()
		db, repair, err := store.OpenConfig(t.Context(), path)
		if err != nil || repair != (store.Repair{}) {
			t.Fatalf("%+v, %v", repair, err)
		}
		defer db.Close()
		rows, err := db.Read().QueryContext(t.Context(), `SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			tables = append(tables, text)
		}
		return tables
	}
	dir := t.TempDir()
	for _, name := range []string{"a.db", "b.db"} {
		PutConfig(t, filepath.Join(dir, name))
	}
	want := schema(filepath.Join(dir, "new.db"))
	for _, name := range []string{"a.db", "b.db"} {
		if got := schema(filepath.Join(dir, name)); len(got) == 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
	}
}
