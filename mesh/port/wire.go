package port

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/proof"
	"halo.internal/model/paths"
)

// Bounds of what one port is listened to. A network of 64 members needs a few
// dozen frames a second in its busiest moment; the rest is for strangers, so
// that a flood of theirs, of which each frame costs one hash, neither takes the
// processor nor keeps members' frames waiting longer than a handshake does.
const (
	ethernetHeader = 14
	framesASecond  = 4096
	framesWaiting  = 256
)

// received is a frame that came in.
type received struct {
	from, to proof.MAC
	payload  []byte
}

// wire is a port's raw socket for proofs.
type wire struct {
	conn *packet.Conn
	mac  proof.MAC
	in   chan received // closed when reading ends
	err  error         // why, once in is closed
}

// proofs takes frames of that EtherType that came in (packet(7), PACKET_OUTGOING).
var proofs = sync.OnceValue(func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: paths.EtherTypeProof, SkipTrue: 1},
		bpf.RetConstant{Val: uint32(ethernetHeader + proof.MaxFrame + 1)},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic("port: filter: " + err.Error()) // it is constant
	}
	return raw
})

// listen opens the socket. The reader ends when ctx does, or on an error. A bridge
// takes what comes in at its ports before sockets for one protocol see it, but not
// before those for all.
func listen(ctx context.Context, index int, name string, mac proof.MAC, bridged bool) (*wire, error) {
	var c *packet.Config
	protocol := paths.EtherTypeProof
	if bridged {
		protocol, c = unix.ETH_P_ALL, &packet.Config{Filter: proofs()}
	}
	conn, err := packet.Listen(&net.Interface{Index: index, Name: name, HardwareAddr: mac[:]}, packet.Raw, protocol, c)
	if err != nil {
		return nil, fmt.Errorf("listen on port %s: %w", name, err)
	}
	w := &wire{conn: conn, mac: mac, in: make(chan received, framesWaiting)}
	go w.read(ctx)
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // wakes the reader; there is nothing to flush
	return w, nil
}

// read takes no more than the budget from the socket: the kernel's queue bounds
// and drops the rest, at no cost to the processor.
func (w *wire) read(ctx context.Context) {
	defer close(w.in)
	buf := make([]byte, ethernetHeader+proof.MaxFrame+1) // one octet more, to see what is too long
	window, left := time.Now(), framesASecond
	for {
		n, _, err := w.conn.ReadFrom(buf)
		if err != nil {
			w.err = err
			return
		}
		if time.Since(window) >= time.Second {
			window, left = time.Now(), framesASecond
		}
		if left--; left < 0 && !sleep(ctx, time.Second-time.Since(window)) {
			return
		}
		if n < ethernetHeader {
			continue
		}
		select {
		case w.in <- received{from: proof.MAC(buf[6:12]), to: proof.MAC(buf[0:6]), payload: append([]byte(nil), buf[ethernetHeader:n]...)}:
		case <-ctx.Done():
			return
		}
	}
}

func (w *wire) send(f proof.Frame) error {
	b := make([]byte, 0, ethernetHeader+len(f.Payload))
	b = append(b, f.To[:]...)
	b = append(b, w.mac[:]...)
	b = binary.BigEndian.AppendUint16(b, paths.EtherTypeProof)
	b = append(b, f.Payload...)
	_, err := w.conn.WriteTo(b, &packet.Addr{HardwareAddr: f.To[:]})
	return err
}
