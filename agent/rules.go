package agent

import (
	"errors"
	"fmt"
	"time"

	"halo.internal/agent/power"
	"halo.internal/agent/weigh"
	"halo.internal/model"
)

// rules are those of the settings, as package weigh has them.
func (s Settings) rules() []weigh.Rule {
	var list []weigh.Rule
	for _, m := range s.Metrics {
		list = append(list, weigh.Rule{
			Metric: m.Metric, DeadBand: m.DeadBand, AtMost: seconds(m.AtMostS), Adaptive: m.Adaptive,
			Above: m.Above, Below: m.Below, Hysteresis: m.Hysteresis, For: seconds(m.ForS), Severity: m.Severity,
		})
	}
	return list
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// power are the settings of the board's power, with the defaults.
func (s Settings) power() power.Settings {
	p := power.Settings{Low: power.DefaultLow, Shutdown: power.DefaultShutdown, Hold: power.DefaultHold}
	if s.Power == nil {
		return p
	}
	p.Chemistry, p.Cells = s.Power.Chemistry, s.Power.Cells
	if s.Power.LowPercent != nil {
		p.Low = *s.Power.LowPercent
	}
	if s.Power.ShutdownPercent != nil {
		p.Shutdown = *s.Power.ShutdownPercent
	}
	if s.Power.HoldS > 0 {
		p.Hold = seconds(s.Power.HoldS)
	}
	return p
}

// checkRules tells what is wrong with the rules and with the settings of the power.
func (s Settings) checkRules() error {
	var errs []error
	if len(s.Metrics) > weigh.MaxRules {
		errs = append(errs, fmt.Errorf("metric: expected at most %d of them, got %d", weigh.MaxRules, len(s.Metrics)))
	}
	for i, r := range s.rules() {
		if err := r.Check(); err != nil {
			errs = append(errs, fmt.Errorf("metric[%d]: %w", i, err))
		}
	}
	return errors.Join(append(errs, s.power().Check())...)
}

// changeRules takes what a command says of rules and power over what the file has.
func (s *Settings) changeRules(c model.AgentConfig) {
	if c.Metrics != nil {
		s.Metrics = c.Metrics.Rules
	}
	if c.Power != nil {
		s.Power = c.Power
		if *c.Power == (model.PowerSettings{}) {
			s.Power = nil
		}
	}
}
