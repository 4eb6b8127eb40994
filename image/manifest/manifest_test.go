package manifest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"halo.internal/boards"
)

const root = "../.."

func TestRepository(t *testing.T) {
	m, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range m.GokrazyPackages {
		if strings.HasSuffix(pkg, "/dhcp") || strings.HasSuffix(pkg, "/ntp") {
			t.Errorf("%s is on the image: addresses and time are HALO's", pkg)
		}
	}
	if !slices.Contains(strings.Fields(m.Kernel.Cmdline), "pinctrl_bcm2835.persist_gpio_outputs=1") {
		t.Error("outputs of a Raspberry Pi become inputs when halo-agent ends, whatever their safe state is")
	}
	list, err := Boards(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range list {
		names = append(names, b.Name)
		if b.Virtual != (b.Name == "qemu-virt") {
			t.Errorf("%s: virtual is %v", b.Name, b.Virtual)
		}
	}
	if got := strings.Join(names, " "); got != "qemu-virt rpi3b rpi4b zero2w" {
		t.Errorf("boards: got %s", got)
	}
	if _, err := ReadBoard(root, "rpi9"); err == nil || !strings.Contains(err.Error(), "qemu-virt, rpi3b") {
		t.Errorf("unknown board: got %v, want the names there are", err)
	}
	if _, err := m.Role("router"); err == nil || !strings.Contains(err.Error(), "gateway or node") {
		t.Errorf("unknown role: got %v, want the names there are", err)
	}
}

func TestManifestRefusals(t *testing.T) {
	good, err := os.ReadFile(root + "/" + File)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"unknown key":          {`"series"`, `"serie"`, `gokr-packer.json:3: json: unknown field "serie"`},
		"syntax":               {`"6.12",`, `"6.12"`, `gokr-packer.json:4:`},
		"wrong type":           {`"6.12"`, `6.12`, `gokr-packer.json:3:`},
		"series":               {`"6.12"`, `"latest"`, `kernel.series: expected two numbers such as 6.12, got "latest"`},
		"unknown purpose":      {`"camera":`, `"cameras":`, `got "cameras"`},
		"module path":          {`"squashfs"`, `"../squashfs"`, `expected a module's name`},
		"unneeded module":      {`"v3d"`, `"../v3d"`, `kernel.unneeded.3D graphics: expected a module's name`},
		"no reason":            {`"3D graphics"`, `" "`, `kernel.unneeded: expected a reason`},
		"root in cmdline":      {`"ro init`, `"root=/dev/sda ro init`, "kernel.cmdline"},
		"firmware elsewhere":   {`"/lib/firmware/regulatory.db"`, `"/etc/passwd"`, "firmware.files"},
		"firmware, no license": {`"license": "usr/share/doc/firmware-ath9k-htc/copyright",`, ``, "firmware.license: expected the path of the license in firmware-ath9k-htc"},
		"license elsewhere":    {`"license": "usr/share/doc/wireless-regdb/copyright"`, `"license": "../copyright"`, "firmware.license"},
		"component":            {`"component": "non-free-firmware"`, `"component": "non free"`, "firmware.component: expected a component"},
		"unneeded firmware":    {`"rtlwifi/rtl8723bu_bt.bin"`, `"../rtl8723bu_bt.bin"`, "firmware_unneeded.Bluetooth: expected a file"},
		"unneeded for nothing": {`"Bluetooth": ["rtlwifi`, `" ": ["rtlwifi`, "firmware_unneeded: expected a reason"},
		"held module":          {`"held": ["morse"]`, `"held": ["morse.ko"]`, "kernel.held: expected a module's name"},
		"a test's module":      {`"test_modules": ["lm75"`, `"test_modules": ["lm75.ko"`, "test_modules: expected a module's name"},
		"no init":              {`"init": "halo.internal/cmd/init"`, `"init": ""`, "init: expected"},
		"image too small":      {`1258299392`, `1048576`, "image_bytes"},
		"loads what is not in": {`"load": [`, `"load": ["wireguard", `, `kernel.load: expected one of kernel.modules.boot, got "wireguard"`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(good), tc.old, tc.new, 1)
			if text == string(good) {
				t.Fatalf("the manifest has no %s", tc.old)
			}
			_, err := Parse(File, []byte(text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestBoardRefusals(t *testing.T) {
	const good = "name = \"x\"\nmodels = [\"X\"]\nconsoles = [\"ttyS0,115200\"]\n"
	if _, err := ParseBoard("boards/x.toml", []byte(good), boards.Files); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":     {good + "colour = \"red\"\n", `boards/x.toml:4: unknown key "colour"; expected one of name`},
		"syntax":          {good + "config = [\n", "boards/x.toml:"},
		"wrong type":      {strings.Replace(good, `["X"]`, "3", 1), "boards/x.toml:2:"},
		"other name":      {strings.Replace(good, `"x"`, `"y"`, 1), `name: expected the file's name, "x"`},
		"no console":      {"name = \"x\"\nmodels = [\"X\"]\nconfig = [\"a=1\"]\n", "consoles: expected at least one"},
		"no image":        {"name = \"x\"\nmodels = [\"X\"]\nvirtual = true\n", "consoles: expected at least one"},
		"console injects": {strings.Replace(good, "ttyS0,115200", "ttyS0 init=/bin/sh", 1), "consoles[0]: expected a console"},
		"long line":       {good + "config = [\"" + strings.Repeat("a", 97) + "\"]\n", "config[0]: expected a line"},
		"firmware path":   {good + "firmware = [\"../start.elf\"]\n", "firmware[0]: expected a file name"},
		"not a modalias":  {good + "devices = [\"brcmfmac\"]\n", "devices[0]: expected a modalias"},
		"not a program":   {good + "packages = [\"../halo-air\"]\n", "packages[0]: expected a Go package"},
		"tree outside":    {good + "[[device_tree]]\nfile = \"a.dtb\"\nsource = \"../../a.dtb\"\n", "device_tree[0].source"},
		"no such chip":    {good + "\n[halow]\nbus = \"sdio\"\nchip = \"mm9\"\nmodule = \"fgh100m\"\n", "boards/x.toml:7: halow.chip: expected one of mm6108, mm8108"},
		"no module":       {good + "\n[halow]\nbus = \"sdio\"\nchip = \"mm6108\"\n", "boards/x.toml:5: halow.module: expected"},
		"radio's country": {good + "\n[halow]\nbus = \"sdio\"\nchip = \"mm6108\"\nmodule = \"fgh100m\"\n[halow.params]\nsdio_reset_time = \"400\"\ncountry = \"US\"\n", "boards/x.toml:11: halow.params.country"},
		"and in one line": {good + "\n[halow]\nbus = \"sdio\"\nchip = \"mm6108\"\nmodule = \"fgh100m\"\nparams = { country = \"US\" }\n", "boards/x.toml:9: halow.params.country"},
		"radio's key":     {good + "\n[halow]\nled_line = \"GPIO23\"\n", `boards/x.toml:6: halow: unknown key "led_line"; expected one of chip, bus`},
		"other's image":   {good + "image = \"rpi3b\"\n", "boards/x.toml:4: image: expected none"},
		"not a fragment":  {good + "[[device_tree]]\nfile = \"a.dtb\"\nsource = \"a.dtb\"\nfragments = [\"a.dts\"]\n", "device_tree[0].fragments"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseBoard("boards/x.toml", []byte(tc.text), boards.Files); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestExample keeps the board of docs/halow.md in order.
func TestExample(t *testing.T) {
	doc, err := os.ReadFile(root + "/docs/halow.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "```toml\n")
	text, _, ended := strings.Cut(text, "```")
	if !ok || !ended {
		t.Fatal("docs/halow.md shows no board")
	}
	b, err := ParseBoard("boards/rpi4b-halow.toml", []byte(text), boards.Files)
	if err != nil {
		t.Fatal(err)
	}
	if b.HaLow == nil || b.HaLow.Chip != "mm6108" {
		t.Errorf("got %+v", b.HaLow)
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile(root + "/" + File)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"kernel":{"series":"6.12"}}`))
	f.Add([]byte(`{"x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse("m", b); err == nil && m.check() != nil {
			t.Errorf("accepted %+v", m)
		}
	})
}

func FuzzParseBoard(f *testing.F) {
	for _, name := range []string{"qemu-virt", "rpi3b"} {
		b, err := os.ReadFile(root + "/boards/" + name + ".toml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if board, err := ParseBoard("boards/rpi3b.toml", b, boards.Files); err == nil && board.Name != "rpi3b" {
			t.Errorf("accepted %+v", board)
		}
	})
}
