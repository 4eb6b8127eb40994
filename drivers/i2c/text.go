package i2c

import (
	"fmt"
	"time"
)

// The tables of a template as TOML has them. docs/sensors.md explains each key.

type templateText struct {
	Name         string    `toml:"name"`
	Title        string    `toml:"title"`
	Datasheet    string    `toml:"datasheet"`
	Role         string    `toml:"role"`
	Addresses    []int64   `toml:"addresses"`
	IdleNAK      bool      `toml:"idle_nak"`
	Interval     *duration `toml:"interval"`
	MinInterval  *duration `toml:"min_interval"`
	Retries      *int64    `toml:"retries"`
	WeakIdentity bool      `toml:"weak_identity"`

	Identity    []checkText `toml:"identity"`
	Verify      []checkText `toml:"verify"`
	Reset       []stepText  `toml:"reset"`
	Calibration []stepText  `toml:"calibration"`
	Setup       []stepText  `toml:"setup"`
	Measure     []stepText  `toml:"measure"`
	Send        []stepText  `toml:"send"`

	Fields    map[string]fieldText `toml:"fields"`
	Tables    map[string][]float64 `toml:"tables"`
	Constants map[string]string    `toml:"constants"`
	Compute   map[string]string    `toml:"compute"`

	Parameter []parameterText `toml:"parameter"`
	Value     []valueText     `toml:"value"`
	Output    []outputText    `toml:"output"`
}

type checkText struct {
	Write []int64   `toml:"write"`
	Wait  *duration `toml:"wait"`
	Read  int64     `toml:"read"`
	CRC   string    `toml:"crc"`
	Mask  *int64    `toml:"mask"`
	Value *int64    `toml:"value"`
	Not   *int64    `toml:"not"`
}

type stepText struct {
	Write []any      `toml:"write"` // octets, or formulas of octets
	Wait  *duration  `toml:"wait"`  // between writing and reading, or alone
	Read  int64      `toml:"read"`
	CRC   string     `toml:"crc"`
	Into  string     `toml:"into"`
	Until *untilText `toml:"until"`
}

type untilText struct {
	Mask  *int64    `toml:"mask"`
	Value *int64    `toml:"value"`
	Not   *int64    `toml:"not"`
	Every *duration `toml:"every"`
	Limit *duration `toml:"limit"`
}

type fieldText struct {
	In   string `toml:"in"`
	At   int64  `toml:"at"`
	Type string `toml:"type"`
	Bits string `toml:"bits"`
}

type parameterText struct {
	Name    string    `toml:"name"`
	Title   string    `toml:"title"`
	Unit    string    `toml:"unit"`
	Default *float64  `toml:"default"`
	Range   []float64 `toml:"range"`
}

type valueText struct {
	Name    string    `toml:"name"`
	Title   string    `toml:"title"`
	Unit    string    `toml:"unit"`
	Formula string    `toml:"formula"`
	Valid   string    `toml:"valid"`
	Range   []float64 `toml:"range"`
	Scale   *int64    `toml:"scale"`
	Power   string    `toml:"power"`
}

type outputText struct {
	Name  string    `toml:"name"`
	Title string    `toml:"title"`
	Unit  string    `toml:"unit"`
	Range []float64 `toml:"range"`
	Whole bool      `toml:"whole"`
	Safe  *float64  `toml:"safe"`
}

// duration is written like "10ms".
type duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf(`expected a duration such as "10ms", got %.40q`, b)
	}
	*d = duration(v)
	return nil
}

// or returns the duration, or another where there is none.
func (d *duration) or(other time.Duration) time.Duration {
	if d == nil {
		return other
	}
	return time.Duration(*d)
}
