package bus

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"

	"halo.internal/lab/machine"
)

// SteeringPort is the name of the serial port by which a machine changes its own
// board: for tests that run in a machine and set what they are to measure.
const SteeringPort = "halo.board"

// answer is what a change gets.
type answer struct {
	Error  string `json:"error,omitempty"`
	Status Status `json:"status"`
}

// Steering is the part of that port: changes as JSON, each of which is answered by the
// status behind it. The machine needs QEMU's virtio-serial-pci.
func (b *Board) Steering() machine.Part {
	return machine.Part{Device: "virtserialport,name=" + SteeringPort, Plug: func(conn net.Conn) error {
		return b.run(conn, func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			in, out := json.NewDecoder(conn), json.NewEncoder(conn)
			for {
				var c Change
				if err := in.Decode(&c); err != nil {
					return nil // the machine has ended
				}
				var a answer
				if c != (Change{}) { // an empty one only asks
					if err := b.Apply(c); err != nil {
						a.Error = err.Error()
					}
				}
				a.Status = b.Status()
				if err := out.Encode(a); err != nil {
					return nil
				}
			}
		})
	}}
}

// Remote is the other end of the port.
type Remote struct {
	in  *json.Decoder
	out *json.Encoder
}

// NewRemote speaks over the opened port.
func NewRemote(port io.ReadWriter) *Remote {
	return &Remote{json.NewDecoder(port), json.NewEncoder(port)}
}

// Apply makes a change, none if it is empty, and returns the status.
func (r *Remote) Apply(c Change) (Status, error) {
	if err := r.out.Encode(c); err != nil {
		return Status{}, err
	}
	var a answer
	if err := r.in.Decode(&a); err != nil {
		return Status{}, err
	}
	if a.Error != "" {
		return a.Status, errors.New(a.Error)
	}
	return a.Status, nil
}
