package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// In is the input of a route with a JSON body. This type and others that are
// embedded are exported because huma looks into no others.
type In[T any] struct{ Body T }

func (a *API) authRoutes() {
	register(a, entry, huma.Operation{
		OperationID: "claim", Method: http.MethodPost, Path: "/api/auth/claim", Tags: []string{"auth"},
		Summary:     "Claim a gateway with its code: become its first admin",
		Description: "First client_nonce alone: the gateway proves that it knows the code. Then everything, with the client's proof. The code itself is never sent. `time` is as in a login.",
	}, func(ctx context.Context, i *In[apitype.ClaimRequest]) (*body[apitype.ClaimAnswer], error) {
		c := callerOf(ctx)
		var binding []byte
		if c.protected {
			binding = a.Binding
		}
		if i.Body.ServerNonce == "" {
			return answer(a.Auth.ClaimStart(ctx, c.remote, i.Body.ClientNonce, binding))
		}
		if i.Body.Restore {
			r, err := a.Auth.ClaimRestore(ctx, c.remote, i.Body, binding)
			if err == nil {
				c.actor, r.CA = "claim:restore", string(a.CA)
			}
			return answer(r, err)
		}
		t, err := a.Auth.ClaimFinish(ctx, c.remote, i.Body, binding)
		if err != nil {
			return nil, err
		}
		c.actor = "user:" + t.Username
		a.Claimed()
		a.withdrawn() // the code: a copy that still has it would let somebody else claim
		return answer(apitype.ClaimAnswer{CA: string(a.CA), Tokens: &t}, nil)
	})
	register(a, entry, huma.Operation{
		OperationID: "login", Method: http.MethodPost, Path: "/api/auth/login", Tags: []string{"auth"},
		Summary:     "Log in with name and password",
		Description: "With `time`, a gateway whose clock is a guess takes its time from an admin or operator who has logged in.",
	}, func(ctx context.Context, i *In[apitype.LoginRequest]) (*body[apitype.Tokens], error) {
		c := callerOf(ctx)
		t, err := a.Auth.Login(ctx, c.remote, i.Body.Username, i.Body.Password, i.Body.Time)
		if err == nil {
			c.actor = "user:" + t.Username
		}
		return answer(t, err)
	})
	register(a, entry, huma.Operation{
		OperationID: "refresh", Method: http.MethodPost, Path: "/api/auth/refresh", Tags: []string{"auth"},
		Summary:     "Exchange a refresh token for new tokens",
		Description: "A refresh token is good once. Sent again within 30 seconds, because the answer was lost, it gives the same successor; later, or once the successor was used, that ends its login.",
	}, func(ctx context.Context, i *In[apitype.RefreshRequest]) (*body[apitype.Tokens], error) {
		return answer(a.Auth.Refresh(ctx, callerOf(ctx).remote, i.Body.RefreshToken))
	})
	register(a, anybody, huma.Operation{
		OperationID: "logout", Method: http.MethodPost, Path: "/api/auth/logout", Tags: []string{"auth"},
		Summary: "End a login", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *In[apitype.RefreshRequest]) (*nothing, error) {
		return nil, a.Auth.Logout(ctx, i.Body.RefreshToken)
	})
	register(a, anybody, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/api/auth/sessions", Tags: []string{"auth"},
		Summary: "Logins that have not ended: all for an admin, else the own",
	}, func(ctx context.Context, p *Page) (*body[apitype.SessionList], error) {
		return answer(a.Auth.Sessions(ctx, callerOf(ctx).Principal, p.Cursor, p.Limit))
	})
	register(a, anybody, huma.Operation{
		OperationID: "end-session", Method: http.MethodDelete, Path: "/api/auth/sessions/{id}", Tags: []string{"auth"},
		Summary: "End a login, such as that of a lost laptop", DefaultStatus: http.StatusNoContent,
		Description: "Its tokens are good for nothing from then on. Everybody may end the own; the rest needs an admin.",
	}, func(ctx context.Context, i *struct {
		ID string `path:"id" maxLength:"64"`
	}) (*nothing, error) {
		return nil, a.Auth.EndSession(ctx, callerOf(ctx).Principal, i.ID)
	})
	register(a, anybody, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/api/auth/me", Tags: []string{"auth"},
		Summary: "Who am I, and what may I do",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.Me], error) {
		c := callerOf(ctx)
		return answer(apitype.Me{Kind: c.Kind, Name: c.Name, Role: c.Role, Scopes: c.Scopes}, nil)
	})
}

// UserPath names a user in a path.
type UserPath struct {
	Username string `path:"username" maxLength:"64"`
}

func (a *API) userRoutes() {
	register(a, admin, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/api/auth/users", Tags: []string{"auth"},
		Summary: "People who may log in",
	}, func(ctx context.Context, p *Page) (*body[apitype.UserList], error) {
		return answer(a.Auth.Users(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "create-user", Method: http.MethodPost, Path: "/api/auth/users", Tags: []string{"auth"},
		Summary: "Add a user", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[apitype.CreateUser]) (*body[apitype.User], error) {
		callerOf(ctx).target = i.Body.Username
		u, err := a.Auth.CreateUser(ctx, i.Body)
		if err == nil {
			a.changed()
		}
		return answer(u, err)
	})
	register(a, anybody, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/api/auth/users/{username}", Tags: []string{"auth"},
		Summary: "A user", Description: "Everybody may see himself; the rest needs an admin. Its ETag is of role, password and right to log in.",
	}, func(ctx context.Context, i *UserPath) (*tagged[apitype.User], error) {
		return tag(a.Auth.User(ctx, callerOf(ctx).Principal, i.Username))
	})
	register(a, anybody, huma.Operation{
		OperationID: "update-user", Method: http.MethodPatch, Path: "/api/auth/users/{username}", Tags: []string{"auth"},
		Summary: "Change a user's password, role or right to log in", DefaultStatus: http.StatusNoContent,
		Description: "Ends all logins and certificates of that user. His API tokens go on, with no more than he may from then on; while he may not log in they are refused. Everybody may change the own password; the rest needs an admin.",
	}, func(ctx context.Context, i *struct {
		UserPath
		IfMatch
		In[apitype.UpdateUser]
	}) (*changedTag, error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		tag, err := a.Auth.UpdateUser(ctx, callerOf(ctx).Principal, i.Username, m, i.Body)
		if err != nil {
			return nil, err
		}
		a.withdrawn()
		a.Mesh.Look() // nodes are to learn of certificates that ended
		return &changedTag{tag}, nil
	})
	register(a, admin, huma.Operation{
		OperationID: "delete-user", Method: http.MethodDelete, Path: "/api/auth/users/{username}", Tags: []string{"auth"},
		Summary: "Remove a user", DefaultStatus: http.StatusNoContent,
		Description: "Ends all logins, certificates and API tokens of that user, those that were made with one of his tokens too.",
	}, func(ctx context.Context, i *struct {
		UserPath
		IfMatch
	}) (*nothing, error) {
		m, err := i.match()
		if err == nil {
			err = a.Auth.DeleteUser(ctx, i.Username, m)
		}
		if err == nil {
			a.withdrawn()
			a.Mesh.Look()
		}
		return nil, err
	})
	register(a, admin, huma.Operation{
		OperationID: "list-api-tokens", Method: http.MethodGet, Path: "/api/auth/tokens", Tags: []string{"auth"},
		Summary: "API tokens of machines",
	}, func(ctx context.Context, p *Page) (*body[apitype.APITokenList], error) {
		return answer(a.Auth.APITokens(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "create-api-token", Method: http.MethodPost, Path: "/api/auth/tokens", Tags: []string{"auth"},
		Summary: "Make an API token; its secret is shown once", DefaultStatus: http.StatusCreated,
		Description: "It ends with the user who makes it, himself or with another token, and may no more than he may at the time of a request.",
	}, func(ctx context.Context, i *In[apitype.CreateAPIToken]) (*body[apitype.APIToken], error) {
		c := callerOf(ctx)
		t, err := a.Auth.CreateAPIToken(ctx, c.Principal, i.Body)
		if err == nil {
			c.target = t.ID
			a.changed()
		}
		return answer(t, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "delete-api-token", Method: http.MethodDelete, Path: "/api/auth/tokens/{id}", Tags: []string{"auth"},
		Summary: "End an API token", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *struct {
		ID string `path:"id" maxLength:"64"`
	}) (*nothing, error) {
		err := a.Auth.DeleteAPIToken(ctx, i.ID)
		if err == nil {
			a.withdrawn()
		}
		return nil, err
	})
}
