package registry

import "halo.internal/gateway/changes"

// NodeNews tells which nodes have changed, by canonical ID: those that came or went, that
// say something else of themselves than what is counted, and those that people changed.
// One that is not found any more was forgotten.
func (r *Registry) NodeNews() *changes.Log[string] { return r.nodeNews }

// RegistrationNews tells whose registrations have changed, or are there no more. One that
// ends by its age tells when the next one comes.
func (r *Registry) RegistrationNews() *changes.Log[string] { return r.waitingNews }
