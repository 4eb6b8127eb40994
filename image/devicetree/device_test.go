package devicetree

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"halo.internal/image/tool"
)

// compile makes a blob of device tree source.
func compile(t testing.TB, source string) []byte {
	t.Helper()
	b, err := tool.Command{Name: "dtc", Args: []string{"-q", "-I", "dts", "-O", "dtb", "-"}, Stdin: []byte(source)}.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// board is shaped like a Pi: a slot behind regulators, pins and clocks, and a
// radio in a slot of its own.
const board = `/dts-v1/;
/ {
	compatible = "maker,board";
	model = "Test Board";
	soc: soc {
		compatible = "simple-bus";
		clocks: clock { compatible = "maker,clock", "fixed clock"; #clock-cells = <2>; };
		gpio: gpio@1 { compatible = "maker,gpio"; #gpio-cells = <2>; pins: pins { bias = <1>; }; };
		card: mmc@2 {
			compatible = "maker,mmc2", "maker,mmc";
			clocks = <&clocks 7 8>, <&other>;
			pinctrl-0 = <&pins>;
			vmmc-supply = <&supply>;
			cd-gpios = <&gpio 1 2>;
			dmas = <&off 1>;
		};
		mmc@3 { compatible = "maker,mmc"; wifi@1 { compatible = "maker,fmac"; }; };
		off: dma@4 { compatible = "maker,dma"; status = "disabled"; channel { compatible = "maker,channel"; }; };
		mmc@5 { compatible = "maker,mmc"; status = "okay"; };
	};
	other: oscillator { compatible = "fixed-clock"; #clock-cells = <0>; };
	supply: regulator { compatible = "regulator-gpio"; gpios = <&gpio 3 4>; };
	cpu { device_type = "cpu"; compatible = "arm,a53"; };
	leds { led { label = "act"; }; };
};`

func TestDevices(t *testing.T) {
	root, err := Parse(compile(t, board))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range Devices(root) {
		line := fmt.Sprintf("%s %s", d.Path, d.Modalias)
		if d.Slot {
			line += " slot"
		}
		got = append(got, strings.Join(append([]string{line}, d.Needs...), " "))
	}
	want := []string{
		"/soc of:NsocT(null)Csimple-bus",
		"/soc/clock of:NclockT(null)Cmaker,clockCfixed_clock /soc",
		"/soc/gpio@1 of:NgpioT(null)Cmaker,gpio /soc",
		"/soc/mmc@2 of:NmmcT(null)Cmaker,mmc2Cmaker,mmc slot /oscillator /regulator /soc /soc/clock /soc/gpio@1",
		"/soc/mmc@3 of:NmmcT(null)Cmaker,mmc /soc",
		"/soc/mmc@3/wifi@1 of:NwifiT(null)Cmaker,fmac /soc/mmc@3",
		"/soc/mmc@5 of:NmmcT(null)Cmaker,mmc slot /soc",
		"/oscillator of:NoscillatorT(null)Cfixed-clock",
		"/regulator of:NregulatorT(null)Cregulator-gpio /soc/gpio@1",
		"/cpu of:NcpuTcpuCarm,a53",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParseRefusesEveryCut(t *testing.T) {
	blob := compile(t, board)
	if _, err := Parse([]byte("no tree")); err == nil || !strings.Contains(err.Error(), "expected a device tree blob") {
		t.Errorf("got %v", err)
	}
	for n := range blob {
		if _, err := Parse(blob[:n]); err == nil {
			t.Fatalf("a tree cut after %d of %d octets was taken", n, len(blob))
		}
	}
}

func FuzzDevices(f *testing.F) {
	f.Add(compile(f, board))
	f.Fuzz(func(t *testing.T, blob []byte) {
		root, err := Parse(blob)
		if err != nil {
			return
		}
		for _, d := range Devices(root) {
			if !strings.HasPrefix(d.Path, "/") || !strings.HasPrefix(d.Modalias, "of:N") {
				t.Errorf("got %+v", d)
			}
		}
	})
}
