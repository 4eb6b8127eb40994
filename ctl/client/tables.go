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

// Interfaces returns the gateway's network interfaces with what their drivers count.
func (c *Client) Interfaces(ctx context.Context) ([]model.InterfaceDetail, error) {
	l, err := get[apitype.NetworkInterfaceList](ctx, c, "/v1/network/interfaces", nil)
	return l.Items, err
}

// Wireless returns the gateway's radios, without their peers.
func (c *Client) Wireless(ctx context.Context) ([]model.Radio, error) {
	l, err := get[apitype.WirelessList](ctx, c, "/v1/network/wireless", nil)
	return l.Items, err
}

// Associations returns the stations that the gateway's radios have to do with.
func (c *Client) Associations(ctx context.Context) ([]apitype.Association, error) {
	l, err := get[apitype.AssociationList](ctx, c, "/v1/network/associations", nil)
	return l.Items, err
}
