package dns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// ErrNoUplink says that no uplink has named a name server.
var ErrNoUplink = errors.New("no uplink has a name server")

// maxResolv is the longest resolv.conf that is read, in octets.
const maxResolv = 16 << 10

// ResolvConf takes the servers from a file as resolv.conf(5) describes it. It is
// read each time, so that it may change at any time. Loopback addresses are left
// out: those are where this server listens.
func ResolvConf(path string) Upstream {
	return func() ([]netip.AddrPort, error) {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoUplink
		}
		if err != nil {
			return nil, fmt.Errorf("name servers: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxResolv))
		if err != nil {
			return nil, fmt.Errorf("name servers: %w", err)
		}
		list := parseResolv(string(b))
		if len(list) == 0 {
			return nil, ErrNoUplink
		}
		return list, nil
	}
}

func parseResolv(text string) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(list) == maxServers {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil {
			continue
		}
		if a = a.Unmap(); a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			continue
		}
		list = append(list, netip.AddrPortFrom(a, paths.DNSPort))
	}
	return list
}

// Stub points the machine's own processes to the server: it writes their
// resolv.conf (paths.Resolv). Somebody must serve 127.0.0.1.
func Stub(path string) error {
	if err := atomicfile.Write(path, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return fmt.Errorf("stub resolver: %w", err)
	}
	return nil
}
