package registry

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

const trustedMAC = "02:00:00:00:00:01"

// trust puts the MAC on the list and returns a way to ask with it.
func trust(t *testing.T, f *fixture) (ask func(node identity.Key, token string, macs ...string) error) {
	t.Helper()
	m, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: "02-00-00-00-00-01", Note: "mast"})
	if err != nil || m.MAC != trustedMAC || m.By != "user:root" || m.Node != "" {
		t.Fatalf("got %+v, %v", m, err)
	}
	return func(node identity.Key, token string, macs ...string) error {
		r := f.request(node, token)
		r.MACs = macs
		_, err := f.join(t, node, r)
		return err
	}
}

func TestATrustedMACAdmitsOneDevice(t *testing.T) {
	f := newFixture(t)
	ask := trust(t, f)
	node, imitator := identity.New(), identity.New()
	wantType(t, ask(imitator, "", "02:00:00:00:00:02", "rubbish"), apitype.ProblemJoinPending)
	for range 2 { // it may ask again
		if err := ask(node, "", "02:00:00:00:00:09", "02:00:00:00:00:01"); err != nil {
			t.Fatal(err)
		}
	}
	wantType(t, ask(imitator, "", trustedMAC), apitype.ProblemJoinPending)

	n, err := f.Node(t.Context(), node.ID())
	if err != nil || n.AdmittedBy != "mac:"+trustedMAC {
		t.Errorf("admitted by %q, %v", n.AdmittedBy, err)
	}
	f.kinds(t) // writes the waiting events
	list, _, err := f.events.List(t.Context(), events.Query{Kind: "node.joined", Limit: 10})
	if err != nil || len(list) != 1 || list[0].Fields["by"] != "mac:"+trustedMAC {
		t.Errorf("events: %+v, %v; want one that names the MAC", list, err)
	}
	macs, err := f.TrustedMACs(t.Context(), "", 10)
	if err != nil || len(macs.Items) != 1 || macs.Items[0].Node != node.ID() || macs.Items[0].Used == nil || macs.Items[0].Note != "mast" {
		t.Errorf("the list: %+v, %v", macs, err)
	}
	again, err := f.TrustMAC(t.Context(), "user:other", apitype.TrustMAC{MAC: trustedMAC})
	if err != nil || again.Node != node.ID() || again.By != "user:root" {
		t.Errorf("put on the list again: %+v, %v; want it as it was", again, err)
	}
	for range 2 {
		err = f.DistrustMAC(t.Context(), trustedMAC, etag.Match{})
	}
	wantType(t, err, "about:blank")
	if err := ask(node, "", trustedMAC); err != nil {
		t.Errorf("a member whose MAC was taken off the list: %v", err)
	}
}

func TestWhatATrustedMACDoesNotDo(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(*testing.T, *fixture, identity.Key, func(identity.Key, string, ...string) error)
		token  func(*fixture) string
		typ    string // empty: admitted
	}{
		{"let a rejected node in", func(t *testing.T, f *fixture, node identity.Key, ask func(identity.Key, string, ...string) error) {
			wantType(t, ask(node, ""), apitype.ProblemJoinPending)
			if err := f.Reject(t.Context(), node.ID()); err != nil {
				t.Fatal(err)
			}
		}, nil, apitype.ProblemJoinRejected},
		{"let a revoked node in", func(t *testing.T, f *fixture, node identity.Key, ask func(identity.Key, string, ...string) error) {
			if err := ask(node, f.token(1)); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Revoke(t.Context(), node.ID(), etag.Match{}); err != nil {
				t.Fatal(err)
			}
		}, nil, apitype.ProblemJoinRevoked},
		{"admit who imitates a device that came by token", func(t *testing.T, f *fixture, _ identity.Key, ask func(identity.Key, string, ...string) error) {
			if err := ask(identity.New(), f.token(1), trustedMAC); err != nil {
				t.Fatal(err)
			}
		}, nil, apitype.ProblemJoinPending},
		{"make up for a forged token", nil, func(*fixture) string { return "halo-join-rubbish" }, apitype.ProblemTokenInvalid},
		{"leave out a node whose token has expired", nil, func(f *fixture) string {
			return identity.NewJoinToken(1, f.now.Add(-time.Minute)).Text(f.key)
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			ask, node, token := trust(t, f), identity.New(), ""
			if tc.before != nil {
				tc.before(t, f, node, ask)
			}
			if tc.token != nil {
				token = tc.token(f)
			}
			err := ask(node, token, trustedMAC)
			if tc.typ != "" {
				wantType(t, err, tc.typ)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheListOfMACsIsChecked(t *testing.T) {
	f := newFixture(t)
	for _, mac := range []string{"", "rubbish", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "02:00:00:00:00:00:00:01"} {
		_, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: mac})
		wantType(t, err, "about:blank")
	}
	var want, got []string
	for n := range 5 {
		want = append(want, fmt.Sprintf("02:00:00:00:00:%02x", n))
		if _, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: want[n]}); err != nil {
			t.Fatal(err)
		}
	}
	for cursor := ""; ; {
		l, err := f.TrustedMACs(t.Context(), cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range l.Items {
			got = append(got, m.MAC)
		}
		if cursor = l.Next; cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: %v, want %v", got, want)
	}
}

// The list may learn of a MAC after its device is a member.
func TestTheMACOfAMemberAdmitsNobodyElse(t *testing.T) {
	f := newFixture(t)
	member, other := identity.New(), identity.New()
	r := f.request(member, f.token(1))
	r.MACs = []string{trustedMAC}
	if _, err := f.join(t, member, r); err != nil {
		t.Fatal(err)
	}
	m, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: trustedMAC})
	if err != nil || m.Node != member.ID() {
		t.Errorf("got %+v, %v, want it bound to the member", m, err)
	}
	r = f.request(other, "")
	r.MACs = []string{trustedMAC}
	_, err = f.join(t, other, r)
	wantType(t, err, apitype.ProblemJoinPending)

	// A member with a new radio, whose MAC is on the list by then.
	const radio = "02:00:00:00:00:02"
	if _, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: radio}); err != nil {
		t.Fatal(err)
	}
	r = f.request(member, "")
	r.MACs = []string{radio}
	if _, err := f.join(t, member, r); err != nil {
		t.Fatal(err)
	}
	r = f.request(other, "")
	r.MACs = []string{radio}
	_, err = f.join(t, other, r)
	wantType(t, err, apitype.ProblemJoinPending)
}
