package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// tagTexts say what the modules are, by their tags.
var tagTexts = map[string]string{
	"alerts":    "What is wrong now: conditions that last.",
	"endpoints": "Clients: hosts behind nodes that are no members.",
	"firewall":  "What people set of the gateway's firewall: a draft, its trial, and what is kept.",
	"boards":    "What is on nodes' boards: pins of the header, buses, ports, radios, lamps, buttons, outputs, inputs.",
	"sensors":   "Chips on nodes' buses: found, chosen, named and read by templates.",
	"power":     "What feeds nodes: batteries, their charge, and what comes in.",
	"model":     "The network as one picture: each device one identity, with its interfaces, sources and clients.",

	"admin":       "Who may join: registrations and join tokens.",
	"auth":        "People, their logins and certificates, and machines' API tokens.",
	"backup":      "The file in which this gateway goes to another card.",
	"cameras":     "What cameras at nodes show.",
	"brain":       "Neurons, what their components are assigned to, and how they are.",
	"commands":    "What nodes are told to do: a list of kinds, signed by the gateway, done at most once.",
	"jobs":        "What takes longer than a request: how far it is, and what came of it.",
	"speed tests": "What the overlay carries between two devices.",
	"topology":    "The network's picture, as it is and as it was: nodes, links, routes, its health and why.",
	"events":      "What happened, and who changed what.",
	"live":        "What changes, as it changes.",
	"mesh":        "The mesh as the gateway sees it, and what all members of it have to agree on.",
	"network":     "What the gateway does for its clients, and what it sees of them: addresses, names, tables.",
	"nodes":       "The network's devices, the gateway among them.",
	"settings":    "What people set of the gateway.",
	"system":      "The gateway itself.",
	"telemetry":   "What nodes measure.",
	"trust":       "What is trusted without a secret, and codes of nodes' consoles.",
}

// ofOperations are features that a client may look for and that are no module of their
// own, by the operation that each of them is.
var ofOperations = map[string]string{
	"export-telemetry":      "telemetry-export",
	"get-metrics":           "metrics",
	"import-telemetry":      "telemetry-import",
	"join-node":             "join",
	"list-audit":            "audit",
	"register-overlay-peer": "wg-register",
}

// featuresOf are the names of what an API can do, in order: its modules, and ofOperations,
// as far as the document has them.
func featuresOf(doc *huma.OpenAPI) []string {
	there := map[string]bool{}
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			for _, t := range op.Tags {
				there[strings.ReplaceAll(t, " ", "-")] = true
			}
			if name := ofOperations[op.OperationID]; name != "" {
				there[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(there))
}

// finish adds to the document what routes do not say each for itself.
func finish(doc *huma.OpenAPI) {
	doc.Servers = []*huma.Server{{URL: "/", Description: "This gateway: https on port 8443, plain http on port 8080 of loopback and overlay alone."}}
	doc.Info.Contact = &huma.Contact{Name: "Whoever runs this network"}
	used := map[string]bool{}
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			for _, t := range op.Tags {
				used[t] = true
			}
		}
	}
	doc.Tags = nil
	for _, t := range slices.Sorted(maps.Keys(used)) {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: t, Description: tagTexts[t]})
	}
	addExamples(doc)
}
