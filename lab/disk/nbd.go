package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The Network Block Device protocol, as much of it as QEMU needs: fixed
// newstyle negotiation, simple replies, and the commands read, write, flush.
const (
	nbdMagic      = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic   = 0x49484156454f5054 // "IHAVEOPT"
	optReplyMagic = 0x0003e889045565a9
	requestMagic  = 0x25609513
	replyMagic    = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optAbort = 2
	optGo    = 7

	repAck      = 1
	repInfo     = 3
	repErrUnsup = 1<<31 | 1

	infoExport    = 0
	infoBlockSize = 3

	exportHasFlags  = 1 << 0
	exportSendFlush = 1 << 2
	exportSendFUA   = 1 << 3

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3

	cmdFlagFUA = 1 << 0

	errIO    = 5
	errInval = 22
)

// Limits on what the other side may ask for.
const (
	maxOption  = 4096
	maxRequest = 32 << 20
)

// Serve answers one NBD client until it disconnects. A client that breaks the
// protocol is an error.
func (d *Disk) Serve(conn io.ReadWriter) error {
	c := &server{Disk: d, r: bufio.NewReader(conn), w: bufio.NewWriter(conn)}
	err := c.negotiate()
	if err == nil {
		err = c.transmit()
	}
	if errors.Is(err, errDisconnect) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

var errDisconnect = errors.New("client disconnects")

// server is one connection.
type server struct {
	*Disk
	r *bufio.Reader
	w *bufio.Writer
}

// send writes its arguments, numbers in network order, and flushes.
func (c *server) send(parts ...any) error {
	for _, p := range parts {
		if err := binary.Write(c.w, binary.BigEndian, p); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// receive reads a struct of numbers in network order.
func receive[T any](c *server) (v T, err error) {
	err = binary.Read(c.r, binary.BigEndian, &v)
	return v, err
}

func (c *server) negotiate() error {
	if err := c.send(uint64(nbdMagic), uint64(optionMagic), uint16(flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	if _, err := receive[uint32](c); err != nil { // the client's flags change nothing for us
		return fmt.Errorf("client flags: %w", err)
	}
	for {
		o, err := receive[struct {
			Magic          uint64
			Option, Length uint32
		}](c)
		if err != nil {
			return fmt.Errorf("option: %w", err)
		}
		if o.Magic != optionMagic || o.Length > maxOption {
			return fmt.Errorf("option: expected magic %#x and at most %d octets, got %#x and %d", uint64(optionMagic), maxOption, o.Magic, o.Length)
		}
		if _, err := c.r.Discard(int(o.Length)); err != nil {
			return fmt.Errorf("option %d: %w", o.Option, err)
		}
		reply := func(kind uint32, data ...any) error {
			size := 0
			for _, p := range data {
				size += binary.Size(p)
			}
			return c.send(append([]any{uint64(optReplyMagic), o.Option, kind, uint32(size)}, data...)...)
		}
		switch o.Option {
		case optGo:
			return errors.Join(
				reply(repInfo, uint16(infoExport), uint64(c.size), uint16(exportHasFlags|exportSendFlush|exportSendFUA)),
				reply(repInfo, uint16(infoBlockSize), uint32(sectorSize), uint32(blockSize), uint32(maxRequest)),
				reply(repAck),
			)
		case optAbort:
			return errors.Join(reply(repAck), errDisconnect)
		default:
			if err := reply(repErrUnsup); err != nil {
				return err
			}
		}
	}
}

type request struct {
	Magic  uint32
	Flags  uint16
	Type   uint16
	Handle uint64
	Offset uint64
	Length uint32
}

func (c *server) transmit() error {
	var buf []byte
	for {
		q, err := receive[request](c)
		if errors.Is(err, io.EOF) {
			return errDisconnect // a machine that lost power says no goodbye
		}
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		if q.Magic != requestMagic {
			return fmt.Errorf("request: expected magic %#x, got %#x", requestMagic, q.Magic)
		}
		if q.Type == cmdDisc {
			return errDisconnect
		}
		if q.Length > maxRequest {
			return fmt.Errorf("request: expected at most %d octets, got %d", maxRequest, q.Length)
		}
		if int(q.Length) > cap(buf) {
			buf = make([]byte, q.Length)
		}
		buf = buf[:q.Length]
		if q.Type == cmdWrite {
			if _, err := io.ReadFull(c.r, buf); err != nil {
				return fmt.Errorf("write of %d octets: %w", q.Length, err)
			}
		}
		status := c.do(q, buf)
		answer := []any{uint32(replyMagic), status, q.Handle}
		if q.Type == cmdRead && status == 0 {
			answer = append(answer, buf)
		}
		if err := c.send(answer...); err != nil {
			return err
		}
	}
}

// do carries out one request and returns its status.
func (c *server) do(q request, buf []byte) uint32 {
	size := uint64(c.size)
	if q.Offset > size || uint64(q.Length) > size-q.Offset || q.Offset%sectorSize != 0 || q.Length%sectorSize != 0 {
		return errInval
	}
	var err error
	switch q.Type {
	case cmdRead:
		err = c.guestRead(buf, int64(q.Offset))
	case cmdWrite:
		if err = c.guestWrite(buf, int64(q.Offset)); err == nil && q.Flags&cmdFlagFUA != 0 {
			err = c.guestFlush()
		}
	case cmdFlush:
		err = c.guestFlush()
	default:
		return errInval
	}
	if err != nil {
		return errIO
	}
	return 0
}
