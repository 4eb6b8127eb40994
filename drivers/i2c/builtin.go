package i2c

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"sync"
)

//go:embed templates/*.toml
var templates embed.FS

// drivers are the chips that no template can express.
var drivers = []Driver{SSD1306{}, VL53L0X{}}

// Builtin are the chips that HALO knows by itself, those of templates first, by
// name.
var Builtin = sync.OnceValue(func() []Driver {
	entries, err := templates.ReadDir("templates")
	if err != nil {
		panic("i2c: " + err.Error()) // embedded
	}
	var list []Driver
	for _, e := range entries {
		text, err := BuiltinText(e.Name())
		if err != nil {
			panic("i2c: " + err.Error())
		}
		t, err := Parse(e.Name(), text)
		if err != nil {
			panic(fmt.Sprintf("i2c: %v", err)) // tests parse all of them
		}
		list = append(list, t)
	}
	return append(list, drivers...)
})

// BuiltinText is the text of a built-in template, such as bme280.toml: something to
// begin another with.
func BuiltinText(file string) ([]byte, error) {
	return templates.ReadFile(path.Join("templates", path.Base(file)))
}

// Digest names a template by its text.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
