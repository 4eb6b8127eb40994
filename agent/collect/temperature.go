package collect

import (
	"context"
	"strconv"

	"github.com/prometheus/procfs/sysfs"
)

// temperatureHigh is where the boards of the Pi family begin to throttle.
const temperatureHigh = 80_000 // millidegrees

// temperature reads the thermal zones. QEMU's machines have none.
type temperature struct{ fs sysfs.FS }

func newTemperature(fs sysfs.FS) temperature { return temperature{fs} }

func (temperature) Name() string { return "temperature" }

func (t temperature) Collect(context.Context) ([]Reading, error) {
	zones, err := t.fs.ClassThermalZoneStats()
	if err != nil {
		return nil, err
	}
	var out []Reading
	names := make(map[string]int, len(zones))
	for _, z := range zones {
		if z.ReadErrors != nil {
			continue // a zone whose sensor is asleep
		}
		name := Label(z.Type)
		if names[name]++; names[name] > 1 {
			name += "-" + strconv.Itoa(names[name]) // two zones of one type
		}
		r := integer("system."+name+".temperature_c", "°C", 1, z.Temp/100)
		r.Urgent = z.Temp >= temperatureHigh
		out = append(out, r)
	}
	return out, nil
}
