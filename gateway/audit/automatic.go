package audit

import (
	"context"
	"database/sql"
	"strings"

	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/auditlog"
)

// automaticActor is who has done what nobody with a login has asked for.
const automaticActor = "gateway"

// automatic says of which of the gateway's events there is a record: those that tell of a
// change which no request with a login has made. The action is the event's kind. Where
// the function is nil all are. What a node may do as often as it likes, such as taking
// another key, is none: it would wash out what the log knows.
var automatic = map[string]func(model.Event) bool{
	"node.joined": func(e model.Event) bool {
		return strings.HasPrefix(e.Fields["by"], "token:") || strings.HasPrefix(e.Fields["by"], "mac:")
	},
	"node.cloned":          nil,
	"node.left-out":        nil,
	"node.forgotten":       nil,
	"gateway.epoch-raised": func(e model.Event) bool { return e.Fields["by"] == "" },
	"firewall.reverted":    func(e model.Event) bool { return e.Fields["reason"] != "asked" },
	"auth.refresh.reused":  nil, // a login was ended
	SecretShown:            nil, // to who asked, who is the actor
}

// SecretShown is the kind of event that tells whom the mesh's secret was shown; field by.
const SecretShown = "network.bundle.shown"

var _ events.Witness = (*Log)(nil)

// Ready has the chain whole before Take adds to it.
func (l *Log) Ready(ctx context.Context) error { return l.seal(ctx) }

// Take adds records of what the gateway has changed by itself, in the transaction that
// stores the events that tell of it. The target is the node, and how it came about.
func (l *Log) Take(ctx context.Context, tx *sql.Tx, list []model.Event) (committed func(), err error) {
	var head auditlog.Head
	for _, e := range list {
		is, known := automatic[e.Kind]
		if !known || is != nil && !is(e) {
			continue
		}
		actor, target := automaticActor, strings.TrimSpace(e.Node+" "+e.Fields["by"])
		if e.Kind == SecretShown {
			actor, target = e.Fields["by"], ""
		}
		if head, err = l.append(ctx, tx, auditlog.Record{Actor: actor, Action: e.Kind, Target: target, Status: 200}); err != nil {
			return nil, err
		}
	}
	if head.ID == 0 {
		return nil, nil
	}
	return func() { l.wrote(head) }, l.drop(ctx, tx, head.ID)
}
