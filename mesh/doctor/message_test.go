package doctor

import (
	"errors"
	"testing"
)

func messages() []message {
	key := [keySize]byte{1, 2, 3}
	return []message{
		{kind: kindEcho, id: 1, index: 9, size: echoSize + headers},
		{kind: kindEcho, id: 1, index: 9, size: 1420},
		{kind: kindEchoed, id: 1, index: 9, size: 1420},
		{kind: kindWatch, id: 2, key: key},
		{kind: kindWatch, id: 2, key: key, deaf: true},
		{kind: kindSeen, id: 2, seen: [groups]uint8{0xf, 1}, size: 1500},
		message{kind: kindUnicast, id: 3, index: 300, size: 1500}.sealed(key),
		message{kind: kindUnicast, id: 3, index: 300, size: probeSize + headers}.sealed(key),
		message{kind: kindToAll, id: 4, index: 7, group: groupFlood}.sealed(key),
	}
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range messages() {
		b := m.append(nil)
		got, err := parse(b)
		if err != nil || got != m {
			t.Errorf("%+v: got %+v, %v", m, got, err)
		}
		if padded := m.kind == kindEcho || m.kind == kindUnicast; padded && len(b)+headers != int(m.size) {
			t.Errorf("%+v has %d octets", m, len(b)+headers)
		}
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"another protocol":  []byte("GET / HTTP/1.1\r\n"),
		"another version":   change(messages()[0], 2, 9),
		"an unknown kind":   change(messages()[0], 3, 99),
		"a lie about size":  change(messages()[1], 14, 1),
		"cut short":         messages()[3].append(nil)[:20],
		"too long":          append(messages()[3].append(nil), 0),
		"a flag of 2":       change(messages()[3], 12, 2),
		"an index too high": change(messages()[8], 13, maxIndex),
		"a group too high":  change(messages()[8], 14, groups),
	} {
		if m, err := parse(b); !errors.Is(err, errForm) {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}

func change(m message, at int, to byte) []byte {
	b := m.append(nil)
	b[at] = to
	return b
}

func TestProbesAreBoundToTheirKey(t *testing.T) {
	key := [keySize]byte{1}
	m := message{kind: kindUnicast, id: 3, index: 5, size: 1400}.sealed(key)
	if !m.genuine(key) {
		t.Error("a probe does not verify")
	}
	for i, other := range []message{
		{kind: kindUnicast, id: 3, index: 5, size: 1500, mac: m.mac},
		{kind: kindUnicast, id: 3, index: 6, size: 1400, mac: m.mac},
		{kind: kindUnicast, id: 4, index: 5, size: 1400, mac: m.mac},
		{kind: kindToAll, id: 3, index: 5, mac: m.mac},
	} {
		if other.genuine(key) {
			t.Errorf("%d: a changed probe verifies", i)
		}
	}
	if m.genuine([keySize]byte{2}) {
		t.Error("a probe verifies under another key")
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.append(nil))
	}
	f.Add([]byte("HD\x01\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		again := m.append(nil)
		if got, err := parse(again); err != nil || got != m || len(again) != len(b) {
			t.Fatalf("%x: got %+v, %v, want %+v", b, got, err, m)
		}
		m.genuine([keySize]byte{})
	})
}
