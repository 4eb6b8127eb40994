package model

import "time"

// PowerSource is what feeds a board.
type PowerSource string

// Sources.
const (
	PowerUnknown  PowerSource = "unknown" // nothing measures it
	PowerExternal PowerSource = "external"
	PowerBattery  PowerSource = "battery"
)

// ChargeBy is how the charge of a battery is known.
type ChargeBy string

// Ways.
const (
	ChargeGauge   ChargeBy = "gauge"   // a chip tells it
	ChargeVoltage ChargeBy = "voltage" // by the voltage, which is coarse
)

// PowerState is how a board is fed.
type PowerState struct {
	Source       PowerSource        `json:"source" enum:"unknown,external,battery"`
	Percent      *float64           `json:"battery_percent,omitempty" doc:"charge of the battery; absent: nothing tells it" example:"80"`
	By           ChargeBy           `json:"battery_by,omitempty" enum:"gauge,voltage" doc:"voltage: estimated from it, which is coarse"`
	Low          bool               `json:"battery_low"`
	ShuttingDown bool               `json:"shutting_down"`
	Measured     map[string]float64 `json:"measured,omitempty" doc:"by what it is of the board's power, such as battery_voltage_v; battery current is above 0 while it is charged"`
	Time         time.Time          `json:"time,omitzero" doc:"when it was measured"`
}
