package ctl_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
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

// nodeBoard is a board with one of each.
func nodeBoard() model.NodeBoard {
	delay := 5.0
	return model.NodeBoard{Node: nodeID, Model: "ACME Mast", Ref: model.BoardRef{Name: "mast", Digest: "5d41402abc4b2a76", Source: model.BoardFile, Problem: "pole.toml:3: title: expected one line"},
		Board: model.Board{Name: "mast", Title: "Mast", Models: []string{"ACME Mast"},
			Header: &model.BoardHeader{Name: "J1", Columns: 2, Pins: []model.BoardPin{{Pin: 1, Name: "3V3", Kind: model.PinPower}, {Pin: 2, Name: "GND", Kind: model.PinGround},
				{Pin: 3, Name: "P3", Kind: model.PinGPIO, Line: "soc/3", Use: "I2C1 SDA"}, {Pin: 4, Name: "P4", Kind: model.PinGPIO, Line: "soc/4", Use: "I2C1 SCL"},
				{Pin: 5, Name: "P5", Kind: model.PinGPIO, Line: "soc/5", Functions: []string{"PWM0", "UART0 TX"}}}},
			I2C:     []model.BoardI2C{{Name: "I2C1", Device: "1000.i2c", SDA: "P3", SCL: "P4", InUse: []model.BoardInUse{{Address: 0x70, By: "multiplexer"}}}},
			Serial:  []model.BoardSerial{{Name: "UART1", Device: "ttyS1", Taken: "console"}},
			Radios:  []model.BoardRadio{{Name: "halow", Driver: "morse", Bus: "spi", Reset: "GPIO17", DelayS: &delay, Calibration: "fgh100m"}},
			LEDs:    []model.BoardLED{{Name: "ACT", Colour: "green", Status: true}},
			Buttons: []model.BoardButton{{Name: "reset", Does: "factory-reset", Line: "P6"}},
			Power:   &model.BoardPower{Source: "usb", Volts: 5.1, Watts: 15},
			Outputs: []model.BoardOutput{{Name: "siren", Title: "siren on the mast", Line: "P7"}, {Name: "fan", PWM: &model.OutputPWM{Device: "2000.pwm", Hz: 25000}, Safe: model.SafeOn}},
			Inputs:  []model.BoardInput{{Name: "door", Title: "door of the cabinet", Line: "P8", ActiveLow: true, Bias: "pull-up", Event: model.Warning}, {Name: "rain", Line: "soc/9"}}}}
}

// sensor is a chip that is read.
func sensor() apitype.SensorDetail {
	return apitype.SensorDetail{
		Sensor: apitype.Sensor{ID: "1000.i2c-76@" + nodeID, Node: nodeID, NodeName: "n01", Online: true, Name: "air", Place: "north side", SensorChip: model.SensorChip{
			Bus: "1000.i2c", BusName: "I2C1", Address: 0x76, State: model.SensorOK, Chip: "bme280", Title: "BME280: air", Label: "bme280", Role: model.Sensor, Assigned: true, IntervalS: 60,
			Params: map[string]float64{"offset_c": 0.5}, Values: []model.SensorValue{{Metric: "i2c.bme280.temperature_c", Title: "Temperature", Unit: "°C"}}, Outputs: []model.SensorOutput{{Name: "heat", Title: "Heater", Max: 1}},
		}},
		Readings: []apitype.Reading{{Metric: "i2c.bme280.temperature_c", Value: 21.5, Unit: "°C"}},
	}
}

func nodePower() apitype.NodePower {
	percent := 62.5
	return apitype.NodePower{Node: nodeID, NodeName: "n01", Online: true, Power: model.PowerState{Source: model.PowerBattery, Percent: &percent, By: model.ChargeVoltage, Measured: map[string]float64{"battery_voltage_v": 7.61}}}
}

// sensorJob is a sensor command that is done.
func sensorJob(id int64, result string) apitype.Job {
	return apitype.Job{ID: id, Kind: "sensor", Node: nodeID, State: apitype.JobDone, Created: ago(time.Minute), Result: json.RawMessage(result)}
}

// singleRoutes are lists and single things that other routes have in a larger picture.
func singleRoutes() map[string]any {
	mac := func(b byte) dot11.MAC { return dot11.MAC{2, 0, 0, 0, 0, b} }
	own := model.Interface{Name: "eth0", Kind: "ethernet", MAC: "02:00:00:00:00:02", Up: true, PortRole: "uplink", RxBytes: 2048, TxBytes: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}}
	gone := model.Interface{Name: "wlan1", Kind: "wifi", MAC: "02:00:00:00:00:03"}
	radios := meshStatus(model.Neighbour{}, model.OverlayPeer{}).Radios
	var stations []apitype.Association
	for _, p := range radios[0].Peers {
		p.TxPackets, p.TxRetries = 900, 90
		stations = append(stations, apitype.Association{Radio: "phy0", Iface: "mesh0", RadioPeer: p})
	}
	firewall := firewallRoutes()["GET /v1/firewall"].(apitype.Firewall)
	put := func(r *http.Request) any {
		if r.Header.Get("If-Match") != `"`+firewall.Digest+`"` {
			return apitype.Problem{Type: apitype.ProblemETag, Status: http.StatusPreconditionFailed, Title: "Precondition Failed"}
		}
		body, _ := r.Context().Value(bodyKey{}).(json.RawMessage)
		f := firewall
		f.Problem = string(body) // for the scripts to look at
		return f
	}
	return map[string]any{
		"GET /capabilities":        apitype.Capabilities{API: "v1", Version: "v0.1.0", Claimed: true, Features: []string{"brain", "firewall"}},
		"GET /api/auth/users/vera": apitype.User{Username: "vera", Role: apitype.RoleViewer, Disabled: true, Created: ago(time.Hour)},
		"GET /v1/alerts/7":         apitype.Alert{ID: 7, Kind: "node.offline", Node: nodeID, Severity: model.Warning, Message: "n01 is offline", Opened: ago(time.Hour), Acknowledged: &apitype.Acknowledgement{Time: ago(time.Minute), By: "user:anna", Note: "on my way"}},
		"GET /v1/events/12": apitype.Event{ID: 12, Received: ago(59 * time.Minute), Source: nodeID, Event: model.Event{Time: ago(time.Hour), Clock: model.ClockGateway, Node: nodeID, Kind: "mesh.port.refused", Severity: model.Warning,
			Message: "a stranger\x1b[31m on eth1", Fields: map[string]string{"iface": "eth1", "mac": "02:00:00:00:00:66"}}},
		"GET /v1/trust/macs/02:00:00:00:00:02":           apitype.TrustedMAC{MAC: "02:00:00:00:00:02", Node: nodeID, Used: agoPtr(time.Hour), Created: ago(3 * time.Hour), By: "user:admin", Note: "mast"},
		"GET /v1/network/reservations/02:00:00:00:00:20": reservations()[0],
		"GET /v1/network/interfaces": apitype.NetworkInterfaceList{Node: gatewayID, Items: []model.InterfaceDetail{
			{Interface: own, Detail: &model.InterfaceCounters{MTU: 1500, Carrier: true, SpeedMbps: 1000, Duplex: "full", CarrierChanges: 3, RxPackets: 20, TxPackets: 1, RxErrors: 2}}, {Interface: gone}}},
		"GET /v1/network/wireless":          apitype.WirelessList{Node: gatewayID, Items: radios},
		"GET /v1/network/associations":      apitype.AssociationList{Node: gatewayID, Items: stations},
		"GET /v1/mesh/channel":              apitype.MeshChannel{Channel: 1, Width: 20, HaLowChannel: 44, HaLowScheme: "802.11-2020", Phase: "settling"},
		"PUT /v1/mesh/channel":              meshProfile(),
		"GET /v1/nodes/n01/telemetry":       apitype.ReadingList{Items: []apitype.Reading{{Node: nodeID, Metric: "system.cpu.used_percent", Unit: "percent", Value: 12.34567, Time: ago(95 * time.Second), Clock: model.ClockGateway, Boot: 12, Seq: 7}}},
		"GET /v1/nodes/n01/telemetry/range": samples,
		"GET /v1/nodes/n01/interfaces":      apitype.InterfaceList{Items: []apitype.Interface{{Interface: own, Present: true, LastSeen: ago(time.Minute)}, {Interface: gone, LastSeen: ago(time.Hour)}}},
		"GET /v1/nodes/n01/board":           nodeBoard(),
		"GET /v1/nodes/n01/inventory":       apitype.NodeInventory{Node: nodeID, Time: ago(time.Minute), Inventory: model.Inventory{Buses: []model.SensorBus{{Path: "1000.i2c", Name: "I2C1", Problem: "it is stuck"}}, Sensors: []model.SensorChip{sensor().SensorChip}, Templates: []model.NodeTemplate{{Name: "aht20", Digest: "5d41"}}}},
		"GET /v1/nodes/n01/power":           nodePower(),
		"GET /v1/power":                     apitype.NodePowerList{Items: []apitype.NodePower{nodePower()}},
		"GET /v1/sensors":                   apitype.SensorList{Items: []apitype.Sensor{sensor().Sensor, {ID: "1000.i2c-23@" + nodeID, NodeName: "n01", SensorChip: model.SensorChip{Bus: "1000.i2c", Address: 0x23, State: model.SensorOffered, Candidates: []string{"bh1750", "pcf8574"}}}}},
		"GET /v1/sensors/1000.i2c-76@n01":   sensor(),
		"PATCH /v1/sensors/1000.i2c-76@n01": sensor().Sensor,
		"GET /v1/sensor-templates":          apitype.SensorTemplateList{Items: []apitype.SensorTemplate{{Name: "aht20", Title: "AHT20", By: "user:root", On: 3, Missing: 1}, {Name: "bme280", BuiltIn: true}}},
		"GET /v1/sensor-templates/aht20":    apitype.SensorTemplateText{SensorTemplate: apitype.SensorTemplate{Name: "aht20"}, Text: "name = \"aht20\"\n"},
		"PUT /v1/sensor-templates/odd":      apitype.SensorTemplateText{SensorTemplate: apitype.SensorTemplate{Name: "odd"}},
		"DELETE /v1/sensor-templates/odd":   struct{}{},
		"POST /v1/sensor-templates/lint":    apitype.SensorTemplateFindings{Usable: true, Items: []model.TemplateFinding{}},

		"POST /v1/sensors/1000.i2c-23@n01/assignment":   sensorJob(71, `{"state":"ok"}`),
		"DELETE /v1/sensors/1000.i2c-76@n01/assignment": sensorJob(72, `null`),
		"POST /v1/sensors/1000.i2c-76@n01/trial":        sensorJob(73, `{"transactions":[{"write":"d0","read":"60","took_ms":1.25}],"variables":[{"name":"t_fine","value":128422}],"values":[{"name":"temperature_c","value":25.08,"unit":"°C"},{"name":"humidity_percent","error":"it is missing"}],"took_ms":12}`),
		"POST /v1/nodes/n01/sensors/scan":               sensorJob(74, `{"buses":1}`),

		"GET /v1/boards":              apitype.BoardList{Items: []model.BoardDescription{{Digest: "5d41402abc4b2a76", Board: nodeBoard().Board}, {Digest: "0011223344556677", BuiltIn: true, Board: model.Board{Name: "qemu-virt", Title: "QEMU virt", Models: []string{"linux,dummy-virt"}}}}},
		"GET /v1/nodes/n01/endpoints": modelRoutes()["GET /v1/endpoints"],
		"GET /v1/nodes/n01/commands":  apitype.JobList{Items: []apitype.Job{commandJob(46, "reboot", "queued", ""), commandJob(45, "capture", "failed", `{}`)}},
		"GET /v1/nodes/n01/neighbourhood": apitype.NodeNeighbourhood{Heard: ago(20 * time.Second), Report: model.Report{Node: nodeID, Boot: 12, Seq: 90_000,
			Interfaces: model.ReportInterfaces{{Name: "mesh0", Addresses: []dot11.MAC{mac(2)}, Transport: model.TransportHaLow, FreqKHz: 916_500, WidthKHz: 1000, Links: []model.ReportLink{
				{Peer: mac(1), Node: gatewayID, SignalDBm: -82, TxKbps: 300, RxKbps: 150, TQ: 200, RetryPermille: 125, InactiveMS: 1200}}}},
			NextHops: model.ReportNextHops{{Node: gatewayID, Next: mac(1), NextNode: gatewayID, Iface: "mesh0", TQ: 200}},
			Overlay:  model.ReportOverlay{{Node: gatewayID, HandshakeS: 100, Direct: true}, {Node: waitingID, HandshakeS: -1}}}},
		"GET /v1/model/networks": apitype.ModelNetworkList{Items: []apitype.ModelNetwork{{ID: "a2V5", Name: "north-ridge", Gateway: gatewayID, Epoch: 328000, Country: "DE", Overlay: []string{"10.42.0.0/16"}, Underlay: []string{"10.41.0.0/16"}, Clients: []string{"10.43.0.0/16"}, Meshes: []string{"ETHRX0001-8A"}}}},
		"GET /v1/model/meshes":   apitype.ModelMeshList{Items: []apitype.ModelMesh{{ID: "ETHRX0001-8A", Network: "north-ridge", Routing: "BATMAN_IV", Nodes: 2, Domains: []apitype.UnderlayDomain{{ID: "ETHRX0001-8A/wifi"}}}}},
		"GET /v1/model/domains":  apitype.UnderlayDomainList{Items: []apitype.UnderlayDomain{{ID: "ETHRX0001-8A/wifi", Mesh: "ETHRX0001-8A", Transport: "wifi", Channel: "1", Nodes: []string{gatewayID, nodeID}}}},
		"GET /v1/model/interfaces": apitype.ModelInterfaceList{Items: []apitype.ModelInterface{{ID: nodeID + "/wlan1", Node: nodeID, Interface: apitype.Interface{Interface: gone, LastSeen: ago(time.Hour)},
			Hardware: []apitype.InterfaceHardware{{MAC: "02:00:00:00:00:03", Since: ago(2 * time.Hour)}, {MAC: "02:00:00:00:00:04", Since: ago(48 * time.Hour)}}}}},
		"GET /v1/model/sources":                           apitype.TelemetrySourceList{Items: []apitype.TelemetrySource{{ID: nodeID + "/system.cpu", Node: nodeID, Source: "system", Thing: "cpu", Metrics: []string{"system.cpu.used_percent"}, Latest: agoPtr(time.Minute)}}},
		"GET /v1/firewall/rules":                          apitype.FirewallRuleList{Items: firewall.Draft.Rules},
		"GET /v1/firewall/rules/no-mail":                  firewall.Draft.Rules[0],
		"PUT /v1/firewall/rules/no-mail":                  put,
		"GET /v1/firewall/port-forwards":                  apitype.PortForwardList{Items: firewall.Draft.PortForwards},
		"PUT /v1/firewall/port-forwards/web":              put,
		"GET /v1/firewall/forwardings":                    apitype.FirewallForwardingList{Items: []apitype.FirewallForwarding{{Forwarding: model.Forwarding{From: model.ZoneMesh, To: model.ZoneUplink}, Builtin: true}, {Forwarding: firewall.Draft.Forwardings[0]}}},
		"PUT /v1/brain/neurons/weather/components/sensor": weather(),
	}
}

// samples answers in pages of two, oldest first.
func samples(r *http.Request) any {
	all := []apitype.Sample{}
	for i := range 5 {
		all = append(all, apitype.Sample{Time: ago(time.Minute).Add(time.Duration(i) * 1500 * time.Millisecond), Metric: "system.cpu.used_percent", Unit: "percent", Value: 12.3456789 + float64(i)})
	}
	at, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	out := apitype.SampleList{Node: nodeID, Items: all[at:min(at+2, len(all))]}
	if at+2 < len(all) {
		out.Next = strconv.Itoa(at + 2)
	}
	return out
}
