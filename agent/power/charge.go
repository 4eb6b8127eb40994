package power

import (
	"fmt"
	"maps"
	"slices"
)

// point is how full a cell is at a voltage, at rest.
type point struct{ volts, percent float64 }

// curves are open-circuit voltages of one cell at 25 °C, as data sheets of such cells have
// them. Under load a cell has less, by its inner resistance, so that a charge that is told
// by voltage is coarse: ten per cent either way, and of LiFePO4, which is flat, thirty.
var curves = map[string][]point{
	"li-ion":    {{3.00, 0}, {3.45, 5}, {3.68, 10}, {3.74, 20}, {3.77, 30}, {3.79, 40}, {3.82, 50}, {3.87, 60}, {3.92, 70}, {3.98, 80}, {4.06, 90}, {4.20, 100}},
	"lifepo4":   {{2.50, 0}, {2.90, 5}, {3.00, 10}, {3.20, 20}, {3.25, 30}, {3.26, 40}, {3.27, 50}, {3.30, 60}, {3.32, 70}, {3.33, 80}, {3.35, 90}, {3.40, 100}},
	"lead-acid": {{1.750, 0}, {1.918, 10}, {1.943, 20}, {1.968, 30}, {1.993, 40}, {2.017, 50}, {2.040, 60}, {2.062, 70}, {2.083, 80}, {2.103, 90}, {2.122, 100}},
}

// Chemistries are those of which a voltage tells the charge.
func Chemistries() []string { return slices.Sorted(maps.Keys(curves)) }

// Charge is how full a battery of as many cells in series is at a voltage, in per cent.
func Charge(chemistry string, cells int, volts float64) (float64, error) {
	curve, ok := curves[chemistry]
	if !ok || cells < 1 {
		return 0, fmt.Errorf("expected a chemistry of %v and a number of cells, got %q and %d", Chemistries(), chemistry, cells)
	}
	v := volts / float64(cells)
	if v <= curve[0].volts {
		return 0, nil
	}
	for i, p := range curve[1:] {
		if before := curve[i]; v < p.volts {
			return before.percent + (v-before.volts)/(p.volts-before.volts)*(p.percent-before.percent), nil
		}
	}
	return 100, nil
}
