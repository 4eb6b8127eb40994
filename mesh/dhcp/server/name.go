package server

import (
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	maxLabel = 63 // octets (RFC 1035, 2.3.4)
	maxTwins = 9  // hosts that call themselves the same and still have a name
)

// hostname makes the label of a host name (RFC 1123, 2.1) of what a client
// calls itself: what can't be in one becomes hyphens, domains are cut off.
// Empty is what leaves nothing, or would be taken for something else.
func hostname(said string) string {
	said, _, _ = strings.Cut(said, ".")
	if len(said) > 255 {
		return ""
	}
	var b strings.Builder
	digits := true
	for _, c := range []byte(strings.ToLower(said)) {
		switch {
		case c >= 'a' && c <= 'z':
			digits = false
			b.WriteByte(c)
		case c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			b.WriteByte('-')
		}
	}
	label := b.String()
	if len(label) > maxLabel {
		label = label[:maxLabel]
	}
	label = strings.Trim(label, "-")
	if digits || label == "localhost" { // "7" would be an address to some
		return ""
	}
	return label
}

func isDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if hostname(label) != label || label == "" {
			return false
		}
	}
	return len(s) <= 253
}

// said returns the name that a message has for its sender: option 12, else what
// option 81 (RFC 4702) has in its place.
func said(m *dhcpv4.DHCPv4) string {
	if h := hostname(m.HostName()); h != "" {
		return h
	}
	const flags, encoded = 3, 0x04 // flags and two codes come before the name
	b := m.Options.Get(dhcpv4.OptionFQDN)
	if len(b) <= flags {
		return ""
	}
	name := b[flags:]
	if b[0]&encoded != 0 { // in labels as DNS has them
		n := int(name[0])
		if n > maxLabel || len(name) < 1+n {
			return ""
		}
		name = name[1 : 1+n]
	}
	return hostname(string(name))
}

// name returns what a client may be called, so that no two are called the same.
func (e *engine) name(c client, host string) string {
	if r, ok := e.reserved[e.reservation(c)]; ok && r.Name != "" {
		return r.Name
	}
	if host == "" {
		return ""
	}
	mayHave := func(n string) bool { return e.c.NameTaken == nil || !e.c.NameTaken(n) }
	l := e.byClient[c]
	if l != nil && (l.host != host || l.name == "") {
		l = nil
	}
	if l != nil && l.heard && !l.ended && mayHave(l.name) { // so that nobody else has it
		return l.name
	}
	taken := map[string]bool{}
	for _, r := range e.reserved {
		taken[r.Name] = true
	}
	for _, other := range e.byAddr {
		if !other.ended && other.client != c {
			taken[other.name] = true
		}
	}
	free := func(n string) bool { return !taken[n] && mayHave(n) }
	if l != nil && free(l.name) {
		return l.name
	}
	if free(host) {
		return host
	}
	for i := 2; i <= maxTwins; i++ {
		number := "-" + strconv.Itoa(i)
		n := strings.TrimRight(host[:min(len(host), maxLabel-len(number))], "-") + number
		if free(n) {
			return n
		}
	}
	return ""
}
