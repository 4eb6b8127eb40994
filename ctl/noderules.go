package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/strict"
)

// agentRules are the parts of agent.toml that say what a node makes of what it measures
// (docs/sensors.md).
type agentRules struct {
	Power   *model.PowerSettings `toml:"power"`
	Metrics *[]model.MetricRule  `toml:"metric"`
}

const maxRulesFile = 64 << 10 // octets, as halo-agent takes them

// readRules reads a file of rules into what a command says; without a name nothing is to
// change.
func (a *app) readRules(file string, c *model.AgentConfig) error {
	if file == "" {
		return nil
	}
	if a.env.Console != "" {
		return &usageError{errors.New("a console has no files; do this from a laptop")}
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRulesFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxRulesFile {
		return fmt.Errorf("%s: expected at most %d octets", file, maxRulesFile)
	}
	return parseRules(file, text, c)
}

func parseRules(file string, text []byte, c *model.AgentConfig) error {
	var r agentRules
	if problems := strict.Decode(file, text, &r); len(problems) > 0 {
		return strict.Errors(problems)
	}
	if r.Power == nil && r.Metrics == nil {
		return fmt.Errorf("%s: expected [power] or [[metric]]; metric = [] takes all rules away", file)
	}
	c.Power = r.Power
	if r.Metrics != nil {
		c.Metrics = &model.MetricRules{Rules: *r.Metrics}
	}
	return nil
}

// powerWords says how a node judges its power, where that is not the default.
func powerWords(p model.PowerSettings) string {
	var words []string
	if p.Chemistry != "" {
		words = append(words, fmt.Sprintf("%s, %d cells", p.Chemistry, p.Cells))
	}
	if p.LowPercent != nil {
		words = append(words, fmt.Sprintf("low at %v %%", *p.LowPercent))
	}
	switch s := p.ShutdownPercent; {
	case s != nil && *s < 0:
		words = append(words, "never shuts down")
	case s != nil:
		words = append(words, fmt.Sprintf("shuts down at %v %%", *s))
	}
	if p.HoldS > 0 {
		words = append(words, fmt.Sprintf("stays up for %v s", p.HoldS))
	}
	return strings.Join(words, ", ")
}

// rulesTable shows what is sent of metrics, and their limits.
func rulesTable(list []model.MetricRule) *table.Table {
	t := table.New("METRIC", "DEAD BAND", "AT MOST", "ADAPTIVE", "ABOVE", "BELOW", "HYSTERESIS", "FOR", "SEVERITY")
	limit := func(v *float64) table.Cell {
		if v == nil {
			return table.Cell{}
		}
		return table.Value(*v)
	}
	for _, r := range list {
		t.Row(r.Metric, table.Value(r.DeadBand), secondsOf(r.AtMostS), table.Yes(r.Adaptive), limit(r.Above), limit(r.Below), table.Value(r.Hysteresis), secondsOf(r.ForS), r.Severity)
	}
	return t
}
