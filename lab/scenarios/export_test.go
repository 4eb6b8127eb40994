package scenarios

import "halo.internal/identity"

// Forge is forge, for who reads forgeries as members do: texts, and why each is to be
// ignored.
func Forge(network identity.PublicKey, heard []byte) (texts [][]byte, reasons []string, err error) {
	all, err := forge(network, heard)
	for _, f := range all {
		texts, reasons = append(texts, f.text), append(reasons, f.reason)
	}
	return texts, reasons, err
}

// Announced is announced.
var Announced = announced
