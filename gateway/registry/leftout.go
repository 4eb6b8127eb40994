package registry

import (
	"context"
	"database/sql"
	"fmt"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// leftOut stands in the place of who has admitted a node, where LeaveOut has revoked it.
const leftOut = "left-out"

// LeaveOut revokes nodes that are members by this card and none by the mesh profile that
// another card of this gateway has signed since: that one may have revoked them. It
// returns whom it has revoked. Approve takes that back, and nothing else does.
func (r *Registry) LeaveOut(ctx context.Context, ids []string) (gone []string, err error) {
	defer func() {
		if len(gone) > 0 { // also where another one then could not be revoked
			r.change()
		}
	}()
	for _, id := range ids {
		n, err := r.Node(ctx, id)
		if err != nil || n.ID != id || n.Revoked || n.Role == model.RoleGateway {
			continue // there is nothing to take away
		}
		var forgotten []string
		err = r.db.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `UPDATE nodes SET revoked = 1, admitted_by = ? WHERE id = ?`, leftOut, id); err != nil {
				return err
			}
			forgotten, err = forgetRevoked(ctx, tx, id)
			return err
		})
		if err != nil {
			return gone, err
		}
		r.tellForgotten(forgotten)
		r.nodeNews.Note(id)
		r.events.Add("node.left-out", model.Warning, id, fmt.Sprintf("%s is a member by this gateway's card, and none by the mesh profile that another card of it has signed since, "+
			"which may have revoked it: it is revoked here, too. If it is to be a member, run haloctl registration approve %s", n.Name, id), nil)
		gone = append(gone, id)
	}
	return gone, nil
}

// takeBack makes a node that was left out a member again.
func (r *Registry) takeBack(ctx context.Context, n apitype.Node, by string) (apitype.Node, error) {
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		if err := uniqueWireGuard(ctx, tx, n.ID, n.WireGuardKey); err != nil {
			return err
		}
		var clients sql.Null[uint8]
		var taken bool
		if err := tx.QueryRowContext(ctx, `SELECT clients, clients IN (SELECT clients FROM nodes WHERE NOT revoked AND clients IS NOT NULL) IS TRUE FROM nodes WHERE id = ?`, n.ID).Scan(&clients, &taken); err != nil {
			return err
		}
		if taken {
			var err error
			if clients, err = freeClients(ctx, tx); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE nodes SET revoked = 0, admitted_by = ?, clients = ? WHERE id = ?`, by, clients, n.ID)
		if err == nil {
			n, err = r.changedNode(ctx, tx, n.ID)
		}
		return err
	})
	if err != nil {
		return apitype.Node{}, err
	}
	r.nodeNews.Note(n.ID)
	r.events.Add("node.joined", model.Info, n.ID, n.Name+" is a member again", map[string]string{"name": n.Name, "by": by})
	r.change()
	return r.now(n), nil
}

// tellForgotten tells of revoked nodes of which there were too many.
func (r *Registry) tellForgotten(ids []string) {
	r.nodeNews.Note(ids...)
	for _, id := range ids {
		r.events.Add("node.forgotten", model.Warning, id, "too many nodes are revoked to remember this one: do not approve it if it asks again", nil)
	}
}
