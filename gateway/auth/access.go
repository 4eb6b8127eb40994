package auth

import (
	"net/http"
	"slices"

	"halo.internal/model/apitype"
)

// Principal is who makes a request.
type Principal struct {
	Kind   string // "user" or "token"
	Name   string // user name, or ID of the API token
	Role   string // of a user
	Scopes []string

	Session string // of a user
}

// Actor is the principal's name in the audit log.
func (p Principal) Actor() string { return p.Kind + ":" + p.Name }

// Scopes returns all scopes there are.
func Scopes() []string {
	return []string{apitype.ScopeNodesRead, apitype.ScopeNodesWrite, apitype.ScopeTelemetryRead,
		apitype.ScopeEventsRead, apitype.ScopeSystemRead, apitype.ScopeAdmin}
}

// roleScopes returns what a role stands for.
func roleScopes(role string) []string {
	viewer := []string{apitype.ScopeNodesRead, apitype.ScopeTelemetryRead, apitype.ScopeEventsRead, apitype.ScopeSystemRead}
	switch role {
	case apitype.RoleAdmin:
		return []string{apitype.ScopeAdmin}
	case apitype.RoleOperator:
		return append(viewer, apitype.ScopeNodesWrite)
	case apitype.RoleViewer:
		return viewer
	}
	return nil
}

// within returns what is left of scopes under a role.
func within(scopes []string, role string) []string {
	may := roleScopes(role)
	switch {
	case slices.Contains(may, apitype.ScopeAdmin):
		return scopes
	case slices.Contains(scopes, apitype.ScopeAdmin):
		return may
	}
	return slices.DeleteFunc(scopes, func(s string) bool { return !slices.Contains(may, s) })
}

// Require returns nil when the principal has the scope, or the problem
// "scope-missing".
func (p Principal) Require(scope string) error {
	if p.Has(scope) {
		return nil
	}
	return apitype.Refuse(http.StatusForbidden, apitype.ProblemScope, "this needs the scope %s; %s has %v", scope, p.Actor(), p.Scopes)
}

// Has tells whether the principal has the scope.
func (p Principal) Has(scope string) bool {
	return slices.Contains(p.Scopes, scope) || slices.Contains(p.Scopes, apitype.ScopeAdmin)
}
