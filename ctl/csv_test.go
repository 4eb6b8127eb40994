package ctl_test

import (
	"encoding/csv"
	"regexp"
	"strings"
	"testing"
)

// spoken is a cell as people read it: an age, a duration, a size, a measure with its unit,
// so many of so many.
var spoken = regexp.MustCompile(`^'?(in )?-?\d[\d.]* (s|ms|min|h|d|B|[KMGTPE]iB|dBm|Mbit/s|MHz|%)( ago)?$|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$|^\d+ (\w+ )?of \d+|^\w+ \d+/\d+$|^\w+ \d+%$|\(\d+ times\)$`)

// TestCSVIsForPrograms: no table says in words what programs would have to read. A command
// that prints a table belongs here.
func TestCSVIsForPrograms(t *testing.T) {
	_, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	for command := range strings.Lines(`
alert list
alert show 7
api-token list
audit list
audit verify
brain assignments
boards
brain list
brain show weather
capabilities
client list
client show c-phone
context list
event list
event retention
event show 12
firewall forwardings
firewall list
firewall zones
health
job list
job show 46
join-token list
mesh batman gateways
mesh batman neighbours
mesh batman originators
mesh channel show
mesh channels
mesh doctor
mesh legal
mesh peers
mesh profile show
mesh scan
mesh status
mesh timeline
mesh topology
model interfaces
model node n01
model show
model sources
net associations
net interfaces
net neighbours
net reserve list
net wireless
power
sensor inventory n01
sensor list
sensor show 1000.i2c-76@n01
sensor template list
node capabilities n01
node interfaces n01
node list
node neighbourhood n01
node show n01
node speedtest n01
registration list
session show
setting list
speed-test list
status
telemetry coverage n01
telemetry latest
telemetry marks n01
telemetry range
telemetry samples n01
topology history
topology links
topology node n01
topology nodes
topology show
trust mac list
user list
`) {
		args := strings.Fields(command)
		if len(args) == 0 {
			continue
		}
		r := csv.NewReader(strings.NewReader(u.must(t, append(args, "-o", "csv")...)))
		r.FieldsPerRecord = -1 // a page may have several tables
		rows, err := r.ReadAll()
		if err != nil || len(rows) == 0 {
			t.Errorf("%s: %d rows, %v", args, len(rows), err)
		}
		for _, row := range rows {
			for i, cell := range row {
				if spoken.MatchString(cell) {
					t.Errorf("%s: %q in column %d of %q", args, cell, i+1, row)
				}
			}
		}
	}
}
