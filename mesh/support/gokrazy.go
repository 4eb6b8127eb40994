package support

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// gokrazy keeps the last hundred lines that each process wrote to its standard output,
// and as many of its standard error, over restarts of the process. It streams them at
// /log of its socket (gokrazy/statuslog.go): what there is at once, and then whatever is
// written, without an end.
const (
	logLines = 200 // of both
	logQuiet = 500 * time.Millisecond
	logWait  = 5 * time.Second // for all of it, whatever is written meanwhile
)

// ProcessLog returns the last lines that the program of that path wrote, as gokrazy
// keeps them, from its socket. The lines of standard output and standard error each are
// in their order.
func ProcessLog(ctx context.Context, socket, program string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gokrazy/log?"+url.Values{"path": {program}, "stream": {"both"}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("expected a line of %s from gokrazy within %s, got none", program, logWait)
		}
		return nil, fmt.Errorf("log of %s: %w", program, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, fmt.Errorf("log of %s: gokrazy says %d: %s", program, resp.StatusCode, bytes.TrimSpace(b))
	}
	return tail(resp.Body), nil
}

// tail returns what comes until nothing does for a moment, or r ends, closing it.
func tail(r io.ReadCloser) []byte {
	var kept Lines
	lines := make(chan []byte)
	go func() { // ends when r is closed
		defer close(lines)
		for b := bufio.NewReaderSize(r, maxLine+1); ; {
			line, err := nextLine(b)
			if len(line) > 0 {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		_ = r.Close()
		for range lines {
		}
	}()
	quiet := time.NewTimer(logQuiet)
	defer quiet.Stop()
	for range logLines {
		select {
		case line, ok := <-lines:
			if !ok {
				return kept.Bytes()
			}
			_, _ = kept.Write(line) // never fails
		case <-quiet.C:
			return kept.Bytes()
		}
		quiet.Reset(logQuiet)
	}
	return kept.Bytes()
}

// nextLine returns a line with its newline. Of one that is too long it returns only that
// it is.
func nextLine(b *bufio.Reader) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.Clone(line), err
	}
	n := len(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = b.ReadSlice('\n')
		n += len(line)
	}
	return fmt.Appendf(nil, "[a line of %d octets is left out]\n", n), err
}
