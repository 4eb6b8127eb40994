package benchgateway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

const (
	victoriaModule  = "github.com/VictoriaMetrics/VictoriaMetrics"
	victoriaVersion = "v1.140.0"
	victoriaAddress = "127.0.0.1:8428"
)

// buildVictoria builds VictoriaMetrics' single server, in a module of its own: HALO does not
// depend on it. With a C compiler it has its usual compression, without one that of Go.
func buildVictoria() (program string, err error) {
	cache, err := filepath.Abs(filepath.Join("..", "..", ".cache", "victoria-metrics", victoriaVersion))
	if err != nil {
		return "", err
	}
	program = filepath.Join(cache, "victoria-metrics")
	if _, err := os.Stat(program); !errors.Is(err, fs.ErrNotExist) {
		return program, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	module := "module bench\n\ngo 1.26\n\nrequire " + victoriaModule + " " + victoriaVersion + "\n\ntool " + victoriaModule + "/app/victoria-metrics\n"
	if err := os.WriteFile(filepath.Join(cache, "go.mod"), []byte(module), 0o644); err != nil {
		return "", err
	}
	cgo := "CGO_ENABLED=0"
	if _, err := exec.LookPath("cc"); err == nil {
		cgo = "CGO_ENABLED=1"
	}
	if err := goTool(cache, nil, "mod", "tidy"); err != nil {
		return "", err
	}
	part := program + ".part"
	if err := goTool(cache, []string{cgo}, "build", "-trimpath", "-o", part, victoriaModule+"/app/victoria-metrics"); err != nil {
		return "", err
	}
	return program, os.Rename(part, program)
}

// victoria is a VictoriaMetrics.
type victoria struct{ *process }

func newVictoria(b testing.TB) *victoria {
	b.Helper()
	v := &victoria{start(b, nil, os.Getenv(victoriaProgram), "-storageDataPath="+b.TempDir(), "-httpListenAddr="+victoriaAddress, "-retentionPeriod=10y", "-loggerLevel=ERROR")}
	v.await("http://" + victoriaAddress + "/health")
	return v
}

// post sends a request and reads the answer.
func (v *victoria) post(client *http.Client, path, encoding string, body []byte) error {
	req, err := http.NewRequest(http.MethodPost, "http://"+victoriaAddress+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, text)
	}
	return err
}

// flush has all that was taken in written to the disk's cache, and searchable.
func (v *victoria) flush(b testing.TB) {
	b.Helper()
	if err := v.post(http.DefaultClient, "/internal/force_flush", "", nil); err != nil {
		b.Fatal(err)
	}
}

// encoding is how batches are told to it.
type encoding struct {
	name, path, header string
	append             func(dst []byte, node string, reports []wire.Report) []byte
}

var encodings = []encoding{
	{"remote write", "/api/v1/write", "snappy", appendRemoteWrite},
	{"JSON lines", "/api/v1/import", "", appendJSONLines},
}

var metrics = wiretest.Schema().Metrics

// appendRemoteWrite adds Prometheus' WriteRequest, as a Snappy block of literals: what is
// packed tighter takes the server longer.
func appendRemoteWrite(dst []byte, node string, reports []wire.Report) []byte {
	var request, series, sample []byte
	for i, m := range metrics {
		series = series[:0]
		for _, label := range [][2]string{{"__name__", m.Name}, {"node", node}} {
			var l []byte
			l = appendBytes(l, 1, []byte(label[0]))
			l = appendBytes(l, 2, []byte(label[1]))
			series = appendBytes(series, 1, l)
		}
		for k := range reports {
			sample = append(sample[:0], 1<<3|1)
			sample = binary.LittleEndian.AppendUint64(sample, math.Float64bits(m.Number(reports[k].Values[i])))
			sample = binary.AppendUvarint(append(sample, 2<<3), uint64(reports[k].Time))
			series = appendBytes(series, 2, sample)
		}
		request = appendBytes(request, 1, series)
	}
	dst = binary.AppendUvarint(dst, uint64(len(request)))
	for len(request) > 0 {
		part := request[:min(len(request), 1<<16)]
		request = request[len(part):]
		dst = append(dst, 61<<2) // a literal whose length follows in two octets
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(part)-1))
		dst = append(dst, part...)
	}
	return dst
}

// appendBytes adds a field of a protocol buffer.
func appendBytes(dst []byte, field uint64, b []byte) []byte {
	dst = binary.AppendUvarint(dst, field<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendJSONLines(dst []byte, node string, reports []wire.Report) []byte {
	for i, m := range metrics {
		dst = append(dst, `{"metric":{"__name__":"`...)
		dst = append(dst, m.Name...)
		dst = append(dst, `","node":"`...)
		dst = append(dst, node...)
		dst = append(dst, `"},"values":[`...)
		for k := range reports {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendFloat(dst, m.Number(reports[k].Values[i]), 'g', -1, 64)
		}
		dst = append(dst, `],"timestamps":[`...)
		for k := range reports {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, reports[k].Time, 10)
		}
		dst = append(dst, "]}\n"...)
	}
	return dst
}

// rows is how many samples it says that it has taken in.
func (v *victoria) rows(b testing.TB) (n int) {
	b.Helper()
	resp, err := http.Get("http://" + victoriaAddress + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("vm_rows_added_to_storage_total ")); ok {
			f, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			if err != nil {
				b.Fatal(err)
			}
			n = int(f)
		}
	}
	return n
}
