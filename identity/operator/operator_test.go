package operator

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func key(t testing.TB, b byte) identity.Key {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var issued = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

func certificate(t testing.TB) Certificate {
	return Certificate{Serial: 7, Epoch: 2, User: "anna", Role: apitype.RoleOperator, Key: key(t, 2).Public(), Issued: issued, Expires: issued.Add(Validity)}
}

func TestSigned(t *testing.T) {
	network, c := key(t, 1), certificate(t)
	signed, err := Sign(network, c)
	if err != nil {
		t.Fatal(err)
	}
	if len(signed) > MaxSize {
		t.Errorf("%d octets", len(signed))
	}
	raw, err := Decode(Encode(signed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(network.Public(), raw); err != nil || got != c {
		t.Errorf("got %+v, %v, want %+v", got, err, c)
	}
	if _, err := Parse(key(t, 3).Public(), signed); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("of another network: got %v", err)
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 1
		if got, err := Parse(network.Public(), bad); err == nil && got == c {
			t.Errorf("octet %d may be anything", i) // the envelope has but one form
		} else if err == nil {
			t.Fatalf("octet %d was changed, and it is %+v", i, got)
		}
	}
}

// TestWhatIsSigned is bounded when it is signed, and when it is read.
func TestWhatIsSigned(t *testing.T) {
	for name, change := range map[string]func(*Certificate){
		"no serial":        func(c *Certificate) { c.Serial = 0 },
		"no user":          func(c *Certificate) { c.User = "" },
		"long user":        func(c *Certificate) { c.User = strings.Repeat("x", 65) },
		"no role":          func(c *Certificate) { c.Role = "" },
		"unknown role":     func(c *Certificate) { c.Role = "root" },
		"no end":           func(c *Certificate) { c.Expires = c.Issued },
		"ends at the dawn": func(c *Certificate) { c.Expires = time.Time{} },
		"too long":         func(c *Certificate) { c.Expires = c.Issued.Add(MaxValidity + time.Second) },
	} {
		c := certificate(t)
		change(&c)
		if _, err := Sign(key(t, 1), c); !errors.Is(err, ErrForm) {
			t.Errorf("%s: signed, %v", name, err)
		}
		raw, err := encMode.Marshal(body{Serial: c.Serial, Epoch: c.Epoch, User: c.User, Role: c.Role, Key: c.Key[:], IssuedMS: c.Issued.UnixMilli(), ExpiresMS: c.Expires.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		signed, err := encMode.Marshal(envelope{Body: raw, Signature: key(t, 1).Sign(context, raw)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(key(t, 1).Public(), signed); !errors.Is(err, ErrForm) {
			t.Errorf("%s: read, %v", name, err)
		}
	}
	if _, err := Decode(strings.Repeat("A", 2*MaxSize)); !errors.Is(err, ErrForm) {
		t.Errorf("long text: %v", err)
	}
	if _, err := Parse(key(t, 1).Public(), make([]byte, MaxSize+1)); !errors.Is(err, ErrForm) {
		t.Errorf("long: %v", err)
	}
}

func TestValid(t *testing.T) {
	day := 24 * time.Hour
	for _, tc := range []struct {
		name string
		at   Standing
		want error
	}{
		{"new", Standing{Epoch: 2, Now: issued, Sure: true}, nil},
		{"at its last moment", Standing{Epoch: 2, Now: issued.Add(Validity - 1), Sure: true}, nil},
		{"over", Standing{Epoch: 2, Now: issued.Add(Validity), Sure: true}, ErrExpired},
		{"over by a guess, which is late rather than early", Standing{Epoch: 2, Now: issued.Add(Validity)}, ErrExpired},
		{"a guess of long ago", Standing{Epoch: 2, Now: issued.Add(-1000 * day)}, nil},
		{"a guess of long ago, and a list from after its end", Standing{Epoch: 2, Now: issued.Add(-1000 * day), ListEpoch: 2, ListIssued: issued.Add(Validity)}, ErrExpired},
		{"a clock that is none, and a list that a gateway signed in years to come", Standing{Epoch: 2, Now: issued, Sure: true, ListEpoch: 2, ListIssued: issued.Add(1000 * day)}, nil},
		{"a clock that differs a little", Standing{Epoch: 2, Now: issued.Add(-day), Sure: true}, nil},
		{"from the future", Standing{Epoch: 2, Now: issued.Add(-day - time.Second), Sure: true}, ErrFuture},
		{"no list, no epoch heard", Standing{Now: issued, Sure: true}, nil},
		{"of an epoch that is over", Standing{Epoch: 3, Now: issued, Sure: true}, ErrEpoch},
		{"of a list's epoch that is over", Standing{Epoch: 3, ListEpoch: 3, Now: issued, Sure: true}, ErrEpoch},
		{"of an epoch to come: lists before know nothing of it", Standing{Epoch: 1, ListEpoch: 1, Withdrawn: model.Operators{Floor: 9, Revoked: []uint64{7}}, Now: issued, Sure: true}, nil},
		{"revoked", Standing{Epoch: 2, ListEpoch: 2, Withdrawn: model.Operators{Floor: 3, Revoked: []uint64{5, 7}}, Now: issued, Sure: true}, ErrRevoked},
		{"revoked, by a guess", Standing{Epoch: 2, ListEpoch: 2, Withdrawn: model.Operators{Revoked: []uint64{7}}, Now: issued}, ErrRevoked},
		{"others are revoked", Standing{Epoch: 2, ListEpoch: 2, Withdrawn: model.Operators{Floor: 7, Revoked: []uint64{8}}, Now: issued, Sure: true}, nil},
		{"below the floor", Standing{Epoch: 2, ListEpoch: 2, Withdrawn: model.Operators{Floor: 8}, Now: issued.Add(-1000 * day)}, ErrExpired},
	} {
		if err := certificate(t).Valid(tc.at); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestMay(t *testing.T) {
	roles := []string{apitype.RoleViewer, apitype.RoleOperator, apitype.RoleAdmin}
	for i, has := range roles {
		for k, needs := range roles {
			if got := (Certificate{Role: has}).May(needs); got != (i >= k) {
				t.Errorf("%s, needs %s: got %v", has, needs, got)
			}
		}
		if (Certificate{Role: has}).May("") || (Certificate{Role: has}).May("root") {
			t.Errorf("%s may what has no role", has)
		}
	}
	if (Certificate{}).May(apitype.RoleViewer) {
		t.Error("nobody may look")
	}
}

func FuzzParse(f *testing.F) {
	network := key(f, 1)
	signed, err := Sign(network, certificate(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed, true)
	f.Add([]byte{0x87}, true)
	f.Add([]byte{0x82, 0x40, 0x40}, false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign { // so that what is inside is reached
			b, err = encMode.Marshal(envelope{Body: b, Signature: network.Sign(context, b)})
			if err != nil {
				t.Fatal(err)
			}
		}
		c, err := Parse(network.Public(), b)
		if err != nil {
			return
		}
		again, err := Sign(network, c)
		if err != nil {
			t.Fatalf("%+v was read and can't be signed: %v", c, err)
		}
		if got, err := Parse(network.Public(), again); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("does not survive: %+v, %v, want %+v", got, err, c)
		}
		_ = c.Valid(Standing{Now: issued, Sure: true})
	})
}
