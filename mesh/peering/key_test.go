package peering

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestKeysDoNotPrint(t *testing.T) {
	keys := &Keys{MTK: Key{0xab, 0xcd}, Peer: GroupKeys{MGTK: Key{0xab, 0xcd}, IGTK: Key{0xab, 0xcd}}}
	b, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v", keys, keys, *keys), fmt.Sprint(keys.MTK), string(b)} {
		if strings.Contains(strings.ToLower(s), "abcd") || strings.Contains(s, "171") || strings.Contains(s, "0xab") {
			t.Errorf("a key is in %q", s)
		}
	}
	keys.Wipe()
	if *keys != (Keys{}) {
		t.Error("keys are not wiped")
	}
}
