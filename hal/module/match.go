package module

// Matches tells whether a device with that modalias asks for the module of an
// alias line with that pattern. Builds ask it too, so that they foresee what
// the loader does on the board.
func Matches(pattern, modalias string) bool {
	return glob(normalizeAlias(pattern), normalizeAlias(modalias))
}
