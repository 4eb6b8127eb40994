package api

import (
	"net/http"
	"slices"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

// TestCapabilitiesAreTheRoutesThatThereAre, and those that clients may look for stay.
func TestCapabilitiesAreTheRoutesThatThereAre(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.token = ""
	var c apitype.Capabilities
	f.want(http.StatusOK, "GET", "/capabilities", nil, &c)
	want := []string{"admin", "alerts", "audit", "auth", "backup", "boards", "brain", "cameras", "commands", "endpoints", "events", "firewall", "jobs", "join", "live", "mesh", "metrics", "model", "network", "nodes", "power", "sensors",
		"settings", "speed-tests", "system", "telemetry", "telemetry-export", "telemetry-import", "topology", "trust", "wg-register"}
	if !slices.Equal(c.Features, want) {
		t.Errorf("got  %q\nwant %q", c.Features, want)
	}
	there := map[string]bool{}
	for _, item := range f.OpenAPI().Paths {
		for _, op := range operations(item) {
			there[op.OperationID] = true
		}
	}
	for id, name := range ofOperations {
		if !there[id] {
			t.Errorf("%s stands for the operation %s, which is not there", name, id)
		}
	}
	small := featuresOf(&huma.OpenAPI{Paths: map[string]*huma.PathItem{
		"/v1/sensors": {Get: &huma.Operation{OperationID: "list-sensors", Tags: []string{"wind and rain"}}},
		"/metrics":    {Get: &huma.Operation{OperationID: "get-metrics", Tags: []string{"telemetry"}}},
	}})
	if want := []string{"metrics", "telemetry", "wind-and-rain"}; !slices.Equal(small, want) {
		t.Errorf("got %q, want %q", small, want)
	}
}
