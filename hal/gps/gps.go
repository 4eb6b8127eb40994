// Package gps follows a GPS receiver: it finds it among the serial ports, finds out at
// which rate it speaks, reads NMEA 0183 of whatever constellations there are out of
// whatever else the receiver sends, judges each fix, and tells what time it is.
//
// One line: Find → Receiver (ports, rates) → Lines (octets to sentences) → Decoder
// (sentences to fixes) → Judge (what can't be is dropped, with a reason) → Listener.
package gps

import (
	"math"
	"time"
)

// Mode is how much of a position is known.
type Mode int

// Modes, numbered as in GSA sentences and gpsd's protocol.
const (
	NoFix Mode = 1
	Fix2D Mode = 2 // without altitude
	Fix3D Mode = 3
)

// Quality tells how a position was found.
type Quality string

// Qualities.
const (
	Autonomous   Quality = "autonomous"
	Differential Quality = "differential" // corrected, by SBAS or a station
	Precise      Quality = "precise"
	RTK          Quality = "rtk"
	RTKFloat     Quality = "rtk-float"
	Estimated    Quality = "estimated" // dead reckoning: no satellites were seen
)

// AccuracySource tells where an estimate of accuracy is from.
type AccuracySource string

// Sources.
const (
	FromGST  AccuracySource = "gst"  // the receiver's own statistics
	FromHDOP AccuracySource = "hdop" // dilution of precision times a typical range error
)

// Fix is what a receiver said in one cycle of itself. Numbers that it did not say are NaN.
type Fix struct {
	At      time.Time // when the cycle's first sentence came, by the monotonic clock
	Time    time.Time // UTC of the cycle; zero: not known, or not believed
	Mode    Mode
	Quality Quality // empty without a position

	Lat, Lon float64 // degrees, WGS 84
	Alt      float64 // metres above mean sea level
	Geoid    float64 // metres from the ellipsoid up to mean sea level
	Speed    float64 // m/s over ground
	Track    float64 // degrees from true north

	PDOP, HDOP, VDOP float64
	SigmaLat         float64 // metres, one standard deviation (GST)
	SigmaLon         float64
	SigmaAlt         float64
	Accuracy         float64 // metres: radius around the position that holds with 95 %
	AccuracyAlt      float64 // metres up and down that hold with 95 %
	AccuracySource   AccuracySource

	Used int // satellites
	Seen int

	simulated bool // says the receiver
}

func blank() Fix {
	n := math.NaN()
	return Fix{
		Mode: NoFix, Lat: n, Lon: n, Alt: n, Geoid: n, Speed: n, Track: n, PDOP: n, HDOP: n, VDOP: n,
		SigmaLat: n, SigmaLon: n, SigmaAlt: n, Accuracy: n, AccuracyAlt: n,
	}
}

// Typical errors of a range to a satellite (UERE), metres, one standard deviation: 7.1 is
// the budget of single-frequency receivers in Kaplan and Hegarty, Understanding GPS,
// table 7.4; the others follow from what receivers' makers state as horizontal accuracy.
// gpsd goes by 15 m at 95 %, and 3.75 m with corrections, at an HDOP of 1.
var uere = map[Quality]float64{Autonomous: 7.1, Differential: 1.9, Precise: 1.9, RTKFloat: 0.2, RTK: 0.02}

// estimate fills in the accuracy from the best that the receiver has said of it.
func (f *Fix) estimate() {
	if f.Mode == NoFix {
		return
	}
	u, ok := uere[f.Quality]
	switch {
	case f.SigmaLat > 0 && f.SigmaLon > 0: // zeros are what receivers say without knowing
		// Twice the root of both variances: 95.4 to 98.2 % (2DRMS).
		f.Accuracy, f.AccuracySource = 2*math.Hypot(f.SigmaLat, f.SigmaLon), FromGST
		if f.SigmaAlt > 0 {
			f.AccuracyAlt = 2 * f.SigmaAlt
		}
	case ok && f.HDOP > 0:
		f.Accuracy, f.AccuracySource = 2*f.HDOP*u, FromHDOP
		if f.VDOP > 0 {
			f.AccuracyAlt = 2 * f.VDOP * u
		}
	}
}

// GNSS is a constellation, numbered as in gpsd's protocol (and u-blox's).
type GNSS int

// Constellations.
const (
	GPS     GNSS = 0
	SBAS    GNSS = 1
	Galileo GNSS = 2
	BeiDou  GNSS = 3
	QZSS    GNSS = 5
	GLONASS GNSS = 6
	NavIC   GNSS = 7
)

func (g GNSS) String() string {
	switch g {
	case GPS:
		return "gps"
	case SBAS:
		return "sbas"
	case Galileo:
		return "galileo"
	case BeiDou:
		return "beidou"
	case QZSS:
		return "qzss"
	case GLONASS:
		return "glonass"
	case NavIC:
		return "navic"
	}
	return "other"
}

// Satellite is one that the receiver sees, or looks for.
type Satellite struct {
	GNSS      GNSS
	SV        int // number within the constellation
	Elevation int // degrees; -1: not known
	Azimuth   int // degrees from true north; -1: not known
	SNR       int // dB-Hz; -1: not heard
	Used      bool
}

// Sky is what a receiver sees, by constellation and number.
type Sky struct {
	At         time.Time
	Satellites []Satellite
}

// Device is a receiver.
type Device struct {
	Path  string
	Place string // where it is plugged in
	Model string // what its USB device calls itself
	Rate  int    // bit/s
}

// Pulse is one of a receiver's, at the beginning of a second.
type Pulse struct {
	Device string    // such as /dev/pps0
	Clock  time.Time // by the system clock
	Real   time.Time // what second it began, says the receiver
}

// Listener hears what a Receiver has to tell, from one goroutine. What it takes long for,
// octets are lost by.
type Listener interface {
	// Found and Gone tell of the receiver itself.
	Found(Device)
	Gone(Device, error)
	// Sentence is each valid one as it came, without its line's end.
	Sentence(string)
	// Fix is what a cycle came to. reason is why it has no position, or no time, although
	// the receiver said one; empty otherwise.
	Fix(f Fix, s Sky, reason Reason)
	// Pulse is told after the fix of the second that it began.
	Pulse(Pulse)
}
