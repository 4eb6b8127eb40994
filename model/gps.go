package model

import "time"

// PositionSource tells how a device knows where it is.
type PositionSource string

// Sources.
const (
	PositionGPS    PositionSource = "gps"
	PositionStatic PositionSource = "static" // set by people, for devices without a receiver, and while it knows nothing
)

// Position is where a device is.
type Position struct {
	Source    PositionSource `json:"source" enum:"gps,static" example:"gps"`
	Lat       float64        `json:"lat" minimum:"-90" maximum:"90" example:"48.1173" doc:"degrees north, WGS 84"`
	Lon       float64        `json:"lon" minimum:"-180" maximum:"180" example:"11.516667" doc:"degrees east"`
	AltM      *float64       `json:"alt_m,omitempty" example:"520.5" doc:"above mean sea level"`
	AccuracyM float64        `json:"accuracy_m,omitempty" doc:"radius that holds with 95 %"`
	Time      time.Time      `json:"time,omitzero" doc:"when it was measured, by the device's clock"`
}

// Valid tells whether it is a place on Earth.
func (p Position) Valid() bool {
	return (p.Source == PositionGPS || p.Source == PositionStatic) && p.Lat >= -90 && p.Lat <= 90 && p.Lon >= -180 && p.Lon <= 180 && // not a number is neither
		p.AccuracyM >= 0 && p.AccuracyM <= 1e7 && (p.AltM == nil || *p.AltM >= -1e5 && *p.AltM <= 1e6)
}

// GPSState is how far a device has come with its receiver.
type GPSState string

// States.
const (
	GPSOff       GPSState = "off"       // by its settings
	GPSSearching GPSState = "searching" // no receiver was found yet
	GPSNoFix     GPSState = "no-fix"
	GPSFix2D     GPSState = "2d"
	GPSFix3D     GPSState = "3d"
)

// GPSStatus is what halo-agent knows of a receiver.
type GPSStatus struct {
	State      GPSState          `json:"state" enum:"off,searching,no-fix,2d,3d"`
	Detail     string            `json:"detail,omitempty" doc:"why there is no receiver, or what of it was dropped last"`
	Device     string            `json:"device,omitempty" doc:"serial port, such as /dev/ttyACM0"`
	Model      string            `json:"model,omitempty" doc:"what the receiver's USB device calls itself"`
	Rate       int               `json:"rate,omitempty" doc:"bit/s"`
	Position   *Position         `json:"position,omitempty" doc:"the receiver's, or else the one that was set"`
	Quality    string            `json:"quality,omitempty" enum:"autonomous,differential,precise,rtk,rtk-float,estimated"`
	AccuracyBy string            `json:"accuracy_by,omitempty" enum:"gst,hdop" doc:"by the receiver's own statistics, or dilution times a typical range error"`
	HDOP       float64           `json:"hdop,omitempty"`
	SpeedMPS   float64           `json:"speed_mps,omitempty"`
	TrackDeg   *float64          `json:"track_deg,omitempty" doc:"from true north"`
	Used       int               `json:"used" doc:"satellites"`
	Seen       int               `json:"seen" doc:"satellites"`
	Time       time.Time         `json:"time,omitzero" doc:"what the receiver said last; absent while it makes no sense"`
	PPS        string            `json:"pps,omitempty" doc:"where its pulses come in, if they are used"`
	Sentences  uint64            `json:"sentences"`
	Damaged    uint64            `json:"damaged" doc:"sentences with a wrong checksum, or wrong contents"`
	Noise      uint64            `json:"noise" doc:"octets between sentences"`
	Dropped    map[string]uint64 `json:"dropped,omitempty" doc:"fixes, and times, that were not believed, by reason"`
	Searched   []string          `json:"searched,omitempty" doc:"ports at which nobody spoke NMEA"`
	Shared     string            `json:"shared" enum:"clients,device,nobody" doc:"whom gpsd's protocol is spoken with"`
	Sharing    int               `json:"sharing,omitempty" doc:"programs that listen to it"`
}

// GPSTime is what time it is by a receiver that is believed: halo-agent hands it to
// halo-mesh (PUT /v1/time/gps).
type GPSTime struct {
	Time       time.Time `json:"time"`
	BootNS     int64     `json:"boot_ns" doc:"when it was that: nanoseconds since the start of the machine (CLOCK_BOOTTIME)"`
	AccuracyMS int64     `json:"accuracy_ms" doc:"how far it may be off"`
	Pulse      bool      `json:"pulse,omitempty" doc:"the receiver's pulse told when the second began"`
}
