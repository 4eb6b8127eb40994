package i2c_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"

	"halo.internal/drivers/i2c"
)

// liar is a bus on which everybody answers anything, or nothing.
type liar struct {
	rand   *rand.Rand
	silent float64 // how often it does not answer
	octets int
	count  int
}

func (l *liar) String() string                  { return "liar" }
func (l *liar) SetSpeed(physic.Frequency) error { return nil }

func (l *liar) Tx(_ uint16, w, r []byte) error {
	l.count++
	l.octets += len(w) + len(r)
	if l.rand.Float64() < l.silent {
		return errors.New("no answer")
	}
	favourite := []byte{0x00, 0xff, 0x80, 0x7f}
	for i := range r {
		if r[i] = byte(l.rand.Uint32()); l.rand.IntN(3) == 0 {
			r[i] = favourite[l.rand.IntN(len(favourite))]
		}
	}
	return nil
}

// identical answers identities as they should be, and anything else otherwise.
type identical struct {
	liar
	spec *i2c.Spec
}

func (c *identical) Tx(addr uint16, w, r []byte) error {
	if err := c.liar.Tx(addr, w, r); err != nil {
		return err
	}
	for _, check := range c.spec.Identity {
		if string(w) == string(check.Write) && len(r) == check.Read && !check.Any {
			for i := range r {
				r[i] = byte(check.Want >> (8 * (len(r) - 1 - i)))
			}
		}
	}
	return nil
}

// plausible fails the test where a sample is neither a number that can be nor a reason.
func plausible(t *testing.T, spec *i2c.Spec, samples []i2c.Sample) {
	t.Helper()
	if len(samples) != len(spec.Values) {
		t.Fatalf("%s: expected %d samples, got %d", spec.Name, len(spec.Values), len(samples))
	}
	for i, s := range samples {
		v := spec.Values[i]
		switch {
		case s.Err == nil && !(s.Number >= v.Min && s.Number <= v.Max):
			t.Errorf("%s: %s is %v", spec.Name, v.Name, s.Number)
		case s.Err != nil && !math.IsNaN(s.Number):
			t.Errorf("%s: %s is %v and %v", spec.Name, v.Name, s.Number, s.Err)
		}
		s.Wire(v)
	}
}

// TestHostileChips lets each driver read chips that answer at random: it takes no
// longer than its Spec says, and what it tells can be.
func TestHostileChips(t *testing.T) {
	for _, d := range i2c.Builtin() {
		spec := d.Spec()
		t.Run(spec.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(60) {
					bus := &identical{liar{rand: rand.New(rand.NewPCG(seed, 1)), silent: []float64{0, 0.05, 0.5}[seed%3]}, spec}
					chip, err := d.Open(bus, spec.Addresses[0], nil)
					if err != nil {
						t.Fatal(err)
					}
					for range 20 {
						before := *bus
						began := time.Now()
						samples, err := chip.Read(t.Context(), nil)
						if err == nil {
							plausible(t, spec, samples)
						} else if len(samples) != 0 {
							t.Errorf("expected either samples or %v", err)
						}
						// Tries of each transaction have pauses of 6 ms.
						if took := time.Since(began); took > spec.Longest+2*time.Second {
							t.Errorf("a reading took %v, longer than %v", took, spec.Longest)
						}
						if n := bus.octets - before.octets; n > 64<<10 {
							t.Errorf("a reading moved %d octets", n)
						}
					}
				}
			})
		})
	}
}

func TestProbeOfHostileBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(50) {
			bus := &liar{rand: rand.New(rand.NewPCG(seed, 2)), silent: 0.3}
			if _, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin()}); err != nil {
				t.Fatal(err)
			}
			if bus.count > 2000 {
				t.Errorf("expected a bounded search, got %d transactions", bus.count)
			}
		}
	})
}

// templates are the texts of those that are built in.
func templates(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("templates/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("expected templates, got %v", err)
	}
	texts := []string{least}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	return texts
}

// tokens are what a template is damaged with.
var tokens = strings.Fields(`0 -1 256 9223372036854775807 -9223372036854775808 1e308 nan inf -inf "" "x" "1/0" "raw/0" "raw" "u16be" "s32le" "31:0" "24h" "1ns"
	[ ] { } [[ ]] = , . # [[value]] [fields] [compute] [constants] [[parameter]] write read wait until mask value not limit every crc into in at type bits
	formula valid range scale name addresses "sensirion" "trailing" "smbus-pec" true false [[[[[[[[ {a={a={a={a= 'raw' """ \u0000 é`)

// damage changes a template in a few places.
func damage(r *rand.Rand, text string) string {
	for range 1 + r.IntN(4) {
		at := r.IntN(len(text) + 1)
		end := min(len(text), at+r.IntN(12))
		switch r.IntN(6) {
		case 0: // something is missing
			text = text[:at] + text[end:]
		case 1: // another octet
			text = text[:at] + string(byte(r.Uint32())) + text[end:]
		case 2, 3: // another word
			text = text[:at] + tokens[r.IntN(len(tokens))] + text[end:]
		case 4: // a word in place of another
			words := strings.Fields(text)
			if len(words) > 0 {
				text = strings.Replace(text, words[r.IntN(len(words))], tokens[r.IntN(len(tokens))], 1+r.IntN(3))
			}
		case 5: // a part twice
			text = text[:end] + text[at:]
		}
	}
	return text[:min(len(text), i2c.MaxTemplate)]
}

// use does all that may be done with a template that has been accepted.
func use(t *testing.T, text string, seed uint64) {
	t.Helper()
	i2c.Lint("chip.toml", []byte(text))
	d, err := i2c.Parse("chip.toml", []byte(text))
	if err != nil {
		if strings.TrimSpace(err.Error()) == "" {
			t.Errorf("an error without a word for\n%s", text)
		}
		return
	}
	spec := d.Spec()
	bus := &identical{liar{rand: rand.New(rand.NewPCG(seed, 3)), silent: 0.02}, spec}
	trial := i2c.Try(context.Background(), bus, d, spec.Addresses[0], nil)
	if trial.Err == nil {
		plausible(t, spec, trial.Samples)
	}
	if trial.Took > spec.Longest+2*time.Second {
		t.Errorf("a reading took %v, longer than %v, of\n%s", trial.Took, spec.Longest, text)
	}
	for _, m := range spec.Values {
		if name := i2c.Metric(spec.Name, m).Name; len(name) > 96 {
			t.Errorf("the name %s is too long", name)
		}
	}
}

// TestTenThousandBadTemplates damages the built-in ones. What is accepted all the
// same is used.
func TestTenThousandBadTemplates(t *testing.T) {
	texts := templates(t)
	accepted := 0
	r := rand.New(rand.NewPCG(20260714, 7))
	name := func(text string) string { // so that not each is refused for its name
		head, rest, _ := strings.Cut(text, "name")
		_, rest, _ = strings.Cut(rest, "\n")
		return head + "name = \"chip\"\n" + rest
	}
	synctest.Test(t, func(t *testing.T) {
		for i := range uint64(10000) {
			text := damage(r, name(texts[r.IntN(len(texts))]))
			if _, err := i2c.Parse("chip.toml", []byte(text)); err == nil {
				accepted++
			}
			use(t, text, i)
		}
	})
	if accepted < 100 || accepted > 5000 {
		t.Errorf("expected some of 10000 to be usable still, and most not, got %d", accepted)
	}
	t.Logf("%d of 10000 were accepted", accepted)
}

// Templates that are made to be too much.
func TestExcess(t *testing.T) {
	many := func(n int, f func(i int) string) string {
		var s strings.Builder
		for i := range n {
			s.WriteString(f(i))
		}
		return s.String()
	}
	for name, text := range map[string]string{
		"nested arrays":    "name = " + strings.Repeat("[", 30000),
		"nested tables":    many(5000, func(int) string { return "{a=" }),
		"dotted key":       strings.Repeat("a.", 15000) + "a = 1",
		"values":           many(600, func(i int) string { return fmt.Sprintf("[[value]]\nname=\"v%d\"\nformula=\"1\"\nrange=[0,2]\n", i) }),
		"computes":         least + "[compute]\n" + many(1500, func(i int) string { return fmt.Sprintf("c%d = \"1 + 1\"\n", i) }),
		"steps":            "name=\"chip\"\naddresses=[0x40]\nmeasure=[" + many(3000, func(int) string { return "{read=1}," }) + "]",
		"octets":           "name=\"chip\"\naddresses=[0x40]\nmeasure=[{write=[" + strings.Repeat("0,", 10000) + "]}]",
		"formulas doubled": least + "[compute]\nx0 = \"1e300\"\n" + many(200, func(i int) string { return fmt.Sprintf("x%d = \"x%d * x%d\"\n", i+1, i, i) }),
		"long formula":     strings.Replace(least, "raw / 10", strings.Repeat("raw+", 5000)+"raw", 1),
		"deep formula":     strings.Replace(least, "raw / 10", strings.Repeat("-(", 500), 1),
		"polls":            strings.Replace(least, "read = 2", `read = 2, until = { value = 1, every = "10ms", limit = "10s" }`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { use(t, text[:min(len(text), i2c.MaxTemplate)], 1) })
		})
	}
}

func FuzzTemplate(f *testing.F) {
	for _, text := range templates(f) {
		f.Add([]byte(text), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		synctest.Test(t, func(t *testing.T) { use(t, string(text), seed) })
	})
}

// FuzzChip lets all built-in drivers read a chip that answers what the fuzzer says.
func FuzzChip(f *testing.F) {
	f.Add([]byte{0x00, 0xff, 0x80, 0x7f}, uint8(0))
	f.Fuzz(func(t *testing.T, answers []byte, which uint8) {
		d := i2c.Builtin()[int(which)%len(i2c.Builtin())]
		synctest.Test(t, func(t *testing.T) {
			bus := &script{answers: answers}
			chip, err := d.Open(bus, d.Spec().Addresses[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			if samples, err := chip.Read(t.Context(), nil); err == nil {
				plausible(t, d.Spec(), samples)
			}
		})
	})
}

// script answers octet by octet, and then not any more.
type script struct{ answers []byte }

func (s *script) String() string                  { return "script" }
func (s *script) SetSpeed(physic.Frequency) error { return nil }

func (s *script) Tx(_ uint16, _, r []byte) error {
	if len(s.answers) < len(r) {
		return errors.New("no answer")
	}
	s.answers = s.answers[copy(r, s.answers):]
	return nil
}
