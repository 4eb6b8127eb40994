package mesh

import (
	"errors"
	"slices"
	"sync"

	"halo.internal/identity"
	"halo.internal/model"
)

// errRevoked is why a device that has the mesh's secret may not be a member.
var errRevoked = errors.New("it was revoked")

// revoked is who was a member and is none any more, by the gateway's word. They may
// still know the mesh's secret, until it is rotated.
type revoked struct {
	mu  sync.Mutex
	ids []string
}

// set replaces them and tells whether there is somebody new among them.
func (r *revoked) set(ids []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	more := slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(r.ids, id) })
	r.ids = slices.Clone(ids)
	return more
}

// admit says why a device is no member, or nothing: also one that has not joined
// yet has to get in, to join.
func (r *revoked) admit(key identity.PublicKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.ids, key.ID()) {
		return errRevoked
	}
	return nil
}

// found hands on where a lonely device has heard its mesh.
func (m *core) found(_ string, n model.RadioNetwork) {
	if m.elsewhere != nil {
		m.elsewhere(n)
	}
}

// shutOut keeps those from ports who were revoked, also those who are there.
func (m *core) shutOut(ids []string) {
	if m.shut.set(ids) {
		m.under.Recheck()
	}
}
