package api

import (
	"database/sql"
	"net/http"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

const oddTemplate = `name = "odd"
title = "Odd"
datasheet = "none"
addresses = [0x31]
measure = [ { write = [0x00], read = 1, into = "a" } ]
[fields]
a = { in = "a", at = 0, type = "u8" }
[[value]]
name = "x_c"
title = "x"
formula = "a"
range = [0, 255]
`

// reported has a node tell its buses.
func (f *fixture) reported(node string, sensors ...model.SensorChip) {
	f.t.Helper()
	v := model.Inventory{Buses: []model.SensorBus{{Path: "i2c.1", Name: "I2C1"}}, Sensors: sensors}
	if err := f.Hardware.Report(f.t.Context(), node, time.Now().String(), v); err != nil {
		f.t.Fatal(err)
	}
}

// TestAPersonHasTheLastWordOfASensor: what was said of one on the card before is not said
// again behind it.
func TestAPersonHasTheLastWordOfASensor(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lost, mast := f.joined("lost"), f.joined("mast")
	var sensors []model.SensorChip
	for _, addr := range []uint16{0x40, 0x41, 0x44} {
		sensors = append(sensors, model.SensorChip{Bus: "i2c.1", Address: addr, State: model.SensorIgnored, Assigned: true})
	}
	f.reported(lost, sensors...)
	b := f.Hardware
	if err := b.DB.Write(t.Context(), func(tx *sql.Tx) error { return b.Adopt(t.Context(), tx, lost, mast) }); err != nil {
		t.Fatal(err)
	}
	b.Adopted(lost, mast)
	f.want(http.StatusAccepted, "POST", "/v1/sensors/i2c.1-40@mast/assignment", apitype.AssignSensor{Chip: "ina219"}, nil)
	f.want(http.StatusAccepted, "DELETE", "/v1/sensors/i2c.1-41@mast/assignment", nil, nil)
	var left string
	if err := b.DB.Read().QueryRowContext(t.Context(), `SELECT group_concat(node || ' ' || key) FROM sensor_assignments`).Scan(&left); err != nil || left != mast+" i2c.1-44" {
		t.Errorf("%q is to be said still, %v; want that of i2c.1-44 alone", left, err)
	}
}

func TestSensorsAreListedNamedAndAssigned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast, hill := f.joined("mast"), f.joined("hill")
	bme := model.SensorChip{Bus: "i2c.1", Address: 0x76, State: model.SensorOK, Chip: "bme280", Label: "bme280", Role: model.Sensor, IntervalS: 60, Values: []model.SensorValue{{Metric: "i2c.bme280.temperature_c", Unit: "°C"}}}
	f.reported(mast, bme, model.SensorChip{Bus: "i2c.1/3", Address: 0x23, State: model.SensorOffered, Candidates: []string{"bh1750"}})
	f.reported(hill, bme)
	var l apitype.SensorList
	f.want(http.StatusOK, "GET", "/v1/sensors?limit=2", nil, &l)
	if len(l.Items) != 2 || l.Next == "" {
		t.Errorf("got %+v", l)
	}
	f.want(http.StatusOK, "GET", "/v1/sensors?node=mast&state=offered", nil, &l)
	if len(l.Items) != 1 || l.Items[0].ID != "i2c.1~3-23@"+mast || l.Items[0].NodeName != "mast" || l.Items[0].Online {
		t.Errorf("got %+v", l.Items)
	}
	name, place := "air", "north side"
	f.want(http.StatusOK, "PATCH", "/v1/sensors/i2c.1-76@mast", apitype.UpdateSensor{Name: &name, Place: &place}, nil)
	var d apitype.SensorDetail
	f.want(http.StatusOK, "GET", "/v1/sensors/i2c.1-76@"+mast, nil, &d)
	if d.Name != name || d.Place != place || d.Chip != "bme280" || d.Readings == nil {
		t.Errorf("got %+v", d)
	}
	// It stays so when the node tells its buses anew, and goes over to the node that takes its place.
	f.reported(mast, bme)
	f.want(http.StatusOK, "GET", "/v1/sensors/i2c.1-76@mast", nil, &d)
	if d.Name != name {
		t.Errorf("got %+v", d)
	}
	for _, path := range []string{"/v1/sensors/i2c.1-77@mast", "/v1/sensors/x", "/v1/sensors/i2c.1-76@nobody", "/v1/sensors/@mast"} {
		f.want(http.StatusNotFound, "GET", path, nil, nil)
	}
	var inv apitype.NodeInventory
	f.want(http.StatusOK, "GET", "/v1/nodes/mast/inventory", nil, &inv)
	if inv.Node != mast || len(inv.Sensors) != 1 || inv.Time.IsZero() {
		t.Errorf("got %+v", inv)
	}
	f.want(http.StatusNotFound, "GET", "/v1/nodes/gateway/inventory", nil, nil)

	// What a node is to do waits for it.
	var j apitype.Job
	f.want(http.StatusAccepted, "POST", "/v1/sensors/i2c.1~3-23@mast/assignment", apitype.AssignSensor{Chip: "bh1750", Label: "sky", IntervalS: 5}, &j)
	if j.Kind != "sensor" || j.Node != mast {
		t.Errorf("got %+v", j)
	}
	f.want(http.StatusAccepted, "POST", "/v1/sensors/i2c.9-40@mast/assignment", apitype.AssignSensor{Chip: "ina219"}, nil)
	f.want(http.StatusUnprocessableEntity, "POST", "/v1/sensors/i2c.1-76@mast/assignment", apitype.AssignSensor{Chip: "BME"}, nil)
	f.want(http.StatusAccepted, "DELETE", "/v1/sensors/i2c.1-76@mast/assignment", nil, nil)
	f.want(http.StatusAccepted, "POST", "/v1/sensors/i2c.1-76@mast/trial", apitype.TrySensor{Chip: "odd", Text: oddTemplate}, nil)
	f.want(http.StatusAccepted, "POST", "/v1/nodes/mast/sensors/scan", apitype.ScanSensors{}, nil)

	// A neuron's component may be a sensor.
	f.want(http.StatusCreated, "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, nil)
	f.want(http.StatusOK, "PUT", "/v1/brain/neurons/n01/components/sensor/parts/sensor/i2c.1-76@mast", nil, nil)
	f.want(http.StatusUnprocessableEntity, "PUT", "/v1/brain/neurons/n01/components/sensor/parts/sensor/i2c.1-11@mast", nil, nil)
}

func TestTemplatesGoToNodes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast := f.joined("mast")
	f.reported(mast)
	var list apitype.SensorTemplateList
	f.want(http.StatusOK, "GET", "/v1/sensor-templates?limit=500", nil, &list)
	builtIn := len(list.Items)
	var found apitype.SensorTemplateFindings
	f.want(http.StatusOK, "POST", "/v1/sensor-templates/lint", apitype.LintSensorTemplate{Name: "odd", Text: strings.Replace(oddTemplate, "0x31", "0x131", 1)}, &found)
	if found.Usable || len(found.Items) == 0 || found.Items[0].Line != 4 {
		t.Errorf("got %+v", found)
	}
	f.want(http.StatusUnprocessableEntity, "PUT", "/v1/sensor-templates/odd", apitype.PutSensorTemplate{Text: "name = 1"}, nil)
	f.want(http.StatusUnprocessableEntity, "PUT", "/v1/sensor-templates/Odd", apitype.PutSensorTemplate{Text: oddTemplate}, nil)
	f.want(http.StatusOK, "PUT", "/v1/sensor-templates/odd", apitype.PutSensorTemplate{Text: oddTemplate}, nil)
	f.want(http.StatusOK, "GET", "/v1/sensor-templates?limit=500", nil, &list)
	var one apitype.SensorTemplateText
	f.want(http.StatusOK, "GET", "/v1/sensor-templates/odd", nil, &one)
	if len(list.Items) != builtIn+1 || one.Text != oddTemplate || one.Missing != 1 || one.Title != "Odd" {
		t.Errorf("got %d and %+v", len(list.Items), one.SensorTemplate)
	}
	f.want(http.StatusOK, "GET", "/v1/sensor-templates/bme280", nil, &one)
	if !one.BuiltIn || !strings.Contains(one.Text, "bme280") {
		t.Errorf("got %+v", one.SensorTemplate)
	}
	f.want(http.StatusNotFound, "GET", "/v1/sensor-templates/vl53l0x", nil, nil)
	f.want(http.StatusConflict, "DELETE", "/v1/sensor-templates/bme280", nil, nil)
	f.want(http.StatusNoContent, "DELETE", "/v1/sensor-templates/odd", nil, nil)
	f.want(http.StatusNotFound, "DELETE", "/v1/sensor-templates/odd", nil, nil)
}

func TestPowerIsWhatReadingsSay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast := f.joined("mast")
	var p apitype.NodePower
	f.want(http.StatusOK, "GET", "/v1/nodes/mast/power", nil, &p)
	if p.Power.Source != model.PowerUnknown || !p.Power.Time.IsZero() {
		t.Errorf("got %+v", p)
	}
	for metric, v := range map[string]int64{"power.battery.percent": 12, "power.battery.voltage_v": 7, "power.supply.on_battery": 1, "power.supply.battery_low": 1} {
		f.reads(mast, metric, v)
	}
	f.want(http.StatusOK, "GET", "/v1/nodes/mast/power", nil, &p)
	if p.Power.Source != model.PowerBattery || p.Power.Percent == nil || *p.Power.Percent != 12 || !p.Power.Low || p.Power.Measured["battery_voltage_v"] != 7 || p.Power.By != model.ChargeGauge {
		t.Errorf("got %+v", p)
	}
	var l apitype.NodePowerList
	f.want(http.StatusOK, "GET", "/v1/power", nil, &l)
	if len(l.Items) != 1 || l.Items[0].NodeName != "mast" {
		t.Errorf("got %+v", l)
	}
}

// TestPowerOfAMeterThatIsGone is not known; of a node that is gone it is known how it was.
func TestPowerOfAMeterThatIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast, hill := f.joined("mast"), f.joined("hill")
	before := time.Now().Add(-time.Hour)
	for _, node := range []string{mast, hill} {
		f.readsAt(node, "power.supply.on_battery", 1, before)
		f.readsAt(node, "power.battery.percent", 12, before)
	}
	f.reads(mast, "system.cpu.used_percent", 3)
	f.readsAt(hill, "radio.gone.signal_dbm", -70, before.Add(365*24*time.Hour)) // its clock was wrong, and the radio is gone since
	f.readsAt(hill, "power.battery.percent", 12, before)
	var p apitype.NodePower
	f.want(http.StatusOK, "GET", "/v1/nodes/mast/power", nil, &p)
	if p.Power.Source != model.PowerUnknown || p.Power.Percent != nil || !p.Power.Time.IsZero() {
		t.Errorf("got %+v", p)
	}
	var l apitype.NodePowerList
	f.want(http.StatusOK, "GET", "/v1/power", nil, &l)
	if len(l.Items) != 1 || l.Items[0].NodeName != "hill" || l.Items[0].Power.Source != model.PowerBattery {
		t.Errorf("got %+v", l)
	}
}
