package control

import (
	"context"
	"fmt"
	"net/http"

	"halo.internal/lab/bus"
)

// Devices is the answer to GET /v1/devices: what is wired to each machine.
type Devices struct {
	Machines []MachineDevices `json:"machines"`
}

// MachineDevices is what is wired to a machine.
type MachineDevices struct {
	Machine string `json:"machine"`
	bus.Status
}

// DeviceChange is the body of PUT /v1/devices.
type DeviceChange struct {
	Machine string     `json:"machine"`
	Change  bus.Change `json:"change"`
}

func (s *server) handleDevices(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/devices", func(w http.ResponseWriter, _ *http.Request) {
		var d Devices
		for _, m := range s.net.Machines() {
			if m.Board != nil {
				d.Machines = append(d.Machines, MachineDevices{m.Name(), m.Board.Status()})
			}
		}
		answer(w, d, nil)
	})
	mux.HandleFunc("PUT /v1/devices", body(func(c DeviceChange) error {
		m, err := s.net.Machine(c.Machine)
		if err != nil {
			return err
		}
		if m.Board == nil {
			return fmt.Errorf("%s has no devices: halo-lab up --devices all gives machines some", c.Machine)
		}
		if err := m.Board.Apply(c.Change); err != nil {
			return fmt.Errorf("%s: %w", c.Machine, err)
		}
		return nil
	}))
}

// Devices asks for what is wired to all machines.
func (c *Client) Devices(ctx context.Context) (d Devices, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/devices", nil, &d)
	return d, err
}

// ChangeDevice changes something about a machine's devices.
func (c *Client) ChangeDevice(ctx context.Context, d DeviceChange) error {
	return c.do(ctx, http.MethodPut, "/v1/devices", d, nil)
}
