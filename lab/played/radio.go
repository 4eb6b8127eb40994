package played

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/link"
	"halo.internal/model/dot11"
)

// radios are those of a machine, until its process ends.
type radios struct {
	made    chan net.HardwareAddr
	senders []net.HardwareAddr
}

func serveRadios(fd int) {
	conn, err := net.FileConn(os.NewFile(uintptr(fd), "air"))
	if err == nil {
		r := &radios{made: make(chan net.HardwareAddr)}
		err = link.Serve(context.Background(), conn, r, r)
	}
	fmt.Fprintln(os.Stderr, "radios:", err)
}

func (r *radios) Plug(_ string, mac net.HardwareAddr) error {
	r.made <- mac
	return nil
}

func (r *radios) Unplug(string) error { return nil }

// Watch lets the radio's interface go down at once: whoever drives it has noticed.
func (r *radios) Watch(_ string, down func()) error {
	go down()
	return nil
}

func (r *radios) Kill(string) error { return nil }

// Next returns a frame to all of one of the radios, by turns.
func (r *radios) Next() (hwsim.Frame, error) {
	for {
		select {
		case mac := <-r.made:
			r.senders = append(r.senders, mac)
		case <-time.After(10 * time.Millisecond):
			if len(r.senders) == 0 {
				continue
			}
			r.senders = append(r.senders[1:], r.senders[0])
			all := dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			const beacon = 8
			return hwsim.Frame{
				Transmitter: r.senders[0], FreqMHz: 2412, Plan: hwsim.Attempts{{Rate: 4, Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}},
				Data: dot11.AppendManagement(nil, dot11.Header{Subtype: beacon, To: all, From: dot11.MAC(r.senders[0])}),
			}, nil
		}
	}
}

// Deliver is for who listens.
func (r *radios) Deliver(net.HardwareAddr, []byte, int, int, int) error { return nil }

// Report is for who cares.
func (r *radios) Report(hwsim.Frame, bool, int, hwsim.Attempts) error { return nil }

// Close has nothing to end but the process.
func (r *radios) Close() error { return nil }
