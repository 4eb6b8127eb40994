package apitype

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// nodeSize is what a node usually takes, in octets.
const nodeSize = 900

// AppendJSON appends what json.Marshal makes of the list. Programs ask for it all the time,
// and encoding/json takes longer over it than all that finds the nodes.
func (l NodeList) AppendJSON(b []byte) (_ []byte, err error) {
	b = slices.Grow(b, 64+len(l.Items)*nodeSize)
	b = append(b, `{"items":`...)
	if l.Items == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i := range l.Items {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = l.Items[i].appendJSON(b); err != nil {
				return nil, err
			}
		}
		b = append(b, ']')
	}
	if l.Next != "" {
		if b, err = appendText(append(b, `,"next":`...), l.Next); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func (n *Node) appendJSON(b []byte) ([]byte, error) {
	o := members{b: append(b, '{')}
	o.text("id", n.ID)
	o.text("name", n.Name)
	o.text("role", string(n.Role))
	o.flag("online", n.Online)
	o.flag("revoked", n.Revoked)
	o.textIfAny("state", n.State)
	o.textIfAny("missing", n.Missing)
	o.textIfAny("board", n.Board)
	o.textIfAny("kernel", n.Kernel)
	o.textIfAny("version", n.Version)
	o.textIfAny("commit", n.Commit)
	o.textIfAny("slot", n.Slot)
	if n.Volatile {
		o.flag("volatile", true)
	}
	if n.UptimeS != 0 {
		o.name("uptime_s")
		o.b = strconv.AppendInt(o.b, n.UptimeS, 10)
	}
	o.name("boot")
	o.b = strconv.AppendUint(o.b, n.Boot, 10)
	o.addr("overlay_v4", n.OverlayV4)
	o.addr("overlay_v6", n.OverlayV6)
	if n.Clients != (netip.Prefix{}) {
		o.name("clients")
		b, err := n.Clients.AppendText(append(o.b, '"'))
		o.set(append(b, '"'), err)
	}
	o.addr("underlay", n.Underlay)
	o.text("identity_key", n.IdentityKey)
	o.text("wireguard_key", n.WireGuardKey)
	if len(n.MACs) > 0 {
		o.name("macs")
		o.texts(n.MACs)
	}
	o.text("admitted_by", n.AdmittedBy)
	o.time("joined", n.Joined)
	if n.LastSeen != nil {
		o.time("last_seen", *n.LastSeen)
	}
	o.textIfAny("serial", n.Serial)
	o.textIfAny("replaces", n.Replaces)
	if q := n.Quarantined; q != nil {
		o.name("quarantined")
		of := members{b: append(o.b, '{')}
		of.time("since", q.Since)
		of.text("reason", q.Reason)
		o.b = append(of.b, '}')
		o.fail(of.err)
	}
	if n.Position != nil {
		o.name("position")
		b, err := json.Marshal(n.Position)
		o.set(append(o.b, b...), err)
	}
	return append(o.b, '}'), o.err
}

// members are those of an object that is being written, until something fails.
type members struct {
	b     []byte
	begun bool // there is one
	err   error
}

func (o *members) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}

// name begins a member; its value is to follow.
func (o *members) name(name string) {
	if o.begun {
		o.b = append(o.b, ',')
	}
	o.begun = true
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

func (o *members) text(name, s string) {
	o.name(name)
	b, err := appendText(o.b, s)
	o.set(b, err)
}

func (o *members) textIfAny(name, s string) {
	if s != "" {
		o.text(name, s)
	}
}

func (o *members) texts(list []string) {
	o.b = append(o.b, '[')
	for i, s := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		b, err := appendText(o.b, s)
		o.set(b, err)
	}
	o.b = append(o.b, ']')
}

func (o *members) flag(name string, v bool) {
	o.name(name)
	o.b = strconv.AppendBool(o.b, v)
}

func (o *members) time(name string, t time.Time) {
	o.name(name)
	b, err := appendTime(o.b, t)
	o.set(b, err)
}

func (o *members) addr(name string, a netip.Addr) {
	o.name(name)
	b, err := appendAddr(o.b, a)
	o.set(b, err)
}

// set goes on with what was appended, or notes why it could not be.
func (o *members) set(b []byte, err error) {
	if err != nil {
		o.fail(err)
		return
	}
	o.b = b
}
