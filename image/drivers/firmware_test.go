package drivers

import (
	"strings"
	"testing"

	"halo.internal/image/manifest"
)

func TestCheckFirmware(t *testing.T) {
	asked := map[string][]string{
		"ath9k_htc": {"ath9k_htc/htc_9271-1.4.0.fw", "ath9k_htc/htc_7010-1.4.0.fw"},
		"brcmfmac":  {"brcm/brcmfmac*-sdio.*.txt", "brcm/brcmfmac43455-sdio.bin", "brcm/brcmfmac4356-pcie.bin"},
	}
	good := func() manifest.Manifest {
		return manifest.Manifest{
			Firmware: []manifest.Firmware{
				{Files: map[string]string{"/lib/firmware/ath9k_htc/htc_9271-1.4.0.fw": "x", "/lib/firmware/ath9k_htc/htc_7010-1.4.0.fw": "x"}},
				{Files: map[string]string{"/lib/firmware/brcm/brcmfmac43455-sdio.bin": "x", "/lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt": "x"}},
			},
			FirmwareUnneeded: map[string][]string{"PCI": {"brcm/brcmfmac*-pcie.bin"}},
		}
	}
	for name, tc := range map[string]struct {
		change func(*manifest.Manifest)
		want   string
	}{
		"all there":      {func(*manifest.Manifest) {}, ""},
		"one is missing": {func(m *manifest.Manifest) { delete(m.Firmware[0].Files, "/lib/firmware/ath9k_htc/htc_7010-1.4.0.fw") }, "module ath9k_htc loads firmware ath9k_htc/htc_7010-1.4.0.fw: expected it in firmware or firmware_unneeded of gokr-packer.json"},
		"no settings of a board": {func(m *manifest.Manifest) {
			delete(m.Firmware[1].Files, "/lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt")
		}, "module brcmfmac loads firmware brcm/brcmfmac*-sdio.*.txt"},
		"for no module":        {func(m *manifest.Manifest) { m.Firmware[0].Files["/lib/firmware/mt7662.bin"] = "x" }, "firmware mt7662.bin: no module of the image loads it"},
		"unneeded for nothing": {func(m *manifest.Manifest) { m.FirmwareUnneeded["old"] = []string{"iwlwifi*"} }, "firmware iwlwifi* is called unneeded, and no module"},
		"unneeded and there":   {func(m *manifest.Manifest) { m.FirmwareUnneeded["PCI"][0] = "brcm/*.bin" }, "firmware brcm/brcmfmac43455-sdio.bin is called unneeded"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			tc.change(&m)
			err := CheckFirmware(asked, m)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
