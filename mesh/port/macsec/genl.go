package macsec

import (
	"errors"
	"fmt"

	mnl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// genl is a conversation with the kernel's generic netlink family. It keeps one
// socket: the kernel fits the answers of a dump to the buffer that the one before
// was read with, and leaves out, without a word, an interface with more members
// than fit in a page.
type genl struct {
	socket *nl.SocketHandle
	family uint16
}

func dial() (*genl, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("macsec: generic netlink: %w", err)
	}
	g := &genl{socket: &nl.SocketHandle{Socket: s}, family: nl.GENL_ID_CTRL}
	err = errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv))
	if err == nil {
		g.family, err = g.find(familyName)
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("macsec: generic netlink family %s: %w", familyName, err)
	}
	return g, nil
}

// find asks for a family's number. It is the first question on the socket.
func (g *genl) find(name string) (id uint16, err error) {
	answers, err := g.request(nl.GENL_CTRL_CMD_GETFAMILY, 0, nl.NewRtAttr(nl.GENL_CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated(name)))
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		if len(a) < nl.SizeofGenlmsg {
			continue
		}
		err := attributes(a[nl.SizeofGenlmsg:], func(d *mnl.AttributeDecoder) {
			if d.Type() == nl.GENL_CTRL_ATTR_FAMILY_ID {
				id = d.Uint16()
			}
		})
		if err != nil {
			return 0, err
		}
	}
	if id == 0 {
		return 0, errors.New("expected its number, the kernel names none")
	}
	return id, nil
}

func (g *genl) close() { g.socket.Close() }

func (g *genl) request(command uint8, flags int, attributes ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(g.family), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: g.socket}
	req.AddData(&nl.Genlmsg{Command: command, Version: familyVersion})
	for _, a := range attributes {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

// read asks for the interface. An interrupted dump is asked for again.
func (i *Interface) read() (secy, error) {
	for tries := 0; ; tries++ {
		answers, err := i.genl.request(cmdGet, unix.NLM_F_DUMP)
		if errors.Is(err, nl.ErrDumpInterrupted) && tries < interruptions {
			continue
		}
		if err != nil {
			return secy{}, fmt.Errorf("ask for its state: %w", err)
		}
		for _, a := range answers {
			if len(a) < nl.SizeofGenlmsg {
				continue
			}
			s, err := parse(a[nl.SizeofGenlmsg:])
			if err != nil {
				return secy{}, err
			}
			if s.index == i.index {
				return s, nil
			}
		}
		return secy{}, errors.New("ask for its state: the kernel tells nothing of it")
	}
}

// interruptions is how often a dump may be interrupted by changes to other
// interfaces.
const interruptions = 10
