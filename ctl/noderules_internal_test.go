package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/model"
)

func TestRulesOfANode(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want string // of the error; empty: none
		is   func(model.AgentConfig) bool
	}{
		"both": {"[power]\nchemistry = \"li-ion\"\ncells = 2\nshutdown_percent = -1\n[[metric]]\nname = \"i2c.*\"\ndead_band = 0.2\n[[metric]]\nname = \"a.b.c\"\nbelow = 3\n", "", func(c model.AgentConfig) bool {
			return powerWords(*c.Power) == "li-ion, 2 cells, never shuts down" && len(c.Metrics.Rules) == 2 && *c.Metrics.Rules[1].Below == 3
		}},
		"power alone":     {"[power]\nlow_percent = 30\n", "", func(c model.AgentConfig) bool { return *c.Power.LowPercent == 30 && c.Metrics == nil }},
		"the defaults":    {"[power]\n", "", func(c model.AgentConfig) bool { return *c.Power == model.PowerSettings{} && c.Metrics == nil }},
		"no rules":        {"metric = []\n", "", func(c model.AgentConfig) bool { return c.Power == nil && len(c.Metrics.Rules) == 0 }},
		"nothing":         {"", "expected [power] or [[metric]]", nil},
		"another setting": {"sample = \"5s\"\n", "rules.toml:1", nil},
		"unknown":         {"[[metric]]\nname = \"a\"\nwithin = 3\n", "rules.toml:3", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var c model.AgentConfig
			err := parseRules("rules.toml", []byte(tc.text), &c)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if tc.is != nil && !tc.is(c) {
				t.Errorf("got %+v, %+v", c.Power, c.Metrics)
			}
		})
	}
}

// TestAConsoleHasNoRules: what a file there has would be told by what is wrong with it.
func TestAConsoleHasNoRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.toml")
	if err := os.WriteFile(file, []byte("[power]\nlow_percent = 30\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c model.AgentConfig
	if err := (&app{env: Env{Console: "tty1"}}).readRules(file, &c); err == nil || !strings.Contains(err.Error(), "a console has no files") || c.Power != nil {
		t.Errorf("at a console: %v, %+v", err, c.Power)
	}
	if err := (&app{}).readRules(file, &c); err != nil || c.Power == nil {
		t.Errorf("elsewhere: %v, %+v", err, c.Power)
	}
	if err := (&app{env: Env{Console: "tty1"}}).readRules("", &c); err != nil {
		t.Errorf("without a file: %v", err)
	}
}
