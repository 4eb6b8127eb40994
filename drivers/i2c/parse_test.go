package i2c_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"halo.internal/drivers/i2c"
)

// least is the shortest template that says something.
const least = `name = "chip"
addresses = [0x40]
measure = [
  { write = [0x00], read = 2, into = "data" },
]
[fields]
raw = { in = "data", at = 0, type = "u16be" }
[[value]]
name = "raw_v"
formula = "raw / 10"
range = [0, 6553.5]
`

func TestParse(t *testing.T) {
	d, err := i2c.Parse("some/folder/chip.toml", []byte(least))
	if err != nil {
		t.Fatal(err)
	}
	s := d.Spec()
	if s.Role != i2c.Sensor || s.Interval != time.Minute || s.MinInterval != time.Second || s.Values[0].Scale != 2 || s.Values[0].Max != 6553.5 {
		t.Errorf("got %+v", s)
	}
}

func TestBuiltin(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range i2c.Builtin() {
		s := d.Spec()
		if seen[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
		if s.Title == "" || s.Datasheet == "" || s.Longest > 20*time.Second || s.Interval < s.MinInterval {
			t.Errorf("%s: expected a title, a data sheet, and a bounded reading, got %+v", s.Name, s)
		}
		for _, v := range s.Values {
			if v.Title == "" {
				t.Errorf("%s: %s has no title", s.Name, v.Name)
			}
		}
	}
	for _, name := range strings.Fields("ina219 ina226 ina260 bme280 bmp280 bme680 bh1750 ads1115 hdc1080 sht31 sht4x mpu6050 vl53l0x lm75 tmp105 ds3231 mcp9808 scd41 sgp40 ssd1306") {
		if !seen[name] {
			t.Errorf("expected %s to be built in", name)
		}
	}
}

// Built-in templates are examples: nothing is to be found in them but that some
// chips have no identity, and that they are built in.
func TestBuiltinTemplatesAreClean(t *testing.T) {
	files, err := filepath.Glob("templates/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("expected templates, got %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range i2c.Lint(file, text) {
			if !f.Warning || f.Key != "name" && f.Key != "identity" {
				t.Errorf("%v", &f.Problem)
			}
		}
	}
}

// TestRefused changes one line of a template and expects to be told which.
func TestRefused(t *testing.T) {
	for name, x := range map[string]struct{ old, new, want string }{
		"unknown key":               {`addresses = [0x40]`, "adresses = [0x40]", `chip.toml:2: unknown key "adresses"; expected one of name, title, datasheet, role, addresses, `},
		"unknown key of a step":     {`into = "data" }`, `inot = "data" }`, `chip.toml:4: measure[0]: unknown key "inot"; expected one of write, wait, read, crc, into, until`},
		"unknown key of a field":    {`at = 0`, `offset = 0`, `chip.toml:7: fields.raw: unknown key "offset"; expected one of in, at, type, bits`},
		"no TOML":                   {`[fields]`, `[fields`, `chip.toml:6`},
		"wrong type":                {`read = 2`, `read = "2"`, `chip.toml:4: `},
		"wrong duration":            {`addresses = [0x40]`, `addresses = [0x40]` + "\ninterval = \"1 minute\"", `chip.toml:3: `},
		"name":                      {`name = "chip"`, `name = "other"`, `chip.toml:1: name: expected the file's name, "chip", got "other"`},
		"form of name":              {`name = "chip"`, `name = "Chip 1"`, `chip.toml:1: name: expected small letters`},
		"no name":                   {`name = "chip"`, ``, `chip.toml:1: name: expected small letters`},
		"role":                      {`addresses = [0x40]`, `addresses = [0x40]` + "\nrole = \"thought\"", `chip.toml:3: role: expected "sensor" or "send", got "thought"`},
		"no address":                {`addresses = [0x40]`, `addresses = []`, `chip.toml:2: addresses: expected 1 to 16, got 0`},
		"reserved address":          {`addresses = [0x40]`, `addresses = [0x40, 0x7F]`, `chip.toml:2: addresses[1]: expected 0x08 to 0x77, got 0x7f`},
		"address twice":             {`addresses = [0x40]`, `addresses = [0x40, 0x40]`, `chip.toml:2: addresses[1]: 0x40 is there twice`},
		"interval":                  {`addresses = [0x40]`, `addresses = [0x40]` + "\ninterval = \"1ms\"", `chip.toml:3: interval: expected 1s to 24h0m0s, got 1ms`},
		"min_interval":              {`addresses = [0x40]`, `addresses = [0x40]` + "\nmin_interval = \"1ms\"", `chip.toml:3: min_interval: expected 10ms to 1h0m0s, got 1ms`},
		"retries":                   {`addresses = [0x40]`, `addresses = [0x40]` + "\nretries = 100", `chip.toml:3: retries: expected 0 to 5, got 100`},
		"octet":                     {`write = [0x00]`, `write = [0x100]`, `chip.toml:4: measure[0].write[0]: expected 0 to 255, got 256`},
		"octet of another kind":     {`write = [0x00]`, `write = [1.5]`, `chip.toml:4: measure[0].write[0]: expected an octet or a formula in quotes, got 1.5`},
		"octet's formula":           {`write = [0x00]`, `write = ["raw"]`, `chip.toml:4: measure[0].write[0]: column 1: "raw" is not known here`},
		"a MiB":                     {`read = 2`, `read = 1048576`, `chip.toml:4: measure[0].read: expected 0 to 256, got 1048576`},
		"below nothing":             {`read = 2`, `read = -1`, `chip.toml:4: measure[0].read: expected 0 to 256, got -1`},
		"empty step":                {`{ write = [0x00], read = 2, into = "data" },`, `{ write = [0x00], read = 2, into = "data" }, {},`, `chip.toml:4: measure[1]: expected write, read, or wait alone`},
		"into of nothing":           {`read = 2, into`, `into`, `chip.toml:4: measure[0].into: expected read in the same step`},
		"into twice":                {`into = "data" },`, `into = "data" }, { read = 1, into = "data" },`, `chip.toml:4: measure[1].into: block data is filled by another step`},
		"into of set-up":            {`measure = [`, "setup = [ { read = 1, into = \"x\" } ]\nmeasure = [", `chip.toml:3: setup[0].into: expected a block in calibration and measure only`},
		"checksum":                  {`read = 2,`, `read = 2, crc = "md5",`, `chip.toml:4: measure[0].crc: expected one of sensirion, trailing, smbus-pec, got "md5"`},
		"words with checksums":      {`read = 2,`, `read = 2, crc = "sensirion",`, `chip.toml:4: measure[0].read: expected octets with checksums (sensirion), got 2`},
		"wait":                      {`into = "data" },`, `into = "data" }, { wait = "1h" },`, `chip.toml:4: measure[1].wait: expected 0s to 10s, got 1h0m0s`},
		"waits":                     {`into = "data" },`, `into = "data" }, { wait = "10s" }, { wait = "10s" }, { wait = "10s" }, { wait = "1s" },`, `chip.toml:3: measure: expected waits of at most 30s in all, got 31s`},
		"wait before nothing":       {`write = [0x00], read = 2`, `wait = "1ms", read = 2`, `chip.toml:4: measure[0].wait: expected it between write and read, or alone`},
		"until without limit":       {`read = 2,`, `read = 2, until = { value = 1 },`, `chip.toml:4: measure[0].until.limit: expected how long the chip may take at most`},
		"until for ever":            {`read = 2,`, `read = 2, until = { value = 1, limit = "24h" },`, `chip.toml:4: measure[0].until.limit: expected 5ms to 10s, got 24h0m0s`},
		"until too often":           {`read = 2,`, `read = 2, until = { value = 1, every = "1ms", limit = "10s" },`, `chip.toml:4: measure[0].until.every: expected at most 1000 times until limit, got 10000`},
		"until of nothing":          {`into = "data" },`, `into = "data" }, { write = [1], until = { value = 1, limit = "1s" } },`, `chip.toml:4: measure[1].until: expected read in the same step`},
		"until neither":             {`read = 2,`, `read = 2, until = { limit = "1s" },`, `chip.toml:4: measure[0].until: expected either value or not`},
		"until both":                {`read = 2,`, `read = 2, until = { value = 1, not = 1, limit = "1s" },`, `chip.toml:4: measure[0].until: expected either value or not`},
		"mask":                      {`read = 2,`, `read = 2, until = { mask = 0x10000, value = 1, limit = "1s" },`, `chip.toml:4: measure[0].until.mask: expected 0 to 65535, got 65536`},
		"value beyond its mask":     {`read = 2,`, `read = 2, until = { mask = 0xF0, value = 0x11, limit = "1s" },`, `chip.toml:4: measure[0].until.value: 0x11 has bits that mask 0xf0 has not`},
		"identity without answer":   {`measure = [`, "identity = [ { write = [0xD0], value = 1 } ]\nmeasure = [", `chip.toml:3: identity[0].read: expected 1 to 32, got 0`},
		"identity of many octets":   {`measure = [`, "identity = [ { write = [0xD0], read = 5, value = 1 } ]\nmeasure = [", `chip.toml:3: identity[0].read: expected at most 4 octets of an answer that is compared, got 5`},
		"weak without identity":     {`measure = [`, "weak_identity = true\nmeasure = [", `chip.toml:3: weak_identity: expected an [[identity]]`},
		"field of no block":         {`in = "data"`, `in = "date"`, `chip.toml:7: fields.raw.in: expected a block that a step of calibration or measure reads into, got "date"`},
		"field beyond its block":    {`at = 0`, `at = 1`, `chip.toml:7: fields.raw.at: expected 0 to 0, got 1`},
		"field before its block":    {`at = 0`, `at = -1`, `chip.toml:7: fields.raw.at: expected 0 to 0, got -1`},
		"type":                      {`"u16be"`, `"uint16"`, `chip.toml:7: fields.raw.type: expected u8, s8, or u or s, 16, 24 or 32, and be or le, such as s16be, got "uint16"`},
		"type without order":        {`"u16be"`, `"u16"`, `chip.toml:7: fields.raw.type: expected u8`},
		"type with order":           {`"u16be"`, `"u8be"`, `chip.toml:7: fields.raw.type: expected u8`},
		"bits":                      {`"u16be"`, `"u16be", bits = "16:0"`, `chip.toml:7: fields.raw.bits: expected bits such as "15:4" or "7" of the 16 that the type has, got "16:0"`},
		"bits turned round":         {`"u16be"`, `"u16be", bits = "0:7"`, `chip.toml:7: fields.raw.bits: expected bits`},
		"name of a field":           {`raw = {`, `min = {`, `chip.toml:7: fields.min: expected a name that means nothing in a formula, got "min"`},
		"formula":                   {`"raw / 10"`, `"raw /"`, `chip.toml:10: value[0].formula: column `},
		"unknown name":              {`"raw / 10"`, `"war / 10"`, `chip.toml:10: value[0].formula: column 1: "war" is not known here; expected one of [raw]`},
		"division by zero":          {`"raw / 10"`, `"raw + 1 / 0"`, `chip.toml:10: value[0].formula: column 9: division by zero`},
		"formula that loops":        {`"raw / 10"`, `"sum(1..1000000000)"`, `chip.toml:10: value[0].formula: column 1: "sum" is no function`},
		"condition":                 {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\nvalid = \"raw\"", `chip.toml:12: value[0].valid: column 1: expected a condition`},
		"no range":                  {`range = [0, 6553.5]`, ``, `chip.toml:8: value[0].range: expected [lowest, highest], got []`},
		"range turned round":        {`range = [0, 6553.5]`, `range = [1, 0]`, `chip.toml:11: value[0].range: expected [lowest, highest], got [1 0]`},
		"range of infinity":         {`range = [0, 6553.5]`, `range = [0, inf]`, `chip.toml:11: value[0].range: expected [lowest, highest]`},
		"range of nan":              {`range = [0, 6553.5]`, `range = [nan, 1]`, `chip.toml:11: value[0].range: expected [lowest, highest]`},
		"scale":                     {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\nscale = 20", `chip.toml:12: value[0].scale: expected -12 to 12, got 20`},
		"power":                     {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\npower = \"horses\"", `chip.toml:12: value[0].power: expected one of battery_percent, `},
		"unit":                      {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\nunit = \"furlongs per fortnight\"", `chip.toml:12: value[0].unit: expected at most 16 octets, got 22`},
		"unprintable unit":          {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\nunit = \"\\u0007\"", `chip.toml:12: value[0].unit: expected printable text`},
		"name of a value":           {`name = "raw_v"`, `name = "rawV"`, `chip.toml:9: value[0].name: expected small letters, got "rawV"`},
		"value twice":               {`range = [0, 6553.5]`, `range = [0, 6553.5]` + "\n[[value]]\nname = \"raw_v\"\nformula = \"1\"\nrange = [0, 1]", `chip.toml:13: value[1].name: raw_v is there already`},
		"no value":                  {"[[value]]\nname = \"raw_v\"\nformula = \"raw / 10\"\nrange = [0, 6553.5]\n", ``, `chip.toml:1: expected a [[value]] of a sensor`},
		"parameter":                 {`[[value]]`, "[[parameter]]\nname = \"x\"\nrange = [1, 2]\ndefault = 3\n[[value]]", `chip.toml:11: parameter[0].default: expected 1 to 2`},
		"parameter with no default": {`[[value]]`, "[[parameter]]\nname = \"x\"\nrange = [1, 2]\n[[value]]", `chip.toml:8: parameter[0].default: expected 1 to 2`},
		"table":                     {`[fields]`, "[tables]\nt = []\n[fields]", `chip.toml:7: tables.t: expected 1 to 256 numbers, got 0`},
		"constant of a reading":     {`[[value]]`, "[constants]\nc = \"raw * 2\"\n[[value]]", `chip.toml:9: constants.c: column 1: "raw" is not known here`},
		"later name":                {`[[value]]`, "[compute]\na = \"b + 1\"\nb = \"raw\"\n[[value]]", `chip.toml:9: compute.a: column 1: "b" is not known here`},
		"output without send":       {`[[value]]`, "[[output]]\nname = \"o\"\nrange = [0, 1]\nsafe = 0\n[[value]]", `chip.toml:1: expected send`},
		"output without safe":       {`[[value]]`, "[[output]]\nname = \"o\"\nrange = [0, 1]\n[[value]]", `chip.toml:8: output[0].safe: expected what it is at the start`},
		"output's safe":             {`[[value]]`, "[[output]]\nname = \"o\"\nrange = [0, 1]\nwhole = true\nsafe = 0.5\n[[value]]", `chip.toml:12: output[0].safe: expected a whole number, got 0.5`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(least, x.old, x.new, 1)
			if text == least {
				t.Fatalf("%q is not in the template", x.old)
			}
			got, err := i2c.Parse("chip.toml", []byte(text))
			if err == nil {
				t.Fatalf("expected %q, got %+v", x.want, got.Spec())
			}
			if !strings.Contains(err.Error(), x.want) {
				t.Errorf("expected\n%s\ngot\n%v", x.want, err)
			}
		})
	}
}

func TestSize(t *testing.T) {
	if _, err := i2c.Parse("chip.toml", []byte(least+strings.Repeat("#", i2c.MaxTemplate))); err == nil || !strings.Contains(err.Error(), "expected at most 32768 octets") {
		t.Errorf("got %v", err)
	}
}

func TestAllProblemsAreTold(t *testing.T) {
	text := strings.NewReplacer("0x40", "0x80", "raw / 10", "raw / 0", "at = 0", "at = 7").Replace(least)
	_, err := i2c.Parse("chip.toml", []byte(text))
	if err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("expected three problems, got %v", err)
	}
}

func TestLint(t *testing.T) {
	text := strings.NewReplacer(
		"measure = [", "identity = [ { write = [0], read = 1, value = 1 } ]\nmeasure = [\n  { read = 1, into = \"spare\" },\n  { wait = \"2s\" },",
		"[0x40]", "[0x50]",
		"[[value]]", "[compute]\ntwice = \"raw * 2\"\n[constants]\nc = \"1\"\n[[parameter]]\nname = \"p\"\nrange = [0, 1]\ndefault = 0\n[[value]]",
	).Replace(least)
	var got []string
	for _, f := range i2c.Lint("chip.toml", []byte(text)) {
		if !f.Warning {
			t.Errorf("%v", &f.Problem)
		}
		got = append(got, regexp.MustCompile(`^chip.toml:\d+: `).ReplaceAllString(f.Error(), ""))
	}
	for _, want := range []string{
		"title: people", "datasheet: nobody", "addresses[0]: at 0x50", "min_interval: a reading takes 2s at least, min_interval is 1s",
		"compute.twice: no formula names it", "constants.c: no formula", "parameter[0]: no formula", "block spare: no field is of it",
	} {
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, want)
		}
		if !found {
			t.Errorf("expected %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if f := i2c.Lint("chip.toml", []byte(`name = 1`)); len(f) != 1 || f[0].Warning || f[0].Line != 1 {
		t.Errorf("expected an error, got %v", f)
	}
}
