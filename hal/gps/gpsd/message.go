package gpsd

import (
	"encoding/json"
	"math"
	"time"

	"halo.internal/hal/gps"
)

// Messages, with the names and units of gpsd_json(5). Numbers that are not known are left out.

type versionMessage struct {
	Class   string `json:"class"`
	Release string `json:"release"`
	Rev     string `json:"rev"`
	Major   int    `json:"proto_major"`
	Minor   int    `json:"proto_minor"`
}

type errorMessage struct {
	Class   string `json:"class"`
	Message string `json:"message"`
}

type deviceMessage struct {
	Class     string  `json:"class"`
	Path      string  `json:"path"`
	Driver    string  `json:"driver,omitempty"`
	Activated any     `json:"activated,omitempty"` // a time; 0: it is gone
	Flags     int     `json:"flags,omitempty"`     // 1: a receiver of satellites
	Native    int     `json:"native"`
	Rate      int     `json:"bps,omitempty"`
	Parity    string  `json:"parity,omitempty"`
	Stop      int     `json:"stopbits,omitempty"`
	Cycle     float64 `json:"cycle,omitempty"` // seconds
}

type devicesMessage struct {
	Class   string          `json:"class"`
	Devices []deviceMessage `json:"devices"`
}

type watchMessage struct {
	Class string `json:"class"`
	policy
}

type pollMessage struct {
	Class  string            `json:"class"`
	Time   string            `json:"time"`
	Active int               `json:"active"`
	TPV    []json.RawMessage `json:"tpv"`
	GST    []json.RawMessage `json:"gst"`
	SKY    []json.RawMessage `json:"sky"`
}

type tpvMessage struct {
	Class  string   `json:"class"`
	Device string   `json:"device"`
	Status int      `json:"status,omitempty"` // 2: differential, 3: RTK, 4: RTK float, 5: dead reckoning; left out: an ordinary one
	Mode   gps.Mode `json:"mode"`
	Time   string   `json:"time,omitempty"`
	Lat    *number  `json:"lat,omitempty"`
	Lon    *number  `json:"lon,omitempty"`
	HAE    *number  `json:"altHAE,omitempty"` // metres above the ellipsoid
	MSL    *number  `json:"altMSL,omitempty"` // above mean sea level
	Alt    *number  `json:"alt,omitempty"`    // the same; older programs go by it
	EPX    *number  `json:"epx,omitempty"`    // metres, 95 %: of longitude
	EPY    *number  `json:"epy,omitempty"`    // of latitude
	EPV    *number  `json:"epv,omitempty"`    // of altitude
	Track  *number  `json:"track,omitempty"`
	Speed  *number  `json:"speed,omitempty"` // m/s
	Geoid  *number  `json:"geoidSep,omitempty"`
	EPH    *number  `json:"eph,omitempty"` // metres, 95 %: horizontal
}

type gstMessage struct {
	Class  string  `json:"class"`
	Device string  `json:"device"`
	Time   string  `json:"time,omitempty"`
	Lat    *number `json:"lat,omitempty"` // metres, one standard deviation
	Lon    *number `json:"lon,omitempty"`
	Alt    *number `json:"alt,omitempty"`
}

type skyMessage struct {
	Class      string             `json:"class"`
	Device     string             `json:"device"`
	Time       string             `json:"time,omitempty"`
	HDOP       *number            `json:"hdop,omitempty"`
	VDOP       *number            `json:"vdop,omitempty"`
	PDOP       *number            `json:"pdop,omitempty"`
	Seen       int                `json:"nSat"`
	Used       int                `json:"uSat"`
	Satellites []satelliteMessage `json:"satellites"`
}

type satelliteMessage struct {
	PRN  int      `json:"PRN"`
	El   *int     `json:"el,omitempty"`
	Az   *int     `json:"az,omitempty"`
	SS   *int     `json:"ss,omitempty"` // dB-Hz
	Used bool     `json:"used"`
	GNSS gps.GNSS `json:"gnssid"`
	SV   int      `json:"svid"`
}

type ppsMessage struct {
	Class     string `json:"class"`
	Device    string `json:"device"`
	RealSec   int64  `json:"real_sec"`
	RealNsec  int    `json:"real_nsec"`
	ClockSec  int64  `json:"clock_sec"`
	ClockNsec int    `json:"clock_nsec"`
	Precision int    `json:"precision"` // of the pulse, a power of two of seconds
}

// number is one with at most nine decimal places.
type number float64

// MarshalJSON writes it without an exponent.
func (n number) MarshalJSON() ([]byte, error) {
	return json.Marshal(math.Round(float64(n)*1e9) / 1e9)
}

func known(v float64) *number {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	n := number(v)
	return &n
}

// stamp is a time as the protocol has it; empty: none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// encode makes a message's line.
func encode(m any) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic("gpsd: " + err.Error()) // plain values, none of which is no number
	}
	return append(b, '\r', '\n')
}

func versionOf() versionMessage {
	return versionMessage{"VERSION", release, release, protoMajor, protoMinor}
}

func errorOf(text string) errorMessage { return errorMessage{"ERROR", text} }

func watchOf(p policy) watchMessage { return watchMessage{"WATCH", p} }

func deviceOf(d gps.Device, since time.Time) deviceMessage {
	return deviceMessage{Class: "DEVICE", Path: d.Path, Driver: "NMEA0183", Activated: stamp(since), Flags: 1, Rate: d.Rate, Parity: "N", Stop: 1, Cycle: 1}
}

func goneOf(d gps.Device) deviceMessage {
	return deviceMessage{Class: "DEVICE", Path: d.Path, Activated: 0}
}

var statuses = map[gps.Quality]int{gps.Differential: 2, gps.RTK: 3, gps.RTKFloat: 4, gps.Estimated: 5}

func tpvOf(path string, f gps.Fix) tpvMessage {
	m := tpvMessage{Class: "TPV", Device: path, Mode: f.Mode, Time: stamp(f.Time)}
	if f.Mode == gps.NoFix {
		return m
	}
	m.Status = statuses[f.Quality]
	m.Lat, m.Lon, m.Track, m.Speed, m.Geoid = known(f.Lat), known(f.Lon), known(f.Track), known(f.Speed), known(f.Geoid)
	m.MSL, m.Alt, m.HAE = known(f.Alt), known(f.Alt), known(f.Alt+f.Geoid)
	m.EPX, m.EPY, m.EPV, m.EPH = known(2*f.SigmaLon), known(2*f.SigmaLat), known(f.AccuracyAlt), known(f.Accuracy)
	return m
}

func placeTPV(p Static) tpvMessage {
	m := tpvMessage{Class: "TPV", Device: StaticPath, Mode: gps.Fix2D, Lat: known(p.Lat), Lon: known(p.Lon), MSL: known(p.Alt), Alt: known(p.Alt)}
	if m.Alt != nil {
		m.Mode = gps.Fix3D
	}
	return m
}

func gstOf(path string, f gps.Fix) gstMessage {
	return gstMessage{"GST", path, stamp(f.Time), known(f.SigmaLat), known(f.SigmaLon), known(f.SigmaAlt)}
}

func skyOf(path string, f gps.Fix, s gps.Sky) skyMessage {
	m := skyMessage{Class: "SKY", Device: path, Time: stamp(f.Time), HDOP: known(f.HDOP), VDOP: known(f.VDOP), PDOP: known(f.PDOP), Seen: len(s.Satellites), Used: f.Used, Satellites: []satelliteMessage{}}
	some := func(v int) *int {
		if v < 0 {
			return nil
		}
		return &v
	}
	for _, x := range s.Satellites {
		m.Satellites = append(m.Satellites, satelliteMessage{prn(x), some(x.Elevation), some(x.Azimuth), some(x.SNR), x.Used, x.GNSS, x.SV})
	}
	return m
}

// prn is a satellite's number in one list of all constellations, as gpsd_json(5) has it.
func prn(s gps.Satellite) int {
	switch s.GNSS {
	case gps.GLONASS:
		return 64 + s.SV
	case gps.QZSS:
		return 192 + s.SV
	case gps.Galileo:
		return 300 + s.SV
	case gps.BeiDou:
		return 400 + s.SV
	case gps.NavIC:
		return 500 + s.SV
	}
	return s.SV
}

func ppsOf(p gps.Pulse) ppsMessage {
	return ppsMessage{"PPS", p.Device, p.Real.Unix(), p.Real.Nanosecond(), p.Clock.Unix(), p.Clock.Nanosecond(), -20}
}
