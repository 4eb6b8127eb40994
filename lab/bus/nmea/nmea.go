// Package nmea plays a GPS receiver: sentences of NMEA 0183 on a line, about a
// position that walks, with the host's time. What the receiver sees, and what is wrong
// with it, can be changed while it runs.
package nmea

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

// Receiver is a receiver of GPS and GLONASS.
type Receiver struct {
	mu sync.Mutex // guards what follows
	s  Status
	at time.Time // when the position was computed last
}

// Status is what the receiver sees, and what it has sent.
type Status struct {
	Fix     Fix     `json:"fix"`
	Lat     float64 `json:"lat_deg"`
	Lon     float64 `json:"lon_deg"`
	Alt     float64 `json:"alt_m" doc:"above mean sea level"`
	Speed   float64 `json:"speed_mps"`
	Course  float64 `json:"course_deg" doc:"clockwise from north"`
	Turn    float64 `json:"turn_dps" doc:"degrees by which the course changes each second"`
	RateHz  int     `json:"rate_hz" doc:"fixes a second"`
	Ahead   float64 `json:"ahead_s" doc:"of the host's time; negative: behind"`
	Noise   bool    `json:"noise,omitempty" doc:"the line carries octets at random instead, as with a wrong rate"`
	Silent  bool    `json:"silent,omitempty" doc:"the cable is pulled out"`
	Sent    int     `json:"sent" doc:"sentences"`
	Dropped int     `json:"dropped" doc:"fixes that nobody read in time"`
}

// Fix is how well the receiver knows where it is.
type Fix string

// Kinds of fixes.
const (
	NoFix Fix = "none"
	Fix2D Fix = "2d"
	Fix3D Fix = "3d"
)

// Change is what of Status is to be another; nil stays as it is.
type Change struct {
	Fix    *Fix     `json:"fix,omitempty"`
	Lat    *float64 `json:"lat_deg,omitempty"`
	Lon    *float64 `json:"lon_deg,omitempty"`
	Alt    *float64 `json:"alt_m,omitempty"`
	Speed  *float64 `json:"speed_mps,omitempty"`
	Course *float64 `json:"course_deg,omitempty"`
	Turn   *float64 `json:"turn_dps,omitempty"`
	RateHz *int     `json:"rate_hz,omitempty"`
	Ahead  *float64 `json:"ahead_s,omitempty"`
	Noise  *bool    `json:"noise,omitempty"`
	Silent *bool    `json:"silent,omitempty"`
}

// New returns a receiver that walks in a circle of some thirty metres.
func New() *Receiver {
	return &Receiver{s: Status{Fix: Fix3D, Lat: 47.3769, Lon: 8.5417, Alt: 408, Speed: 1, Turn: 2, RateHz: 1}}
}

// Bounds of what may be set.
const (
	maxSpeed = 500.0 // m/s
	maxRate  = 10
)

// Apply changes what the receiver sees.
func (r *Receiver) Apply(c Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.walk(time.Now())
	s := r.s
	var errs []error
	number := func(name string, to, v *float64, low, high float64) {
		if v == nil {
			return
		}
		if !(*v >= low && *v <= high) {
			errs = append(errs, fmt.Errorf("%s: expected %v to %v, got %v", name, low, high, *v))
			return
		}
		*to = *v
	}
	number("lat", &s.Lat, c.Lat, -90, 90)
	number("lon", &s.Lon, c.Lon, -180, 180)
	number("alt", &s.Alt, c.Alt, -1000, 20000)
	number("speed", &s.Speed, c.Speed, 0, maxSpeed)
	number("course", &s.Course, c.Course, 0, 360)
	number("turn", &s.Turn, c.Turn, -360, 360)
	number("ahead", &s.Ahead, c.Ahead, -1e10, 1e10)
	if c.Fix != nil {
		switch s.Fix = *c.Fix; s.Fix {
		case NoFix, Fix2D, Fix3D:
		default:
			errs = append(errs, fmt.Errorf("fix: expected none, 2d or 3d, got %.20q", s.Fix))
		}
	}
	if c.RateHz != nil {
		if s.RateHz = *c.RateHz; s.RateHz < 1 || s.RateHz > maxRate {
			errs = append(errs, fmt.Errorf("rate: expected 1 to %d fixes a second, got %d", maxRate, s.RateHz))
		}
	}
	if c.Noise != nil {
		s.Noise = *c.Noise
	}
	if c.Silent != nil {
		s.Silent = *c.Silent
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.s = s
	return nil
}

// Status says what the receiver sees at present.
func (r *Receiver) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.walk(time.Now())
	return r.s
}

// earth is the length of a degree of latitude, in metres.
const earth = 111195

// walk moves the position on to a time, in steps of at most a tenth of a second, so
// that a curve is one.
func (r *Receiver) walk(now time.Time) {
	const step = 0.1
	seconds := now.Sub(r.at).Seconds()
	if r.at.IsZero() || seconds < 0 || seconds > 60 {
		seconds = 0 // nobody looked for so long
	}
	r.at = now
	s := &r.s
	for ; seconds > 0; seconds -= step {
		d := min(seconds, step)
		s.Course = math.Mod(s.Course+s.Turn*d+360, 360)
		north, east := math.Cos(s.Course*math.Pi/180)*s.Speed*d, math.Sin(s.Course*math.Pi/180)*s.Speed*d
		s.Lat = min(max(s.Lat+north/earth, -89.999), 89.999)
		s.Lon += east / (earth * math.Cos(s.Lat*math.Pi/180))
		s.Lon = math.Mod(s.Lon+540, 360) - 180
	}
}

// Serve writes to the serial line until it is gone or ctx ends, and closes it.
func (r *Receiver) Serve(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if c, ok := conn.(*net.UnixConn); ok {
		// A receiver does not keep what nobody reads.
		if err := c.SetWriteBuffer(2048); err != nil {
			return err
		}
	}
	gone := make(chan struct{})
	go func() { // what receivers are told
		_, _ = io.Copy(io.Discard, conn)
		close(gone)
	}()
	for {
		now := time.Now()
		period := r.period()
		text := r.epoch(now)
		if len(text) > 0 {
			if err := conn.SetWriteDeadline(now.Add(period / 2)); err != nil {
				return nil // it is closed: the machine has ended
			}
			_, err := conn.Write(text)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				r.mu.Lock()
				r.s.Dropped++
				r.mu.Unlock()
			case err != nil:
				<-gone
				return nil // the machine has ended
			}
		}
		select {
		case <-gone:
			return nil
		case <-ctx.Done():
			<-gone
			return nil
		case <-time.After(time.Until(now.Truncate(period).Add(period))):
		}
	}
}

func (r *Receiver) period() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Second / time.Duration(r.s.RateHz)
}
