package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// AdminPath names a registration or a token in a path.
type AdminPath struct {
	ID string `path:"id" maxLength:"64"`
}

func (a *API) adminRoutes() {
	tags := []string{"admin"}
	register(a, admin, huma.Operation{
		OperationID: "list-registrations", Method: http.MethodGet, Path: "/v1/admin/registrations", Tags: tags,
		Summary: "Nodes that ask to join and wait for an admin",
	}, func(ctx context.Context, p *Page) (*body[apitype.RegistrationList], error) {
		return answer(a.Registry.Registrations(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "approve-registration", Method: http.MethodPost, Path: "/v1/admin/registrations/{id}/approve", Tags: tags,
		Summary: "Admit a node that waits",
	}, func(ctx context.Context, i *AdminPath) (*body[apitype.Node], error) {
		n, err := a.Registry.Approve(ctx, i.ID, callerOf(ctx).Actor())
		if err == nil {
			a.changed()
		}
		return answer(n, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "reject-registration", Method: http.MethodPost, Path: "/v1/admin/registrations/{id}/reject", Tags: tags,
		Summary: "Refuse a node that waits", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *AdminPath) (*nothing, error) {
		err := a.Registry.Reject(ctx, i.ID)
		if err == nil {
			a.withdrawn()
		}
		return nil, err
	})
	register(a, admin, huma.Operation{
		OperationID: "list-join-tokens", Method: http.MethodGet, Path: "/v1/admin/join-tokens", Tags: tags,
		Summary: "Join tokens and how often they were used",
	}, func(ctx context.Context, p *Page) (*body[apitype.JoinTokenList], error) {
		return answer(a.Registry.JoinTokens(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "create-join-token", Method: http.MethodPost, Path: "/v1/admin/join-tokens", Tags: tags,
		Summary: "Make a join token for new cards; its text is shown once", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[apitype.CreateJoinToken]) (*body[apitype.JoinToken], error) {
		t, err := a.Registry.CreateJoinToken(ctx, i.Body)
		if err == nil {
			callerOf(ctx).target = t.ID
			a.changed()
		}
		return answer(t, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "revoke-join-token", Method: http.MethodDelete, Path: "/v1/admin/join-tokens/{id}", Tags: tags,
		Summary: "End a join token, also one on a card that was never used", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *AdminPath) (*nothing, error) {
		err := a.Registry.RevokeJoinToken(ctx, i.ID)
		if err == nil {
			a.withdrawn()
		}
		return nil, err
	})
}

func (a *API) logRoutes() {
	register(a, scope(apitype.ScopeEventsRead), huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"events"},
		Summary: "What happened, newest first", Description: "With since: oldest first, only what came after that ID; for following.",
	}, func(ctx context.Context, i *struct {
		Page
		Node     string         `query:"node" maxLength:"64" doc:"canonical ID or name: about it, or reported by it"`
		Kind     string         `query:"kind" maxLength:"64" doc:"prefix, e.g. join."`
		Severity model.Severity `query:"severity" enum:"info,warning,error" default:"info" doc:"that and worse"`
		Since    int64          `query:"since" minimum:"-1" default:"-1" doc:"ID of the last event seen; 0: from the beginning"`
		Acked    string         `query:"acknowledged" enum:"true,false" doc:"only those that somebody has taken note of, or that nobody has"`
	}) (*body[apitype.EventList], error) {
		q := events.Query{Kind: i.Kind, Severity: i.Severity, Cursor: i.Cursor, Limit: i.Limit}
		if i.Since >= 0 {
			q.Since = &i.Since
		}
		if i.Node != "" {
			ids, err := a.withPast(ctx, i.Node)
			if err != nil {
				return nil, err
			}
			q.Node, q.Before = ids[0], ids[1:]
		}
		if i.Acked != "" {
			acked := i.Acked == "true"
			q.Acknowledged = &acked
		}
		list, next, err := a.Events.List(ctx, q)
		return answer(apitype.EventList{Items: list, Next: next}, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/audit", Tags: []string{"events"},
		Summary: "Who changed what, newest first",
	}, func(ctx context.Context, p *Page) (*body[apitype.AuditList], error) {
		return answer(a.Audit.List(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "verify-audit", Method: http.MethodGet, Path: "/v1/audit/verify", Tags: []string{"events"},
		Summary:     "Whether the audit log is as it was written",
		Description: "Walks the whole chain of hashes. An edited, inserted, moved or missing record is found, but not that all of it was written anew, or that its end is missing: that takes a head that somebody remembers.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.AuditVerification], error) {
		return answer(a.Audit.Verify(ctx))
	})
	register(a, admin, huma.Operation{
		OperationID: "list-audit-records", Method: http.MethodGet, Path: "/v1/audit/records", Tags: []string{"events"},
		Summary:     "The audit log as it is hashed, oldest first",
		Description: "For whoever verifies by himself that the log still leads from a head that he remembers to the one that it has now.",
	}, func(ctx context.Context, i *struct {
		Page
		Since int64 `query:"since" minimum:"0" doc:"ID of the head that is remembered: only what came after it"`
	}) (*body[apitype.AuditRecordList], error) {
		return answer(a.Audit.Records(ctx, i.Since, i.Cursor, i.Limit))
	})
}
