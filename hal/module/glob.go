package module

// glob matches s against a pattern of depmod's: * for any run, ? for one
// octet, [0-9a-f] for a set. Unlike path.Match, * also matches a slash, which
// device-tree names contain. It never takes more than len(pattern)·len(s)
// steps.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // the last *, and where in s its run ends
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, from = p, i
				p++
				continue
			}
			if n, ok := one(pattern[p:], s[i]); ok {
				p += n
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches a single octet with the beginning of a pattern and returns how
// long that beginning is.
func one(pattern string, c byte) (n int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		for j := 1; j < len(pattern) && pattern[j] != ']'; j++ {
			lo, hi := pattern[j], pattern[j]
			if j+2 < len(pattern) && pattern[j+1] == '-' && pattern[j+2] != ']' {
				hi = pattern[j+2]
				j += 2
			}
			ok = ok || lo <= c && c <= hi
			n = j
		}
		// n is at the set's last octet; behind it comes the bracket. A set that
		// is empty or never ends matches nothing.
		if n == 0 || n+1 >= len(pattern) {
			return 0, false
		}
		return n + 2, ok
	}
	return 1, pattern[0] == c
}
