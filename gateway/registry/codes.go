package registry

import (
	"context"
	"encoding/binary"
	"fmt"

	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/identity/nodecode"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// settingCodes keeps the generation of the nodes' codes: 4 octets, big endian.
const settingCodes = "generation of node codes"

func (r *Registry) loadCodes(ctx context.Context) error {
	v, err := r.db.Setting(ctx, settingCodes, func() []byte { return make([]byte, 4) })
	if err != nil {
		return fmt.Errorf("%s: %w", settingCodes, err)
	}
	if len(v) != 4 {
		return fmt.Errorf("%s: expected 4 octets, got %d", settingCodes, len(v))
	}
	r.codes.Store(binary.BigEndian.Uint32(v))
	return nil
}

// Codes returns the generation of the nodes' codes.
func (r *Registry) Codes() uint32 { return r.codes.Load() }

// Code returns what a person types at the console of a node, by canonical ID or
// name. That somebody has seen it is an event.
func (r *Registry) Code(ctx context.Context, ref, by string) (apitype.NodeCode, error) {
	n, err := r.Node(ctx, ref)
	if err != nil {
		return apitype.NodeCode{}, err
	}
	key, err := identity.ParsePublicKey(n.IdentityKey)
	if err != nil {
		return apitype.NodeCode{}, fmt.Errorf("stored node %s: %w", n.ID, err)
	}
	c := apitype.NodeCode{Node: n.ID, Name: n.Name, Generation: r.Codes()}
	if c.Code, err = nodecode.New(r.key, key, c.Generation); err != nil {
		return apitype.NodeCode{}, fmt.Errorf("code of %s: %w", n.ID, err)
	}
	r.events.Add("node.code.shown", model.Info, n.ID, "the node's code was shown to "+by, map[string]string{"by": by})
	return c, nil
}

// RenewCodes makes other codes of all nodes'. Nodes learn of it by the list of
// members.
func (r *Registry) RenewCodes(ctx context.Context, by string) (uint32, error) {
	r.renew.Lock()
	defer r.renew.Unlock()
	next := r.codes.Load() + 1
	if err := r.db.PutSetting(ctx, settingCodes, binary.BigEndian.AppendUint32(nil, next)); err != nil {
		return 0, store.Classify(err)
	}
	r.codes.Store(next)
	r.events.Add("node.codes.renewed", model.Warning, "", "all nodes have other codes", map[string]string{"by": by, "generation": fmt.Sprint(next)})
	return next, nil
}
