package send

import (
	"io"
	"net"
	"net/http/httptrace"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

// TestWhatIsSentInOneGoIsOneSegment, as the kernel counts those with data.
func TestWhatIsSentInOneGoIsOneSegment(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var k cork
	httptrace.ContextClientTrace(k.traced(t.Context())).GotConn(httptrace.GotConnInfo{Conn: conn})
	say := func() uint32 {
		before := segments(t, conn)
		for range 3 {
			if _, err := conn.Write([]byte("a message")); err != nil {
				t.Fatal(err)
			}
		}
		return segments(t, conn) - before
	}
	if n := say(); n != 3 {
		t.Errorf("without a cork: got %d segments, want 3", n)
	}
	before := segments(t, conn)
	k.hold()
	if n := say(); n != 0 {
		t.Errorf("held back: got %d segments, want none", n)
	}
	k.letGo()
	if n := segments(t, conn) - before; n != 1 {
		t.Errorf("let go: got %d segments, want one", n)
	}
	(&cork{}).hold() // one that has no connection does nothing
}

func segments(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = info.Data_segs_out
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTheCorkHasTheStreamsConnection, as it is dialled.
func TestTheCorkHasTheStreamsConnection(t *testing.T) {
	var k cork
	conn, resp, err := websocket.Dial(k.traced(t.Context()), newGateway(t).url, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body // it is the connection's
	defer conn.CloseNow()
	if k.raw == nil {
		t.Error("it has none")
	}
}
