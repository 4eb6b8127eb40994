package model

// MetricRule is what an agent does with a metric before it is sent; the first rule that
// fits counts.
type MetricRule struct {
	Metric     string   `json:"metric" toml:"name" cbor:"1,keyasint" minLength:"1" maxLength:"97" doc:"a name, or its beginning and a *" example:"i2c.bme280.temperature_c"`
	DeadBand   float64  `json:"dead_band,omitempty" toml:"dead_band,omitempty" cbor:"2,keyasint,omitempty" minimum:"0" doc:"a value that is as close to the one sent last is not sent" example:"0.2"`
	AtMostS    float64  `json:"at_most_s,omitempty" toml:"at_most_s,omitempty" cbor:"3,keyasint,omitempty" minimum:"0" maximum:"86400" doc:"seconds after which it is sent all the same; 0: 900" example:"900"`
	Adaptive   bool     `json:"adaptive,omitempty" toml:"adaptive,omitempty" cbor:"4,keyasint,omitempty" doc:"while it is steady the time between two that are sent doubles, up to at_most_s"`
	Above      *float64 `json:"above,omitempty" toml:"above,omitempty" cbor:"5,keyasint,omitempty" doc:"beyond this it is sent at once, and is an event" example:"60"`
	Below      *float64 `json:"below,omitempty" toml:"below,omitempty" cbor:"6,keyasint,omitempty" example:"-10"`
	Hysteresis float64  `json:"hysteresis,omitempty" toml:"hysteresis,omitempty" cbor:"7,keyasint,omitempty" minimum:"0" doc:"how far it has to come back" example:"2"`
	ForS       float64  `json:"for_s,omitempty" toml:"for_s,omitempty" cbor:"8,keyasint,omitempty" minimum:"0" maximum:"86400" doc:"seconds that it has to be beyond" example:"30"`
	Severity   Severity `json:"severity,omitempty" toml:"severity,omitempty" cbor:"9,keyasint,omitempty" enum:"info,warning,error" doc:"of the event; warning where nothing is said"`
}

// MetricRules are all rules of an agent: they take the place of those that there were.
type MetricRules struct {
	Rules []MetricRule `json:"rules" cbor:"1,keyasint,omitempty" maxItems:"16"`
}

// MaxSentRules is how many rules one command carries; agent.toml may have more.
const MaxSentRules = 16

// PowerSettings are how an agent judges the board's power. What is absent is the default.
type PowerSettings struct {
	Chemistry       string   `json:"chemistry,omitempty" toml:"chemistry,omitempty" cbor:"1,keyasint,omitempty" maxLength:"16" doc:"by which the charge is estimated from the battery's voltage, where no gauge tells it: li-ion, lifepo4 or lead-acid" example:"li-ion"`
	Cells           int      `json:"cells,omitempty" toml:"cells,omitempty" cbor:"2,keyasint,omitempty" minimum:"0" maximum:"32" doc:"of the battery, in series" example:"2"`
	LowPercent      *float64 `json:"low_percent,omitempty" toml:"low_percent,omitempty" cbor:"3,keyasint,omitempty" minimum:"0" maximum:"100" doc:"charge at which it is low; 20 where nothing is said" example:"20"`
	ShutdownPercent *float64 `json:"shutdown_percent,omitempty" toml:"shutdown_percent,omitempty" cbor:"4,keyasint,omitempty" minimum:"-1" maximum:"100" doc:"charge at which the device shuts down, while the battery feeds it; below 0: never; 5 where nothing is said" example:"5"`
	HoldS           float64  `json:"hold_s,omitempty" toml:"hold_s,omitempty" cbor:"5,keyasint,omitempty" minimum:"0" maximum:"86400" doc:"seconds after a start in which it stays up; 0: 600" example:"600"`
}
