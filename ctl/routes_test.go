package ctl_test

import (
	"net/http"
	"net/netip"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// tableRoutes are what the gateway's kernel knows.
func tableRoutes() map[string]any {
	const radio, other = "02:00:00:00:00:02", "02:00:00:00:00:03"
	return map[string]any{
		"GET /v1/network/neighbours":             apitype.NetworkNeighbourList{Items: []model.NeighbourEntry{{Address: netip.MustParseAddr("10.41.0.9"), MAC: radio, Iface: "bat0", State: "reachable", Node: nodeID}}},
		"GET /v1/mesh/config":                    apitype.MeshConfig{Config: &model.BatmanConfig{Iface: "bat0", MAC: other, Version: "2024.2", Routing: "BATMAN_IV", OGMIntervalMS: 5000, HopPenalty: 30, GatewayMode: "server", DistributedARP: true}},
		"GET /v1/mesh/batman/interfaces":         apitype.BatmanInterfaceList{Items: []model.BatmanInterface{{Iface: "mesh0", MAC: other}}},
		"GET /v1/mesh/batman/originators":        apitype.BatmanOriginatorList{Items: []model.BatmanOriginator{{MAC: radio, Node: nodeID, NextHop: radio, NextHopNode: nodeID, Iface: "mesh0", Best: true, TQ: 240, LastSeenMS: 900}, {MAC: radio, Node: nodeID, NextHop: other, Iface: "mesh0", TQ: 100, LastSeenMS: 2900}}},
		"GET /v1/mesh/batman/neighbours":         apitype.BatmanNeighbourList{Items: []model.Neighbour{{Iface: "mesh0", MAC: radio, Node: nodeID, Throughput: 11.5}}},
		"GET /v1/mesh/batman/translation/local":  apitype.BatmanClientList{Items: []model.BatmanClient{{MAC: "02:00:00:00:00:aa", Member: gatewayID}}},
		"GET /v1/mesh/batman/translation/global": apitype.BatmanClientList{Items: []model.BatmanClient{{MAC: "02:00:00:00:00:bb", Member: nodeID, Originator: radio, Node: nodeID, Best: true}}},
		"GET /v1/mesh/batman/gateways":           apitype.BatmanGatewayList{Items: []model.BatmanGateway{{MAC: radio, NextHop: radio, Iface: "mesh0", Best: true, TQ: 200, DownMbps: 10, UpMbps: 2}}},
	}
}

// modelRoutes are alerts, clients and a card that was written anew.
func modelRoutes() map[string]any {
	acked := &apitype.Acknowledgement{Time: ago(time.Minute), By: "user:anna", Note: "on my way"}
	alert := apitype.Alert{ID: 7, Kind: "node.offline", Node: nodeID, Severity: model.Warning, Message: "n01 is offline", Opened: ago(time.Hour)}
	known := alert
	known.ID, known.Kind, known.Acknowledged, known.Closed = 3, "disk.full", acked, agoPtr(time.Minute)
	phone := apitype.Endpoint{ID: "c-phone", Name: "Anna's phone", MAC: "02:00:00:00:00:07", Hostname: "phone", DNS: "phone.n01.halo", Addresses: []netip.Addr{netip.MustParseAddr("10.43.1.7")},
		Node: nodeID, NodeName: "n01", Interface: "br0", Present: true, FirstSeen: ago(48 * time.Hour), LastSeen: ago(time.Minute)}
	camera := apitype.Endpoint{ID: "c-camera", MAC: "02:00:00:00:00:08", Hostname: "camera", Node: gatewayID, NodeName: "gw", LastSeen: ago(3 * time.Hour)}
	anew := apitype.Replacement{Node: "n-cccccccccccccccccccc", NodeName: "node-cccccc", Waits: true, Old: nodeID, OldName: "n01", Reasons: []string{"MAC dc:a6:32:00:00:01", "serial s1"}}
	rules := apitype.EventRetention{Info: apitype.RetentionRule{Days: 90, Count: 30000}, Warning: apitype.RetentionRule{Days: 365, Count: 30000}, Error: apitype.RetentionRule{Days: 730, Count: 30000}}
	n01 := apitype.Node{ID: nodeID, Name: "n01", Role: model.RoleNode, Quarantined: &apitype.Quarantine{Reason: "its key was on two devices at once"}}
	return map[string]any{
		"GET /v1/alerts":                                             apitype.AlertList{Items: []apitype.Alert{alert, known}},
		"POST /v1/alerts/7/acknowledge":                              alert,
		"POST /v1/events/12/acknowledge":                             apitype.Event{ID: 12, Event: model.Event{Message: "a test"}},
		"GET /v1/events/retention":                                   rules,
		"PUT /v1/events/retention":                                   rules,
		"GET /v1/endpoints":                                          apitype.EndpointList{Items: []apitype.Endpoint{camera, phone}},
		"GET /v1/endpoints/c-phone":                                  apitype.EndpointDetail{Endpoint: phone, Places: []apitype.EndpointPlace{{Node: nodeID, Since: ago(time.Hour)}, {Node: gatewayID, Since: ago(48 * time.Hour)}}},
		"PATCH /v1/endpoints/c-phone":                                phone,
		"DELETE /v1/endpoints/c-phone":                               apitype.Endpoint{},
		"GET /v1/model":                                              apitype.ModelSummary{Network: "north-ridge", Meshes: 1, Nodes: apitype.NodeCounts{All: 2, Online: 1}, Clients: 2, Present: 1, Sensors: 1},
		"GET /v1/model/conflicts":                                    apitype.ModelConflicts{Quarantined: []apitype.Node{n01}, MACs: []apitype.MACConflict{{MAC: "00:c0:ca:00:00:01", Nodes: []string{gatewayID, nodeID}}}},
		"GET /v1/model/replacements":                                 apitype.ReplacementList{Items: []apitype.Replacement{anew}},
		"POST /v1/model/replacements/n-cccccccccccccccccccc/adopt":   apitype.Node{ID: anew.Node, Name: "n01"},
		"POST /v1/model/replacements/n-cccccccccccccccccccc/dismiss": apitype.Node{},
		"POST /v1/nodes/n01/release":                                 n01,
		"GET /v1/model/nodes/n01": apitype.ModelNode{Node: n01, Roles: []apitype.ModelRole{apitype.RoleOf("node", ""), apitype.RoleOf("data-provider", "2 telemetry sources")}, Domains: []string{"ETHRX0001-8A/wifi"},
			Children:  []apitype.ModelInterface{{Interface: apitype.Interface{Interface: model.Interface{Name: "mesh0", Kind: "wifi"}, Present: true}, Hardware: []apitype.InterfaceHardware{{MAC: "00:c0:ca:00:00:02"}, {MAC: "00:c0:ca:00:00:01"}}}},
			Sources:   []apitype.TelemetrySource{{Source: "system", Thing: "cpu", Metrics: []string{"system.cpu.used_percent"}}},
			Endpoints: []apitype.Endpoint{phone}, Replaced: []string{"n-dddddddddddddddddddd"}},
	}
}

// firewallRoutes are a draft that is on trial.
func firewallRoutes() map[string]any {
	draft := model.FirewallPolicy{
		Openings:    []model.ZoneOpening{{Zone: model.ZoneUplink, Services: []string{"door", "wireguard"}}},
		Forwardings: []model.Forwarding{{From: model.ZoneClients, To: model.ZoneMesh}},
		Rules: []model.FirewallRule{{Name: "no-mail", Action: model.Deny, From: model.ZoneClients, To: model.ZoneUplink, Proto: "tcp",
			Ports: []model.PortRange{model.SinglePort(25), {First: 465, Last: 587}}, Sources: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/24")}}},
		PortForwards: []model.PortForward{{Name: "web", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr("10.43.0.9"), ToPort: 80}},
	}
	trial := apitype.Firewall{Draft: draft, Edited: true, Digest: draft.Digest(), Trial: &apitype.FirewallTrial{Policy: draft, By: "user:anna", LeftS: 42}}
	kept := apitype.Firewall{Kept: draft, Draft: draft, Digest: draft.Digest()}
	return map[string]any{
		"GET /v1/firewall":                             trial,
		"POST /v1/firewall/rules":                      trial,
		"DELETE /v1/firewall/rules/no-mail":            trial,
		"POST /v1/firewall/port-forwards":              trial,
		"DELETE /v1/firewall/port-forwards/web":        trial,
		"POST /v1/firewall/forwardings":                trial,
		"DELETE /v1/firewall/forwardings/clients-mesh": trial,
		"PUT /v1/firewall/zones/uplink":                trial,
		"DELETE /v1/firewall/draft":                    kept,
		"POST /v1/firewall/confirm":                    kept,
		"POST /v1/firewall/revert":                     kept,
		"POST /v1/firewall/apply":                      apitype.Problem{Type: apitype.ProblemFirewallLocksOut, Title: "Conflict", Status: http.StatusConflict, Detail: "the draft would shut you out"},
		"POST /v1/firewall/preview": model.FirewallPreview{
			Added: []string{"no-mail: deny tcp port 25, 465-587 from clients to uplink"}, Removed: []string{"uplink to the device: field (tcp port 80)"},
			Breaks: []string{"clients to uplink, by no-mail"}, LocksOut: "no-mail: deny tcp",
		},
		"GET /v1/firewall/zones": apitype.FirewallZoneList{Items: []apitype.FirewallZoneDetail{{
			FirewallZone: model.FirewallZone{Zone: model.ZoneUplink, Interfaces: []string{"eth0"}, Drops: []model.FirewallCount{{Packets: 7}, {Packets: 5}}},
			Opened:       []string{"door"}, Services: []model.FirewallService{{Name: "portal"}, {Name: "door"}, {Name: "door"}},
		}}},
	}
}
