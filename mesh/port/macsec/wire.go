package macsec

import (
	"crypto/sha256"
	"errors"
	"fmt"

	mnl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
)

// Numbers of the kernel's interface (uapi/linux/if_macsec.h).
const (
	linkKind      = "macsec"
	familyName    = "macsec"
	familyVersion = 1

	cmdGet      = 0 // GET_TXSC
	cmdAddRxSC  = 1
	cmdDropRxSC = 2
	cmdAddTxSA  = 4
	cmdDropTxSA = 5
	cmdSetTxSA  = 6
	cmdAddRxSA  = 7
	cmdDropRxSA = 8
	cmdSetRxSA  = 9

	attrIfindex    = 1
	attrRxSC       = 2 // RXSC_CONFIG
	attrSA         = 3 // SA_CONFIG
	attrSecy       = 4
	attrTxSAs      = 5 // TXSA_LIST
	attrRxSCs      = 6 // RXSC_LIST
	attrSecyStats  = 8
	secySCI        = 1
	secyEncoding   = 2
	secyWindow     = 3
	secySuite      = 4
	secyICVLen     = 5
	secyProtect    = 6
	secyReplay     = 7
	secyOper       = 8
	secyValidate   = 9
	secyEncrypt    = 10
	secyIncludeSCI = 11
	rxscSCI        = 1
	rxscActive     = 2
	rxscSAs        = 3
	rxscStats      = 4
	saAN           = 1
	saActive       = 2
	saPN           = 3
	saKey          = 4
	saKeyID        = 5
	statDelayed    = 4 // of a channel
	statInvalid    = 6
	statLate       = 7
	statNotValid   = 8
	statNotUsing   = 9
	statUnused     = 10
	statBadTag     = 5 // of the interface
	statUnknownSCI = 6
	statNoSCI      = 7
	statOverrun    = 8

	validateStrict = 2
	icvLen         = 16
	suiteAES128    = 0x0080C20001000001
	suiteDefault   = 0x0080020001000001 // what the kernel calls the same
)

// keyID names a key in what the kernel tells; from it, nobody learns the key.
type keyID [16]byte

func identify(k sak.Key) keyID {
	h := sha256.Sum256(append([]byte("halo macsec key id 1"), k[:]...))
	return keyID(h[:16])
}

// secy is what the kernel says of an interface ("secY" in the standard).
type secy struct {
	index       int
	sci         sak.SCI
	encoding    uint8
	window      uint32
	suite       uint64
	icv         uint8
	protect     bool
	replay      bool
	operational bool
	validate    uint8
	encrypt     bool
	includeSCI  bool
	transmit    map[uint8]sa
	receive     map[sak.SCI]channel
	invalid     uint64
}

type channel struct {
	active bool
	sas    map[uint8]sa
	tally  tally
}

type sa struct {
	id     keyID
	pn     uint32
	active bool
}

// tally is what a channel has counted.
type tally struct{ late, invalid uint64 }

// suits tells whether the settings are those of linkAttributes.
func (s secy) suits(sci sak.SCI) error {
	if s.sci != sci || s.suite != suiteAES128 && s.suite != suiteDefault || s.icv != icvLen || !s.protect || !s.encrypt ||
		!s.replay || s.window != window || s.validate != validateStrict || !s.includeSCI {
		return errors.New("expected the settings that it is made with, the kernel has others")
	}
	return nil
}

// linkAttributes are those of a link to be made.
func linkAttributes(port int, name string, address proof.MAC) []*nl.RtAttr {
	sci := sak.NewSCI(address)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(linkKind))
	data := info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_MACSEC_SCI, sci[:])
	data.AddRtAttr(unix.IFLA_MACSEC_CIPHER_SUITE, nl.Uint64Attr(suiteAES128))
	data.AddRtAttr(unix.IFLA_MACSEC_ICV_LEN, nl.Uint8Attr(icvLen))
	data.AddRtAttr(unix.IFLA_MACSEC_ENCRYPT, nl.Uint8Attr(1))
	data.AddRtAttr(unix.IFLA_MACSEC_PROTECT, nl.Uint8Attr(1))
	data.AddRtAttr(unix.IFLA_MACSEC_INC_SCI, nl.Uint8Attr(1))
	data.AddRtAttr(unix.IFLA_MACSEC_REPLAY_PROTECT, nl.Uint8Attr(1))
	data.AddRtAttr(unix.IFLA_MACSEC_WINDOW, nl.Uint32Attr(window))
	data.AddRtAttr(unix.IFLA_MACSEC_VALIDATION, nl.Uint8Attr(validateStrict))
	return []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, address[:]),
		nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(port))),
		info,
	}
}

// encodingAttributes are those of a link that is to send by another association.
func encodingAttributes(an uint8) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(linkKind))
	info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_MACSEC_ENCODING_SA, nl.Uint8Attr(an))
	return info
}

func ifindexAttribute(index int) *nl.RtAttr {
	return nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(index)))
}

func channelAttribute(sci sak.SCI, create bool) *nl.RtAttr {
	a := nl.NewRtAttr(attrRxSC, nil)
	a.AddRtAttr(rxscSCI, sci[:])
	if create {
		a.AddRtAttr(rxscActive, nl.Uint8Attr(1))
	}
	return a
}

func addAttribute(a sak.Association) *nl.RtAttr {
	id := identify(a.Key)
	x := nl.NewRtAttr(attrSA, nil)
	x.AddRtAttr(saAN, nl.Uint8Attr(a.AN))
	x.AddRtAttr(saPN, nl.Uint32Attr(a.PN))
	x.AddRtAttr(saKeyID, id[:])
	x.AddRtAttr(saKey, a.Key[:])
	x.AddRtAttr(saActive, nl.Uint8Attr(1))
	return x
}

func numberAttribute(an uint8, disable bool) *nl.RtAttr {
	x := nl.NewRtAttr(attrSA, nil)
	x.AddRtAttr(saAN, nl.Uint8Attr(an))
	if disable {
		x.AddRtAttr(saActive, nl.Uint8Attr(0))
	}
	return x
}

// parse reads one answer of the kernel's. An unknown attribute is passed over; a
// known one of the wrong size is an error.
func parse(b []byte) (s secy, err error) {
	s.transmit, s.receive = make(map[uint8]sa), make(map[sak.SCI]channel)
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrIfindex:
			s.index = int(d.Uint32())
		case attrSecy:
			d.Nested(s.settings)
		case attrTxSAs:
			d.Nested(each(func(d *mnl.AttributeDecoder) error { return association(d, s.transmit) }))
		case attrRxSCs:
			d.Nested(each(s.channel))
		case attrSecyStats:
			d.Nested(func(d *mnl.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case statBadTag, statUnknownSCI, statNoSCI, statOverrun:
						s.invalid += d.Uint64()
					}
				}
				return nil
			})
		}
	})
	return s, err
}

func (s *secy) settings(d *mnl.AttributeDecoder) error {
	for d.Next() {
		switch d.Type() {
		case secySCI:
			d.Do(sized(s.sci[:]))
		case secyEncoding:
			s.encoding = d.Uint8()
		case secyWindow:
			s.window = d.Uint32()
		case secySuite:
			s.suite = d.Uint64()
		case secyICVLen:
			s.icv = d.Uint8()
		case secyProtect:
			s.protect = d.Uint8() != 0
		case secyReplay:
			s.replay = d.Uint8() != 0
		case secyOper:
			s.operational = d.Uint8() != 0
		case secyValidate:
			s.validate = d.Uint8()
		case secyEncrypt:
			s.encrypt = d.Uint8() != 0
		case secyIncludeSCI:
			s.includeSCI = d.Uint8() != 0
		}
	}
	return nil
}

func (s *secy) channel(d *mnl.AttributeDecoder) error {
	var sci sak.SCI
	c := channel{sas: make(map[uint8]sa)}
	for d.Next() {
		switch d.Type() {
		case rxscSCI:
			d.Do(sized(sci[:]))
		case rxscActive:
			c.active = d.Uint8() != 0
		case rxscSAs:
			d.Nested(each(func(d *mnl.AttributeDecoder) error { return association(d, c.sas) }))
		case rxscStats:
			d.Nested(func(d *mnl.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case statLate, statDelayed:
						c.tally.late += d.Uint64()
					case statInvalid, statNotValid, statNotUsing, statUnused:
						c.tally.invalid += d.Uint64()
					}
				}
				return nil
			})
		}
	}
	s.receive[sci] = c
	return nil
}

func association(d *mnl.AttributeDecoder, into map[uint8]sa) error {
	var an uint8
	var x sa
	for d.Next() {
		switch d.Type() {
		case saAN:
			an = d.Uint8()
		case saActive:
			x.active = d.Uint8() != 0
		case saPN:
			x.pn = d.Uint32()
		case saKeyID:
			d.Do(sized(x.id[:]))
		}
	}
	into[an] = x
	return nil
}

// each walks a list, whose attributes are numbered.
func each(f func(d *mnl.AttributeDecoder) error) func(*mnl.AttributeDecoder) error {
	return func(d *mnl.AttributeDecoder) error {
		for d.Next() {
			d.Nested(f)
		}
		return nil
	}
}

// sized stores octets, of which there must be as many.
func sized(to []byte) func([]byte) error {
	return func(b []byte) error {
		if len(b) != len(to) {
			return fmt.Errorf("expected %d octets, got %d", len(to), len(b))
		}
		copy(to, b)
		return nil
	}
}

func attributes(b []byte, f func(d *mnl.AttributeDecoder)) error {
	d, err := mnl.NewAttributeDecoder(b)
	if err != nil {
		return fmt.Errorf("macsec: attributes: %w", err)
	}
	for d.Next() {
		f(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("macsec: attributes: %w", err)
	}
	return nil
}
