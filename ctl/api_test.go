package ctl_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"halo.internal/ctl"
	"halo.internal/model/apitype"
)

// TestAPIOnATerminal: JSON is indented, and what could rewrite the screen is not sent there,
// though it stays the same JSON.
func TestAPIOnATerminal(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	const name = "\u009b31mred \u202e \U000e0001 ok\x1b"
	g.set("GET /v1/nodes/x", apitype.Node{ID: nodeID, Name: name})
	g.set("GET /v1/jobs/47/file", pcapFile("one\x1b[2J\ntwo\x00"))
	run := func(path string) string {
		var out, errs bytes.Buffer
		code := ctl.Run(t.Context(), ctl.Env{Args: []string{"api", "get", path}, Stdout: &out, Stderr: &errs, Profiles: u.dir, Getenv: func(string) string { return "" }, Console: "tty1"})
		if code != ctl.ExitOK {
			t.Fatalf("exit status %d: %s", code, errs.String())
		}
		return out.String()
	}
	out := run("/v1/nodes/x")
	if !bytes.Contains([]byte(out), []byte("\n  \"name\": \"\\u009b31mred \\u202e \\udb40\\udc01 ok\\u001b\",\n")) {
		t.Errorf("got %q", out)
	}
	var n apitype.Node
	if err := json.Unmarshal([]byte(out), &n); err != nil || n.Name != name {
		t.Errorf("got %q, %v", n.Name, err)
	}
	if out := run("/v1/jobs/47/file"); out != "one�[2J\ntwo�\n" {
		t.Errorf("got %q", out)
	}
}
