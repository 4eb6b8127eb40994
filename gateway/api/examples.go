package api

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// exampleTexts are what texts look like, by the name of the property. What a type's own
// tag says goes before.
var exampleTexts = map[string]string{
	"id": exampleNode, "node": exampleNode, "gateway": exampleNode, "source": exampleNode, "target": exampleNode, "next_hop_node": exampleNode,
	"name": "mast", "names": "mast", "hostname": "camera", "description": "weather on the mast", "note": "on the east slope", "label": "laptop",
	"username": "olaf", "user": "olaf", "by": "user:root", "actor": "user:root", "admitted_by": "user:root", "created_by": "user:root",
	"password": "correct horse battery", "current_password": "staple correct horse", "scopes": "nodes:read",
	"access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl", "refresh_token": "halo-refresh-c2VjcmV0", "token": "halo-api-c2VjcmV0", "token_type": "Bearer",
	"network": "north-ridge", "ssid": "ETHRX0001-8A", "mesh": "ETHRX0001-8A", "country": "DE", "board": "Raspberry Pi 4 Model B", "kernel": "6.12.38", "version": "v0.1.0",
	"mac": "02:00:00:00:00:07", "macs": "02:00:00:00:00:07", "bssid": "02:00:00:00:00:07", "next_hop": "02:00:00:00:00:08", "iface": "mesh0", "interface": "mesh0", "radio": "phy0",
	"metric": "system.cpu.used_percent", "metrics": "system.cpu.", "unit": "%", "kind": "node.renamed", "message": "mast is now called hill",
	"detail": "the name hill belongs to another node", "reason": "sensor mast: it is offline", "missing": "gps", "lacks": "it is offline", "title": "Conflict", "type": "name-taken",
	"action": "update-node", "remote": "10.42.0.7", "next": "mast", "cursor": "mast", "host": "10.42.0.7", "endpoint": "[fd12::2]:51820",
	"hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "ca_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	"ca": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n", "code": "7K3M-Q0ZT-4WXP-B2D9", "nonce": exampleKey, "client_nonce": exampleKey, "server_nonce": exampleKey, "proof": exampleKey, "salt": exampleKey,
	"key": exampleKey, "identity_key": exampleKey, "wireguard_key": exampleKey, "network_key": exampleKey, "gateway_wireguard_key": exampleKey, "possession": exampleKey, "signature": exampleKey,
	"certificate": exampleKey, "public_key": exampleKey, "record": exampleKey, "overlay_v4": "10.42.0.7", "overlay_v6": "fd12:3456:789a:2::7", "underlay": "fd12:3456:789a:1::7",
	"address": "10.43.0.20", "addresses": "10.43.0.20/24", "clients": "10.43.7.0/24", "upstreams": "192.0.2.53:53", "server": "192.0.2.53:53", "at": "k3v9q0ad.17", "after": "k3v9q0ad.17", "topic": "nodes", "topics": "nodes",
	"halow_scheme": "US", "clock": "gps", "role": "node", "phase": "idle", "outcome": "the mesh is on channel 6", "peering": "linked", "sae": "hash-to-element", "go": "go1.26", "peer": exampleNode,
	"treatment": "accept", "members": exampleNode, "rule": "clients to the mesh", "needs": "sensor", "gone": exampleNode, "flags": "radar", "why": "radar may be there", "reasons": "the kernel's database", "wanted": "DE",
	"join": "joined", "join_detail": "admitted by a token", "left_out": exampleNode, "waiting": exampleNode, "evidence": "a beacon", "group": "239.2.3.1:6969", "check": "halo-mesh", "bundle": "version = 1\n…",
	"no_upstream": "there is no uplink", "interfaces": "eth1", "zone": "clients", "client_id": "01:02:00:00:00:00:07", "nodes": exampleNode, "halow": "loading", "clear": "nothing",
	"commit": "3c83b70", "slot": "a", "state": "ok", "sqlite": "3.53.0", "features": "nodes", "routing": "BATMAN_V", "channel": "channel 1, 2412 MHz", "location": "body.name",
}

// exampleFalse are what is seldom so.
var exampleFalse = []string{"revoked", "volatile", "disabled", "anyway", "more", "reset", "urgent", "waits", "secret", "rotate_secret", "none"}

const (
	exampleNode = "n-b3x5k2m7q4w6c8d2f5ga"
	exampleKey  = "9mZQ4Ck1bq0pFhU7m1qk4gXk3F0m9g2n3b7tq5sVb0A="
	exampleTime = "2026-11-23T12:00:00Z"
)

// addExamples gives each body in the document an example, made of what its schema says,
// where a route has not given its own.
func addExamples(doc *huma.OpenAPI) {
	e := examples{doc.Components.Schemas}
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			if op.RequestBody != nil {
				e.fill(op.RequestBody.Content, true)
			}
			for _, r := range op.Responses {
				e.fill(r.Content, false)
			}
		}
	}
}

type examples struct{ schemas huma.Registry }

func (e examples) fill(content map[string]*huma.MediaType, request bool) {
	for kind, m := range content {
		if strings.HasSuffix(kind, "json") && m.Schema != nil && m.Example == nil && len(m.Examples) == 0 {
			m.Example = e.of(m.Schema, "", request, 0)
		}
	}
}

// maxDepth ends what refers to itself.
const maxDepth = 8

// of makes a value of a schema, that of a property with that name. What only the gateway
// says is not in requests.
func (e examples) of(s *huma.Schema, name string, request bool, depth int) any {
	if s.Ref != "" {
		return e.of(e.schemas.SchemaFromRef(s.Ref), name, request, depth+1)
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case s.Default != nil:
		return s.Default
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.AnyOf) > 0:
		return e.of(s.AnyOf[0], name, request, depth)
	case len(s.OneOf) > 0:
		return e.of(s.OneOf[0], name, request, depth)
	}
	switch s.Type {
	case huma.TypeObject:
		return e.object(s, request, depth)
	case huma.TypeArray:
		if depth > maxDepth || s.Items == nil {
			return []any{}
		}
		return []any{e.of(s.Items, name, request, depth+1)}
	case huma.TypeString:
		return e.text(s, name)
	case huma.TypeBoolean:
		return !slices.Contains(exampleFalse, name)
	case huma.TypeInteger, huma.TypeNumber:
		return number(s, name)
	}
	return map[string]any{} // anything
}

func (e examples) object(s *huma.Schema, request bool, depth int) any {
	o := map[string]any{}
	for name, p := range s.Properties {
		optional := !slices.Contains(s.Required, name)
		if optional && depth > maxDepth || p.ReadOnly && request || p.WriteOnly && !request {
			continue
		}
		o[name] = e.of(p, name, request, depth+1)
	}
	if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
		o["eth0"] = e.of(of, "", request, depth+1)
	}
	return o
}

func (e examples) text(s *huma.Schema, name string) any {
	text, known := exampleTexts[name]
	format := s.Format
	if _, err := netip.ParseAddr(text); strings.HasPrefix(format, "ip") && err == nil {
		format = "" // the name says which
	}
	switch format {
	case "date-time":
		return exampleTime
	case "ipv4":
		return "10.42.0.7"
	case "ipv6":
		return "fd12:3456:789a:2::7"
	case "ip":
		return "10.42.0.7"
	}
	if s.ContentEncoding == "base64" {
		return exampleKey
	}
	if !known {
		text = "text"
	}
	if s.MaxLength != nil {
		text = text[:min(len(text), *s.MaxLength)]
	}
	return text
}

// exampleNumbers are what numbers look like, by the name of the property.
var exampleNumbers = map[string]float64{
	"status": 409, "expires_in": 3600, "value": 12.5, "width": 20, "epoch": 328_000, "uptime_s": 86_400, "boot": 12, "seq": 4711, "beacon_interval": 1000, "days": 30, "expires_s": 86_400,
}

func number(s *huma.Schema, name string) any {
	n := 1.0
	if v, ok := exampleNumbers[name]; ok {
		n = v
	}
	if s.Minimum != nil {
		n = max(n, *s.Minimum)
	}
	if s.Maximum != nil {
		n = min(n, *s.Maximum)
	}
	if s.Type == huma.TypeInteger {
		return int64(n)
	}
	return n
}
