package apitype

// Settings are what people may set of the gateway.
type Settings struct {
	Telemetry TelemetrySettings `json:"telemetry"`
}

// TelemetrySettings say how much telemetry is kept, and for how long. Whole weeks are
// thinned once all of them is that old. Each age is at least the one before.
type TelemetrySettings struct {
	KeepRawS     int64 `json:"keep_raw_s" example:"7776000" doc:"readings as they were made; by default 90 days"`
	KeepMinuteS  int64 `json:"keep_minute_s" example:"31536000" doc:"minutes of them, or readings where those take less; by default 365 days"`
	KeepQuarterS int64 `json:"keep_quarter_s" example:"63072000" doc:"quarters of an hour; by default two years"`
	KeepHourS    int64 `json:"keep_hour_s" example:"157680000" doc:"hours; by default five years"`
	BudgetBytes  int64 `json:"budget_bytes" example:"1073741824" doc:"octets of all files; beyond it, or a third of the file system, the oldest and finest goes before its time; by default 1 GiB"`
}

// UpdateSettings changes those that are named.
type UpdateSettings struct {
	Telemetry *UpdateTelemetrySettings `json:"telemetry,omitempty"`
}

// UpdateTelemetrySettings changes those that are named.
type UpdateTelemetrySettings struct {
	KeepRawS     *int64 `json:"keep_raw_s,omitempty" minimum:"86400" maximum:"221356800" example:"2592000" doc:"from a day to 2562 days"`
	KeepMinuteS  *int64 `json:"keep_minute_s,omitempty" minimum:"86400" maximum:"221356800"`
	KeepQuarterS *int64 `json:"keep_quarter_s,omitempty" minimum:"86400" maximum:"221356800"`
	KeepHourS    *int64 `json:"keep_hour_s,omitempty" minimum:"86400" maximum:"221356800"`
	BudgetBytes  *int64 `json:"budget_bytes,omitempty" minimum:"16777216" maximum:"1099511627776" example:"536870912" doc:"from 16 MiB to 1 TiB"`
}
