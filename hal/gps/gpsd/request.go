package gpsd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// policy is what a client has asked for with WATCH.
type policy struct {
	Enable bool   `json:"enable"`
	JSON   bool   `json:"json"`
	NMEA   bool   `json:"nmea"`
	Raw    int    `json:"raw"`
	Scaled bool   `json:"scaled"`
	Timing bool   `json:"timing"`
	Split  bool   `json:"split24"`
	PPS    bool   `json:"pps"`
	Device string `json:"device,omitempty"`
}

// request is one of a line: ?WATCH={…}; or ?POLL;
type request struct {
	name string
	args []byte // JSON; nil: none
}

const maxRequests = 16 // on a line

// parse reads a line. Requests end with semicolons, or with the line.
func parse(line []byte) (list []request, err error) {
	for rest := bytes.TrimSpace(line); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if rest[0] == ';' {
			rest = rest[1:]
			continue
		}
		if rest[0] != '?' {
			//lint:ignore ST1005 gpsd's words, which programs show
			return list, fmt.Errorf("Unrecognized request '%.32s'", printable(rest))
		}
		if len(list) == maxRequests {
			return list, fmt.Errorf("expected at most %d requests on a line", maxRequests)
		}
		rest = rest[1:]
		end := bytes.IndexAny(rest, "=;")
		if end < 0 {
			end = len(rest)
		}
		r := request{name: string(bytes.TrimSpace(rest[:end]))}
		rest = rest[end:]
		if len(rest) > 0 && rest[0] == '=' {
			d := json.NewDecoder(bytes.NewReader(rest[1:]))
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil || len(raw) == 0 || raw[0] != '{' {
				return list, fmt.Errorf("expected ?%.16s={…};, got '%.32s'", printable([]byte(r.name)), printable(rest))
			}
			r.args, rest = raw, rest[1+d.InputOffset():]
		}
		list = append(list, r)
	}
	return list, nil
}

// printable keeps a client's octets out of others' terminals.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, string(b[:min(len(b), 64)]))
}

// answer obeys a line of a client and returns what it is told.
func (s *Server) answer(c *client, line []byte) (out [][]byte) {
	list, err := parse(line)
	for _, r := range list {
		out = append(out, s.obey(c, r)...)
	}
	if err != nil {
		out = append(out, encode(errorOf(err.Error())))
	}
	return out
}

func (s *Server) obey(c *client, r request) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch strings.ToUpper(r.name) {
	case "VERSION":
		return [][]byte{encode(versionOf())}
	case "DEVICES":
		return [][]byte{encode(s.devices())}
	case "DEVICE":
		if s.device == nil {
			return [][]byte{encode(errorOf("Can't perform DEVICE configuration, no devices attached."))}
		}
		// Speed and mode are found out here; nobody else sets them.
		return [][]byte{encode(deviceOf(*s.device, s.since))}
	case "POLL":
		return [][]byte{encode(s.poll())}
	case "WATCH":
		if r.args != nil {
			p := c.policy
			p.Enable = true // what names none asks for it
			if err := json.Unmarshal(r.args, &p); err != nil || len(p.Device) > 128 {
				return [][]byte{encode(errorOf("Invalid WATCH: " + printable([]byte(fmt.Sprint(err)))))}
			}
			// Whoever asks for no form at all gets JSON, as from gpsd.
			if p.Enable && !p.JSON && !p.NMEA && p.Raw == 0 && !p.PPS {
				p.JSON = true
			}
			c.policy = p
		}
		out := [][]byte{encode(s.devices()), encode(watchOf(c.policy))}
		if c.watches(watchJSON) && s.device == nil && s.tpv != nil {
			out = append(out, s.tpv)
		}
		return out
	}
	return [][]byte{encode(errorOf("Unrecognized request '" + printable([]byte("?"+r.name)) + "'"))}
}

// devices lists the receiver. mu is held.
func (s *Server) devices() devicesMessage {
	m := devicesMessage{Class: "DEVICES", Devices: []deviceMessage{}}
	switch {
	case s.device != nil:
		m.Devices = append(m.Devices, deviceOf(*s.device, s.since))
	case s.static != nil:
		m.Devices = append(m.Devices, deviceMessage{Class: "DEVICE", Path: StaticPath, Driver: StaticPath})
	}
	return m
}

// poll returns the last of all. mu is held.
func (s *Server) poll() pollMessage {
	m := pollMessage{Class: "POLL", Time: stamp(time.Now()), TPV: []json.RawMessage{}, GST: []json.RawMessage{}, SKY: []json.RawMessage{}}
	if s.device != nil {
		m.Active = 1
	}
	for _, x := range []struct {
		list *[]json.RawMessage
		last []byte
	}{{&m.TPV, s.tpv}, {&m.GST, s.gst}, {&m.SKY, s.sky}} {
		if x.last != nil {
			*x.list = append(*x.list, bytes.TrimSpace(x.last))
		}
	}
	return m
}
