package model

import (
	"strings"
	"testing"
)

func TestNeuronNames(t *testing.T) {
	for name, good := range map[string]bool{
		"n01": true, "a": true, "7": true, "weather-mast-2": true, "a--b": true, strings.Repeat("x", 49): true,
		"": false, strings.Repeat("x", 50): false, "-a": false, "a-": false, "-": false, "N01": false, "a.b": false, "a_b": false,
		"a b": false, "ümlaut": false, "a\x00": false, "a/b": false, "a\n": false,
	} {
		if err := CheckNeuronName(name); (err == nil) != good {
			t.Errorf("%q: got %v, want it good: %v", name, err, good)
		}
	}
	for _, c := range Components() {
		if n := len(ComponentName(c, strings.Repeat("x", MaxNeuronName))); n > 63 {
			t.Errorf("the longest name of a %s has %d octets, want 63 at most", c, n)
		}
	}
}

func TestComponentNames(t *testing.T) {
	for _, tc := range []struct {
		name      string
		component Component
		neuron    string
	}{
		{"brain-sensor-n01", Sensor, "n01"},
		{"brain-thought-weather-mast-2", Thought, "weather-mast-2"},
		{"brain-memory-sensor-x", Memory, "sensor-x"},
		{"brain-send-7", Send, "7"},
		{"brain-thought-" + strings.Repeat("x", 49), Thought, strings.Repeat("x", 49)},
		{"brain-thought-" + strings.Repeat("x", 50), "", ""},
		{"brain-sensor-", "", ""},
		{"brain-sensor", "", ""},
		{"brain-sensor--n01", "", ""},
		{"brain-camera-2", "", ""},
		{"brain--n01", "", ""},
		{"Brain-sensor-n01", "", ""},
		{"brain-Sensor-n01", "", ""},
		{"brain-sensor-N01", "", ""},
		{"brain-sensor-n01.halo", "", ""},
		{"brains-sensor-n01", "", ""},
		{"sensor-n01", "", ""},
		{"", "", ""},
	} {
		c, neuron, err := ParseComponentName(tc.name)
		if c != tc.component || neuron != tc.neuron || (err == nil) != (tc.neuron != "") {
			t.Errorf("%q: got %q of %q, %v; want %q of %q", tc.name, c, neuron, err, tc.component, tc.neuron)
		}
	}
}

// FuzzComponentName holds that whatever is taken for a component's name is the one
// that the component and its neuron have, and one label of DNS.
func FuzzComponentName(f *testing.F) {
	for _, s := range []string{"brain-sensor-n01", "brain-send-a-b", "brain-memory--", "brain-thought-" + strings.Repeat("x", 50), "mast"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, neuron, err := ParseComponentName(s)
		if err != nil {
			if c != "" || neuron != "" || len(err.Error()) > 600 {
				t.Fatalf("%q: an error with %q of %q, %d octets long", s, c, neuron, len(err.Error()))
			}
			return
		}
		if got := ComponentName(c, neuron); got != s || len(s) > 63 || !c.Valid() || CheckNeuronName(neuron) != nil {
			t.Fatalf("%q was read as %q of %q, which is called %q", s, c, neuron, got)
		}
		if strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasSuffix(s, "-") {
			t.Fatalf("%q is no label of a host", s)
		}
	})
}

func TestParts(t *testing.T) {
	for _, tc := range []struct {
		part            Part
		device, process string
	}{
		{Part{PartDevice, "n-a"}, "n-a", ""},
		{Part{PartProcess, ProcessID("halo-agent", "n-a")}, "n-a", "halo-agent"},
		{Part{PartProcess, "halo-agent"}, "", "halo-agent"},
		{Part{PartDevice, "a@b"}, "a@b", ""},
	} {
		if device, process := tc.part.Device(); device != tc.device || process != tc.process {
			t.Errorf("%+v: got %q of %q", tc.part, process, device)
		}
	}
}
