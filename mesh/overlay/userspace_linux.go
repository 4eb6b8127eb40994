package overlay

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// userspace is WireGuard in this process. It is configured in the text form of
// its cross-platform interface, without the Unix socket that usually carries
// it: nobody else is to configure it.
type userspace struct{ dev *device.Device }

func openUserspace(name string, mtu int, log *slog.Logger) (backend, error) {
	t, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("overlay: make TUN device %s: %w", name, err)
	}
	dev := device.NewDevice(t, conn.NewDefaultBind(), &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(format string, args ...any) { log.Debug("wireguard: " + fmt.Sprintf(format, args...)) },
	})
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("overlay: start WireGuard on %s: %w", name, err)
	}
	return &userspace{dev}, nil
}

func (u *userspace) configure(c wgtypes.Config) error { return u.dev.IpcSet(encode(c)) }

func (u *userspace) peers() ([]wgtypes.Peer, error) {
	text, err := u.dev.IpcGet()
	if err != nil {
		return nil, err
	}
	return decode(text)
}

func (u *userspace) shakes() ([]shake, error) {
	peers, err := u.peers()
	return shakesOf(peers), err
}

func (u *userspace) close() error {
	u.dev.Close()
	return nil
}

// encode writes a configuration in the text form.
func encode(c wgtypes.Config) string {
	var b strings.Builder
	if c.PrivateKey != nil {
		fmt.Fprintf(&b, "private_key=%s\n", hex.EncodeToString(c.PrivateKey[:]))
	}
	if c.ListenPort != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *c.ListenPort)
	}
	for _, p := range c.Peers {
		fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(p.PublicKey[:]))
		if p.Remove {
			b.WriteString("remove=true\n")
			continue
		}
		if p.Endpoint != nil {
			fmt.Fprintf(&b, "endpoint=%s\n", p.Endpoint)
		}
		if p.PersistentKeepaliveInterval != nil {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(p.PersistentKeepaliveInterval.Seconds()))
		}
		if p.ReplaceAllowedIPs {
			b.WriteString("replace_allowed_ips=true\n")
		}
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a.String())
		}
	}
	return b.String()
}

// decode reads the peers of the text form; keys it does not know are skipped.
func decode(text string) ([]wgtypes.Peer, error) {
	var peers []wgtypes.Peer
	var sec, nsec int64
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		key, value, ok := strings.Cut(s.Text(), "=")
		if !ok {
			return nil, fmt.Errorf("wireguard: expected key=value, got %d characters without", len(s.Text()))
		}
		if key == "public_key" {
			k, err := hex.DecodeString(value)
			if err != nil || len(k) != wgtypes.KeyLen {
				return nil, fmt.Errorf("wireguard: public_key: expected %d octets in hex, got %q", wgtypes.KeyLen, value)
			}
			peers = append(peers, wgtypes.Peer{PublicKey: wgtypes.Key(k)})
			sec, nsec = 0, 0
			continue
		}
		if len(peers) == 0 {
			continue // about the device
		}
		p := &peers[len(peers)-1]
		var err error
		switch key {
		case "endpoint":
			var a netip.AddrPort
			if a, err = netip.ParseAddrPort(value); err == nil {
				p.Endpoint = net.UDPAddrFromAddrPort(a)
			}
		case "last_handshake_time_sec":
			sec, err = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nsec, err = strconv.ParseInt(value, 10, 64)
		case "rx_bytes":
			p.ReceiveBytes, err = strconv.ParseInt(value, 10, 64)
		case "tx_bytes":
			p.TransmitBytes, err = strconv.ParseInt(value, 10, 64)
		case "allowed_ip":
			var n *net.IPNet
			if _, n, err = net.ParseCIDR(value); err == nil {
				p.AllowedIPs = append(p.AllowedIPs, *n)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("wireguard: %s: %w", key, err)
		}
		if sec != 0 || nsec != 0 {
			p.LastHandshakeTime = time.Unix(sec, nsec)
		}
	}
	return peers, s.Err()
}
