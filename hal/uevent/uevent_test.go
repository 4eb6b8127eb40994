package uevent

import (
	"maps"
	"strings"
	"testing"
)

const rotten = "change@/devices/virtual/block/dm-0\x00ACTION=change\x00DEVPATH=/devices/virtual/block/dm-0\x00SUBSYSTEM=block\x00DM_VERITY_ERR_BLOCK_NR=1,4711\x00DEVNAME=dm-0\x00SEQNUM=812\x00"

func TestParse(t *testing.T) {
	e, err := Parse([]byte(rotten))
	if err != nil {
		t.Fatal(err)
	}
	want := Event{"ACTION": "change", "DEVPATH": "/devices/virtual/block/dm-0", "SUBSYSTEM": "block", "DM_VERITY_ERR_BLOCK_NR": "1,4711", "DEVNAME": "dm-0", "SEQNUM": "812"}
	if !maps.Equal(e, want) {
		t.Errorf("got %q, want %q", e, want)
	}
	e, err = Parse([]byte("add@/devices/usb1\x00ACTION=add\x00MODALIAS=usb:v0BDA\x00nothing\x00"))
	if err != nil || e.Action() != "add" || e.Modalias() != "usb:v0BDA" {
		t.Errorf("got %q, %v", e, err)
	}
}

func TestParseRefusals(t *testing.T) {
	for name, in := range map[string]string{
		"empty":          "",
		"udev's":         "libudev\x00\xfe\xed\xca\xfe",
		"without action": "add@/devices/x\x00SUBSYSTEM=usb\x00",
	} {
		if e, err := Parse([]byte(in)); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%s: got %q, %v", name, e, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(rotten))
	f.Add([]byte("add@/\x00ACTION=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && e.Action() == "" {
			t.Errorf("accepted without an action: %q", e)
		}
	})
}
