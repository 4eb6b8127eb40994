package client

import (
	"context"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// NeighbourTable returns the hosts whose hardware addresses the gateway knows.
func (c *Client) NeighbourTable(ctx context.Context) ([]model.NeighbourEntry, error) {
	return pages[model.NeighbourEntry](ctx, c, "/v1/network/neighbours", nil)
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
		t.Originators, err = pages[model.BatmanOriginator](ctx, c, path+table, nil)
	case model.BatmanNeighbours:
		t.Neighbours, err = pages[model.Neighbour](ctx, c, path+table, nil)
	case model.BatmanLocal:
		t.Local, err = pages[model.BatmanClient](ctx, c, path+"translation/"+table, nil)
	case model.BatmanGlobal:
		t.Global, err = pages[model.BatmanClient](ctx, c, path+"translation/"+table, nil)
	default:
		t.Gateways, err = pages[model.BatmanGateway](ctx, c, path+table, nil)
	}
	return t, err
}
