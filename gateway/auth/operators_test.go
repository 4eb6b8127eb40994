package auth

import (
	"database/sql"
	"errors"
	"net/http"
	"reflect"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func person(name string) Principal {
	return Principal{Kind: "user", Name: name, Role: apitype.RoleOperator, Scopes: roleScopes(apitype.RoleOperator)}
}

// present is person with a login.
func (f *fixture) present(t *testing.T, name string) Principal {
	t.Helper()
	p, family := person(name), newFamily()
	p.Session = sessionID(family)
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO refresh_tokens (hash, family, username, expires) VALUES (?, ?, ?, ?)`, family, family, name, f.now.Add(refreshLife).UnixMilli())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) certify(t *testing.T, name string) (apitype.OperatorCertificate, operator.Certificate) {
	t.Helper()
	a, err := f.IssueOperator(t.Context(), f.present(t, name), apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64(), Label: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := operator.Decode(a.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	c, err := operator.Parse(f.network.Public(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func (f *fixture) over(t *testing.T) model.Operators {
	t.Helper()
	o, err := f.Operators(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != status {
		t.Errorf("got %v, want status %d", err, status)
	}
}

// TestOperatorCertificate says what the user is at that moment.
func TestOperatorCertificate(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "anna", apitype.RoleViewer)
	a, c := f.certify(t, "anna")
	if c.Serial != a.Serial || c.Epoch != 2 || c.User != "anna" || c.Role != apitype.RoleViewer || !c.Issued.Equal(f.now) || c.Expires.Sub(c.Issued) != operator.Validity || c.Key.Base64() != a.Key {
		t.Errorf("got %+v of %+v", c, a)
	}
	_, err := f.IssueOperator(t.Context(), Principal{Kind: "token", Name: "anna", Scopes: []string{apitype.ScopeAdmin}}, apitype.CreateOperatorCertificate{Key: c.Key.Base64()})
	wantProblem(t, err, apitype.ProblemScope)
	anna := f.present(t, "anna")
	_, err = f.IssueOperator(t.Context(), anna, apitype.CreateOperatorCertificate{Key: "AAAA"})
	wantStatus(t, err, http.StatusUnprocessableEntity)
	_, err = f.IssueOperator(t.Context(), person("nobody"), apitype.CreateOperatorCertificate{Key: c.Key.Base64()})
	wantStatus(t, err, http.StatusUnauthorized)
	long, err := f.IssueOperator(t.Context(), anna, apitype.CreateOperatorCertificate{Key: c.Key.Base64(), Days: 4000})
	if err != nil || long.Expires.Sub(long.Issued) != operator.MaxValidity {
		t.Errorf("got %+v, %v", long, err)
	}
}

// TestWhatEndsACertificate is in what the list of members is to say.
func TestWhatEndsACertificate(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	for _, name := range []string{"anna", "bert", "carl"} {
		f.addUser(t, name, apitype.RoleOperator)
	}
	if o := f.over(t); o.Floor != 0 || o.Revoked != nil {
		t.Errorf("at first: %+v", o)
	}
	_, first := f.certify(t, "anna") // 1
	f.certify(t, "bert")             // 2
	f.certify(t, "anna")             // 3
	f.certify(t, "carl")             // 4
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 1}) || first.Serial != 1 {
		t.Errorf("all hold: %+v", o)
	}
	wantStatus(t, f.RevokeOperator(t.Context(), person("bert"), 3), http.StatusNotFound)
	if err := f.RevokeOperator(t.Context(), person("anna"), 3); err != nil {
		t.Fatal(err)
	}
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 1, Revoked: []uint64{3}}) {
		t.Errorf("a lost laptop: %+v", o)
	}
	role := apitype.RoleViewer
	admin := Principal{Kind: "user", Name: "root", Scopes: []string{apitype.ScopeAdmin}}
	if _, err := f.UpdateUser(t.Context(), admin, "bert", etag.Match{}, apitype.UpdateUser{Role: &role}); err != nil {
		t.Fatal(err)
	}
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 1, Revoked: []uint64{2, 3}}) {
		t.Errorf("somebody may do less: %+v", o)
	}
	if err := f.DeleteUser(t.Context(), "anna", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 4}) {
		t.Errorf("somebody is gone: %+v", o)
	}
	if err := f.RevokeOperator(t.Context(), admin, 4); err != nil {
		t.Fatal(err)
	}
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 5}) {
		t.Errorf("all are over: %+v", o)
	}
	list, err := f.OperatorCertificates(t.Context(), admin, "", 2)
	if err != nil || len(list.Items) != 2 || list.Next != "2" || list.Items[0].Revoked == nil || list.Items[0].Certificate != "" || list.Items[0].Label != "laptop" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if list, err = f.OperatorCertificates(t.Context(), person("carl"), "", 9); err != nil || len(list.Items) != 1 || list.Items[0].Username != "carl" {
		t.Errorf("own: %+v, %v", list, err)
	}
	if list, err = f.OperatorCertificates(t.Context(), Principal{Kind: "token", Name: "carl"}, "", 9); err != nil || len(list.Items) != 0 {
		t.Errorf("a machine's: %+v, %v", list, err)
	}
	f.epoch = 3
	_, next := f.certify(t, "carl")
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 5}) || next.Epoch != 3 || next.Serial != 5 {
		t.Errorf("of another epoch: %+v, %+v", o, next)
	}
	f.now = f.now.Add(operator.Validity + time.Second)
	f.withdrawn.changed() // some minutes have passed
	if o := f.over(t); !reflect.DeepEqual(o, model.Operators{Floor: 6}) {
		t.Errorf("all have expired: %+v", o)
	}
}

func TestCertificatesAreBounded(t *testing.T) {
	f := newFixture(t)
	f.addUser(t, "root", apitype.RoleAdmin)
	f.addUser(t, "anna", apitype.RoleOperator)
	anna := f.present(t, "anna")
	ask := func() error {
		_, err := f.IssueOperator(t.Context(), anna, apitype.CreateOperatorCertificate{Key: identity.New().Public().Base64()})
		return err
	}
	for range maxPerHour {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	wantProblem(t, ask(), apitype.ProblemRateLimited)
	var err error
	for n := maxPerHour; err == nil && n <= maxOfOperator; n++ {
		f.now = f.now.Add(time.Hour)
		err = ask()
	}
	wantStatus(t, err, http.StatusConflict)
	f.now = f.now.Add(operator.Validity + 2*operatorsKept)
	if err := ask(); err != nil {
		t.Errorf("when the others have ended: %v", err)
	}
	if n := f.count(t, `SELECT count(*) FROM operator_certificates`); n != 1 {
		t.Errorf("%d are remembered", n)
	}
}

// TestManyRevoked: the floor rises over those that have no room.
func TestManyRevoked(t *testing.T) {
	f := newFixture(t)
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		for i := range 2 * model.MaxRevoked { // the first holds
			_, err := tx.ExecContext(t.Context(), `INSERT INTO operator_certificates (epoch, username, role, key, label, issued, expires, revoked) VALUES (2, 'x', 'viewer', x'', '', 0, ?, nullif(?, 0))`,
				f.now.Add(time.Hour).UnixMilli(), i)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o := f.over(t)
	if len(o.Revoked) != model.MaxRevoked || o.Floor != o.Revoked[0] || o.Revoked[model.MaxRevoked-1] != 2*model.MaxRevoked {
		t.Errorf("got floor %d and %d revoked", o.Floor, len(o.Revoked))
	}
}
