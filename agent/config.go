package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"halo.internal/agent/sensors"
	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// Duration is a time.Duration that is written like "10s".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("expected a duration such as \"10s\", got %q", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Settings are what may be changed, in agent.toml or by flags. Zero means the
// default.
type Settings struct {
	Sample         Duration `toml:"sample,omitempty"`           // between two samples
	Send           Duration `toml:"send,omitempty"`             // between two batches
	SpoolDelay     Duration `toml:"spool_delay,omitempty"`      // an unacknowledged reading is on disk by then
	SpoolBudgetMiB int64    `toml:"spool_budget_mib,omitempty"` // of all that is on disk
	Gateway        string   `toml:"gateway,omitempty"`          // address of the stream
	GPS            *GPS     `toml:"gps,omitempty"`

	Power   *model.PowerSettings `toml:"power,omitempty"`
	Metrics []model.MetricRule   `toml:"metric,omitempty"` // what is sent of a metric, and its limits
}

// Defaults.
const (
	defaultSample = Duration(10 * time.Second)
	defaultSend   = Duration(time.Minute)
	defaultDelay  = Duration(2 * time.Minute)
	defaultBudget = 64
)

// or returns s with what is zero taken from o.
func (s Settings) or(o Settings) Settings {
	if s.Sample == 0 {
		s.Sample = o.Sample
	}
	if s.Send == 0 {
		s.Send = o.Send
	}
	if s.SpoolDelay == 0 {
		s.SpoolDelay = o.SpoolDelay
	}
	if s.SpoolBudgetMiB == 0 {
		s.SpoolBudgetMiB = o.SpoolBudgetMiB
	}
	if s.Gateway == "" {
		s.Gateway = o.Gateway
	}
	if s.GPS == nil {
		s.GPS = o.GPS
	}
	if s.Power == nil {
		s.Power = o.Power
	}
	if s.Metrics == nil {
		s.Metrics = o.Metrics
	}
	return s
}

// defaults for a role: the gateway's own agent need not wait for the overlay.
func defaults(role model.Role) Settings {
	s := Settings{Sample: defaultSample, Send: defaultSend, SpoolDelay: defaultDelay, SpoolBudgetMiB: defaultBudget, Gateway: paths.OverlayStreamURL}
	if role == model.RoleGateway {
		s.Gateway = paths.LoopbackStreamURL
	}
	return s
}

// check tells all that is wrong.
func (s Settings) check() error {
	var errs []error
	between := func(key string, d, low, high Duration) {
		if d < low || d > high {
			errs = append(errs, fmt.Errorf("%s: expected %v to %v, got %v", key, time.Duration(low), time.Duration(high), time.Duration(d)))
		}
	}
	between("sample", s.Sample, Duration(100*time.Millisecond), Duration(time.Hour))
	between("send", s.Send, s.Sample, Duration(time.Hour))
	between("spool_delay", s.SpoolDelay, max(s.Send, Duration(time.Second)), Duration(time.Hour)) // a reading waits for its batch first
	if s.SpoolBudgetMiB < 1 || s.SpoolBudgetMiB<<20 < spool.MinBudget || s.SpoolBudgetMiB > 1<<20 {
		errs = append(errs, fmt.Errorf("spool_budget_mib: expected 1 to %d, got %d", 1<<20, s.SpoolBudgetMiB))
	}
	if u, err := url.Parse(s.Gateway); err != nil || u.Scheme != "ws" || u.Host == "" {
		errs = append(errs, fmt.Errorf("gateway: expected ws://host:port/path, got %q", s.Gateway))
	}
	if s.GPS != nil {
		errs = append(errs, s.GPS.check())
	}
	errs = append(errs, s.checkRules())
	return errors.Join(errs...)
}

const maxConfig = 64 << 10

// readSettings reads agent.toml strictly; no file is no setting.
func readSettings(file string) (Settings, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, err
	}
	if len(b) > maxConfig {
		return Settings{}, fmt.Errorf("%s: expected at most %d octets, got %d", file, maxConfig, len(b))
	}
	return parseSettings(file, b)
}

func parseSettings(name string, b []byte) (Settings, error) {
	var s Settings
	err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(&s)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return Settings{}, fmt.Errorf("%s:%d: unknown key %q; expected sample, send, spool_delay, spool_budget_mib, gateway, [gps] with port, rate, share and [gps.static] with lat, lon and alt_m, [power] with chemistry, cells, low_percent, shutdown_percent and hold_s, or [[metric]] with name, dead_band, at_most_s, adaptive, above, below, hysteresis, for_s and severity", name, row, strings.Join(strict.Errors[0].Key(), "."))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := bad.Position()
		return Settings{}, fmt.Errorf("%s:%d:%d: %s", name, row, col, bad.Error())
	}
	if err != nil {
		return Settings{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// settingsOf are the settings that a command names.
func settingsOf(c model.AgentConfig) Settings {
	seconds := func(s float64) Duration { return Duration(s * float64(time.Second)) }
	return Settings{Sample: seconds(c.SampleS), Send: seconds(c.SendS), SpoolDelay: seconds(c.SpoolDelayS), SpoolBudgetMiB: c.SpoolBudgetMiB}
}

// told are the settings as a command's answer tells them.
func (s Settings) told() model.AgentConfig {
	c := model.AgentConfig{
		SampleS: time.Duration(s.Sample).Seconds(), SendS: time.Duration(s.Send).Seconds(),
		SpoolDelayS: time.Duration(s.SpoolDelay).Seconds(), SpoolBudgetMiB: s.SpoolBudgetMiB, Power: s.Power,
	}
	if s.GPS != nil && s.GPS.Static != nil {
		p := s.GPS.Static
		c.Position = &model.ConfigPosition{Lat: p.Lat, Lon: p.Lon, AltM: p.Alt}
	}
	if s.Metrics != nil {
		c.Metrics = &model.MetricRules{Rules: s.Metrics}
	}
	return c
}

// configure writes what a command has changed to agent.toml, from which the next start
// takes it, and returns what is in use from then on. What the file had is kept, and
// its comments are not; one that was wrong is written anew.
func (c Config) configure(change model.AgentConfig) (Settings, error) {
	name := paths.Dir(c.path(paths.State)).File(paths.AgentTOML)
	file, err := readSettings(name)
	if err != nil {
		file = Settings{}
	}
	file = settingsOf(change).or(file)
	if p := change.Position; p != nil {
		g := GPS{}
		if file.GPS != nil {
			g = *file.GPS
		}
		g.Static = nil
		if !p.None {
			g.Static = &Static{Lat: p.Lat, Lon: p.Lon, Alt: p.AltM}
		}
		if file.GPS = &g; g == (GPS{}) {
			file.GPS = nil
		}
	}
	file.changeRules(change)
	all := c.Flags.or(file).or(defaults(c.Role))
	if err := all.check(); err != nil {
		return Settings{}, model.RefuseCommand(model.CodeInvalid, "%v", err)
	}
	b, err := toml.Marshal(file)
	if err != nil {
		return Settings{}, err
	}
	return all, atomicfile.Write(name, b, 0o644)
}

// Config is what the agent stands on.
type Config struct {
	Root   string     // prefix of HALO's own files; empty on a board
	Role   model.Role // of the image
	BootID string     // the kernel's name for this start of the machine
	Flags  Settings   // of the command line: before those of the file
	GPSD   []string   // addresses at which the receiver is shared in gpsd's protocol; none: it is not
	// Buses lists the I2C buses; nil: those of the machine.
	Buses func() ([]sensors.Bus, error)
	Log   *slog.Logger
}

func (c Config) path(p string) string { return filepath.Join(c.Root, p) }

// settings joins flags, file and defaults. A file that is wrong does not keep
// a node from being seen: what it says is left out, and the error is told.
func (c Config) settings() (Settings, error) {
	base := defaults(c.Role)
	file, err := readSettings(paths.Dir(c.path(paths.State)).File(paths.AgentTOML))
	s := c.Flags.or(file).or(base)
	if err == nil {
		if err = s.check(); err == nil {
			return s, nil
		}
	}
	return c.Flags.or(base), err
}

// Machine returns the configuration of the board that this process runs on.
func Machine(flags Settings, log *slog.Logger) (Config, error) {
	if err := flags.or(defaults(model.RoleNode)).check(); err != nil {
		return Config{}, fmt.Errorf("command line: %w", err)
	}
	role, err := model.ImageRole(paths.ImageInfo)
	if err != nil {
		return Config{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Config{}, fmt.Errorf("boot ID: %w", err)
	}
	gpsd := []string{fmt.Sprintf(":%d", paths.GPSDPort)}
	return Config{GPSD: gpsd, Role: role, BootID: strings.TrimSpace(string(boot)), Flags: flags, Log: log}, nil
}
