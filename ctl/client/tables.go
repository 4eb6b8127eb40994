package client

import (
	"context"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// NeighbourTable returns the hosts whose hardware addresses the gateway knows.
func (c *Client) NeighbourTable(ctx context.Context) ([]model.NeighbourEntry, error) {
	l, err := get[apitype.NetworkNeighbourList](ctx, c, "/v1/network/neighbours", nil)
	return l.Items, err
}

// Batman returns one of the tables of the gateway's batman-adv.
func (c *Client) Batman(ctx context.Context, table string) (t model.BatmanTables, err error) {
	const path = "/v1/mesh/batman/"
	switch table {
	case model.BatmanConfigTable:
		l, err := get[apitype.MeshConfig](ctx, c, "/v1/mesh/config", nil)
		t.Config = l.Config
		return t, err
	case model.BatmanInterfaces:
		l, err := get[apitype.BatmanInterfaceList](ctx, c, path+table, nil)
		t.Interfaces = l.Items
		return t, err
	case model.BatmanOriginators:
		l, err := get[apitype.BatmanOriginatorList](ctx, c, path+table, nil)
		t.Originators = l.Items
		return t, err
	case model.BatmanNeighbours:
		l, err := get[apitype.BatmanNeighbourList](ctx, c, path+table, nil)
		t.Neighbours = l.Items
		return t, err
	case model.BatmanLocal:
		l, err := get[apitype.BatmanClientList](ctx, c, path+"translation/"+table, nil)
		t.Local = l.Items
		return t, err
	case model.BatmanGlobal:
		l, err := get[apitype.BatmanClientList](ctx, c, path+"translation/"+table, nil)
		t.Global = l.Items
		return t, err
	}
	l, err := get[apitype.BatmanGatewayList](ctx, c, path+table, nil)
	t.Gateways = l.Items
	return t, err
}
