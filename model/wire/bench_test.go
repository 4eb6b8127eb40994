package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model"
)

// telemetry is what a board says of itself: twelve metrics every ten seconds,
// with the noise and the steps that such readings have.
func telemetry(n int) (Schema, []Report) {
	s := Schema{Metrics: []Metric{
		NewMetric("system.cpu.used_percent", "%", 1),
		NewMetric("system.memory.used_percent", "%", 1),
		NewMetric("system.memory.available_kib", "KiB", 0),
		NewMetric("system.load.avg_1m", "", 2),
		NewMetric("system.load.avg_5m", "", 2),
		NewMetric("system.host.uptime_s", "s", 0),
		NewMetric("system.cpu-thermal.temperature_c", "°C", 1),
		NewMetric("storage.perm.used_percent", "%", 1),
		NewMetric("net.wg0.rx_bytes", "B", 0),
		NewMetric("net.wg0.tx_bytes", "B", 0),
		NewMetric("net.wg0.rx_packets", "", 0),
		NewMetric("net.wg0.tx_packets", "", 0),
	}}
	noise := rand.New(rand.NewPCG(11, 12))
	available, load1, load5, temperature := 312_400.0, 24.0, 18.0, 472.0
	var rx, tx, rxp, txp int64 = 8_412_300, 21_530_112, 41_230, 52_114
	var reports []Report
	for i := range n {
		cpu := max(0, 64+18*noise.NormFloat64())
		available += 90 * noise.NormFloat64()
		load1 = max(0, load1+2*noise.NormFloat64())
		load5 += (load1 - load5) / 30
		temperature += 3 * noise.NormFloat64()
		rxp += 14 + noise.Int64N(5)
		txp += 16 + noise.Int64N(5)
		rx += 1_900 + noise.Int64N(300)
		tx += 3_400 + noise.Int64N(600)
		r := Report{Time: 1_796_000_000_000 + int64(i)*10_000}
		for _, v := range []int64{
			int64(cpu), int64(1000 * (1 - available/489_376)), int64(available), int64(load1), int64(load5), 81_230 + int64(i)*10, int64(temperature), 127, rx, tx, rxp, txp,
		} {
			r.Values = append(r.Values, Int(v))
		}
		reports = append(reports, r)
	}
	return s, reports
}

// encoders give the same data in four formats, each whole: what would be sent
// by a node that has said once what its metrics are called, where the format
// knows such a thing.
var encoders = []struct {
	name   string
	encode func(testing.TB, Schema, []Report) []byte
}{
	{"halo", func(t testing.TB, s Schema, rs []Report) []byte {
		b, err := Batch{Header: Header{BatchID: ID(7, 1234), Clock: model.ClockGateway}, Reports: rs}.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}},
	{"json", encodeJSON},
	{"senml-cbor", encodeSenML},
	{"sparkplug-b", encodeSparkplug},
}

// encodeJSON writes a row per sample, as a plain HTTP API takes it.
func encodeJSON(t testing.TB, s Schema, rs []Report) []byte {
	type row struct {
		Time   int64   `json:"time"`
		Metric string  `json:"metric"`
		Value  float64 `json:"value"`
	}
	var rows []row
	for _, r := range rs {
		for i, v := range r.Values {
			rows = append(rows, row{r.Time, s.Metrics[i].Name, s.Metrics[i].Number(v)})
		}
	}
	b, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encodeSenML writes RFC 8428 in CBOR: base time -3, name 0, value 2, time 6.
// Names are shortened to their number, as LwM2M resources are.
func encodeSenML(t testing.TB, s Schema, rs []Report) []byte {
	var pack []map[int]any
	for n, r := range rs {
		for i, v := range r.Values {
			record := map[int]any{0: fmt.Sprint(i), 2: number(s.Metrics[i], v)}
			if n == 0 && i == 0 {
				record[-3] = rs[0].Time / 1000
			}
			if d := (r.Time - rs[0].Time) / 1000; d != 0 {
				record[6] = d
			}
			pack = append(pack, record)
		}
	}
	mode, err := cbor.EncOptions{ShortestFloat: cbor.ShortestFloat16, Sort: cbor.SortCanonical}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(pack)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// number is the smallest Go value for a reading: an integer where it is one.
func number(m Metric, v Value) any {
	if m.Scale == 0 {
		return v.Bits
	}
	return m.Number(v)
}

// encodeSparkplug writes a Sparkplug B NDATA payload with aliases: timestamp 1,
// metrics 2 (alias 2, timestamp 3 where it differs from the payload's, datatype
// 4, long_value 11, float_value 12), seq 3.
func encodeSparkplug(_ testing.TB, s Schema, rs []Report) []byte {
	const int64Type, floatType = 4, 9
	field := func(b []byte, n, kind int) []byte { return binary.AppendUvarint(b, uint64(n<<3|kind)) }
	b := field(nil, 1, 0)
	b = binary.AppendUvarint(b, uint64(rs[0].Time))
	for _, r := range rs {
		for i, v := range r.Values {
			m := field(nil, 2, 0)
			m = binary.AppendUvarint(m, uint64(i))
			if r.Time != rs[0].Time {
				m = field(m, 3, 0)
				m = binary.AppendUvarint(m, uint64(r.Time))
			}
			m = field(m, 4, 0)
			if s.Metrics[i].Scale == 0 {
				m = binary.AppendUvarint(m, int64Type)
				m = field(m, 11, 0)
				m = binary.AppendUvarint(m, uint64(v.Bits))
			} else {
				m = binary.AppendUvarint(m, floatType)
				m = field(m, 12, 5)
				m = binary.LittleEndian.AppendUint32(m, math.Float32bits(float32(s.Metrics[i].Number(v))))
			}
			b = field(b, 2, 2)
			b = binary.AppendUvarint(b, uint64(len(m)))
			b = append(b, m...)
		}
	}
	b = field(b, 3, 0)
	return binary.AppendUvarint(b, 17)
}

func deflated(t testing.TB, b []byte) int {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

// BenchmarkSize reports octets per sample, plain and deflated, of the same data
// in all formats.
func BenchmarkSize(b *testing.B) {
	for _, n := range []int{1, 6, 60} {
		s, reports := telemetry(n)
		samples := float64(n * len(s.Metrics))
		for _, e := range encoders {
			b.Run(fmt.Sprintf("%s/reports=%d", e.name, n), func(b *testing.B) {
				var data []byte
				for b.Loop() {
					data = e.encode(b, s, reports)
				}
				b.ReportMetric(float64(len(data))/samples, "B/sample")
				b.ReportMetric(float64(deflated(b, data))/samples, "deflated-B/sample")
				if _, columns, err := open(data); err == nil { // what is left without envelope and checksum
					b.ReportMetric(float64(len(columns))/samples, "columns-B/sample")
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	s, reports := telemetry(6)
	data := encoders[0].encode(b, s, reports)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data, s); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSize holds the sizes that the design rests on. Of a single report 22
// octets name the batch and its schema and prove it whole; the readings take
// the rest.
func TestSize(t *testing.T) {
	for n, most := range map[int]float64{1: 5, 6: 1.7, 60: 1.0} {
		s, reports := telemetry(n)
		samples := float64(n * len(s.Metrics))
		size := float64(len(encoders[0].encode(t, s, reports))) / samples
		if size > most {
			t.Errorf("%d reports: got %.2f octets per sample, want at most %.2f", n, size, most)
		}
		for _, e := range encoders[1:] {
			if other := float64(deflated(t, e.encode(t, s, reports))) / samples; size > other {
				t.Errorf("%d reports: %.2f octets per sample are more than %.2f of %s, deflated", n, size, other, e.name)
			}
		}
	}
}
