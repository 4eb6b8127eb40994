package host

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Crowd is clients that one host forges, each with a MAC of its own, to have all
// addresses that there are.
type Crowd struct {
	host *Host

	mu     sync.Mutex // guards what follows
	leases map[MAC]Lease
}

// AsServed is how often one of a crowd asks that wants an address for each of them: as
// fast as servers take newcomers up, since more would be turned away for that alone.
const AsServed = 150 * time.Millisecond

// Crowd forges size clients, of which one asks at each such interval, in turn, until
// each has an address, or ctx ends.
func (h *Host) Crowd(ctx context.Context, size int, every time.Duration) *Crowd {
	c := &Crowd{host: h, leases: map[MAC]Lease{}}
	stop := h.Hear(c.hear)
	h.wg.Go(func() {
		defer stop()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			if mac := crowdMAC(i % size); !c.has(mac) {
				if m, err := dhcpv4.NewDiscovery(net.HardwareAddr(mac[:]), dhcpv4.WithBroadcast(true)); err == nil && c.send(mac, m) != nil {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return c
}

func crowdMAC(i int) MAC {
	m := MAC{0x02, 'C', 'R', 'W'}
	binary.BigEndian.PutUint16(m[4:], uint16(i))
	return m
}

func (c *Crowd) has(m MAC) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.leases[m]
	return ok
}

// Leases counts those who have an address.
func (c *Crowd) Leases() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.leases)
}

func (c *Crowd) send(from MAC, m *dhcpv4.DHCPv4) error {
	zero, all := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return c.host.Send(Ether(Broadcast, from, TypeIPv4, UDP4(netip.AddrPortFrom(zero, dhcpClient), netip.AddrPortFrom(all, dhcpServer), m.ToBytes())))
}

// hear takes what a server says to one of them.
func (c *Crowd) hear(f Frame) {
	m, ok := dhcp(f, dhcpClient)
	if !ok || len(m.ClientHWAddr) != len(MAC{}) {
		return
	}
	mac := MAC(m.ClientHWAddr)
	if mac != crowdMAC(int(binary.BigEndian.Uint16(mac[4:]))) {
		return
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeOffer:
		if r, err := dhcpv4.NewRequestFromOffer(m, dhcpv4.WithBroadcast(true)); err == nil {
			c.host.wg.Go(func() { _ = c.send(mac, r) }) // whoever reads must not wait for his own words
		}
	case dhcpv4.MessageTypeAck:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.leases[mac] = leaseOf(m, f.From())
	}
}

// Leave has at most so many give their addresses back.
func (c *Crowd) Leave(most int) error {
	c.mu.Lock()
	var gone []Lease
	var who []MAC
	for mac, l := range c.leases {
		if len(gone) < most {
			gone, who = append(gone, l), append(who, mac)
			delete(c.leases, mac)
		}
	}
	c.mu.Unlock()
	for i, l := range gone {
		m, err := dhcpv4.NewReleaseFromACK(l.ack)
		if err != nil {
			return err
		}
		if err := c.host.Send(Ether(l.From, who[i], TypeIPv4, UDP4(netip.AddrPortFrom(l.Address, dhcpClient), netip.AddrPortFrom(l.Server, dhcpServer), m.ToBytes()))); err != nil {
			return err
		}
	}
	return nil
}
