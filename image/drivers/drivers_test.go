package drivers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/image/kernel"
	"halo.internal/image/manifest"
	"halo.internal/image/tool"
)

// pi4 is the part of a Pi 4's tree that a missing regulator once kept from
// starting.
const pi4 = `/dts-v1/;
/ {
	model = "Raspberry Pi 4 Model B";
	emmc2bus {
		compatible = "simple-bus";
		mmc@7e340000 {
			compatible = "brcm,bcm2711-emmc2";
			vqmmc-supply = <&io>;
			vmmc-supply = <&vcc>;
		};
	};
	io: regulator-sd-io-1v8 { compatible = "regulator-gpio"; gpios = <&expander 4 0>; };
	vcc: regulator-sd-vcc { compatible = "regulator-fixed"; };
	expander: gpio { compatible = "raspberrypi,firmware-gpio"; #gpio-cells = <2>; };
	gpu { compatible = "brcm,bcm2711-vc5"; };
	i2c { compatible = "brcm,bcm2711-i2c", "brcm,bcm2835-i2c"; };
	camera { compatible = "brcm,bcm2835-unicam"; status = "disabled"; };
};`

// index makes a kernel's indexes.
func index(t *testing.T) *kernel.Index {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": `kernel/sdhci-iproc.ko: kernel/sdhci.ko
kernel/sdhci.ko:
kernel/gpio-regulator.ko:
kernel/fixed.ko:
kernel/vc4.ko:
kernel/i2c-bcm2835.ko:
kernel/unicam.ko:
kernel/brcmfmac.ko:
`,
		"modules.softdep": "",
		"modules.alias": `alias of:N*T*Cbrcm,bcm2711-emmc2C* sdhci_iproc
alias of:N*T*Cbrcm,bcm2711-emmc2 sdhci_iproc
alias of:N*T*Cregulator-gpioC* gpio_regulator
alias of:N*T*Cregulator-gpio gpio_regulator
alias of:N*T*Cregulator-fixed fixed
alias of:N*T*Cbrcm,bcm2711-vc5 vc4
alias of:N*T*Cbrcm,bcm2835-i2c i2c_bcm2835
alias of:N*T*Cbrcm,bcm2835-unicam unicam
alias sdio:c*v02D0dA9BF* brcmfmac
`,
		"modules.builtin": "kernel/gpio-raspberrypi-exp.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x, err := kernel.Tree{Modules: dir}.Index()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestCheck(t *testing.T) {
	tree, err := tool.Command{Name: "dtc", Args: []string{"-q", "-I", "dts", "-O", "dtb", "-"}, Stdin: []byte(pi4)}.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	x := index(t)
	for name, tc := range map[string]struct {
		boot, mesh, i2c, unneeded string
		want                      []string // lines of the error
	}{
		"complete": {"sdhci-iproc gpio-regulator fixed", "brcmfmac", "i2c-bcm2835", "vc4", nil},
		"without the regulator of the card slot": {"sdhci-iproc fixed", "brcmfmac", "i2c-bcm2835", "vc4", []string{
			"board rpi4b: /regulator-sd-io-1v8 needs module gpio_regulator: expected it in kernel.modules or kernel.unneeded of gokr-packer.json",
			"/emmc2bus/mmc@7e340000 cannot do without /regulator-sd-io-1v8, which needs module gpio_regulator: expected it in kernel.modules.boot of gokr-packer.json",
		}},
		"the regulator comes with the root only": {"sdhci-iproc fixed", "brcmfmac gpio-regulator", "i2c-bcm2835", "vc4", []string{
			"board rpi4b: /emmc2bus/mmc@7e340000 cannot do without /regulator-sd-io-1v8, which needs module gpio_regulator: expected it in kernel.modules.boot of gokr-packer.json",
		}},
		"the regulator is said to be unneeded": {"sdhci-iproc fixed", "brcmfmac", "i2c-bcm2835", "vc4 gpio-regulator", []string{
			"board rpi4b: /emmc2bus/mmc@7e340000 cannot do without /regulator-sd-io-1v8, which needs module gpio_regulator: expected it in kernel.modules.boot of gokr-packer.json",
		}},
		"without the slot itself": {"sdhci gpio-regulator fixed", "brcmfmac sdhci-iproc", "i2c-bcm2835", "vc4", []string{
			"board rpi4b: /emmc2bus/mmc@7e340000 needs module sdhci_iproc: expected it in kernel.modules.boot of gokr-packer.json",
		}},
		"two devices": {"sdhci-iproc gpio-regulator fixed", "brcmfmac", "", "", []string{
			"board rpi4b: /gpu needs module vc4: expected it in kernel.modules or kernel.unneeded of gokr-packer.json",
			"/i2c needs module i2c_bcm2835: expected it in kernel.modules or kernel.unneeded of gokr-packer.json",
		}},
		"what the board file lists": {"sdhci-iproc gpio-regulator fixed", "", "i2c-bcm2835", "vc4", []string{
			"board rpi4b: sdio:c00v02D0dA9BF needs module brcmfmac: expected it in kernel.modules or kernel.unneeded of gokr-packer.json",
		}},
		"unneeded and taken along": {"sdhci-iproc gpio-regulator fixed", "brcmfmac", "i2c-bcm2835 vc4", "vc4", []string{
			"module vc4 is called unneeded (no screen), and is in the image",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := manifest.Kernel{
				Modules:  map[string][]string{"boot": strings.Fields(tc.boot), "mesh": strings.Fields(tc.mesh), "i2c": strings.Fields(tc.i2c)},
				Unneeded: map[string][]string{"no screen": strings.Fields(tc.unneeded)},
			}
			b := manifest.Board{Name: "rpi4b", Devices: []string{"sdio:c00v02D0dA9BF"}}
			got := ""
			if err := Check(x, k, b, map[string][]byte{"one.dtb": tree, "same.dtb": tree}); err != nil {
				got = err.Error()
			}
			if want := strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	if err := Check(x, manifest.Kernel{}, manifest.Board{Name: "b"}, map[string][]byte{"cut.dtb": tree[:100]}); err == nil || !strings.Contains(err.Error(), "cut.dtb: device tree:") {
		t.Errorf("a damaged tree: got %v", err)
	}
}
