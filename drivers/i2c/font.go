package i2c

import (
	_ "embed"
	"strings"
	"sync"
)

// font.txt has the characters from space to ~, and a degree sign, in rows of sixteen:
// each is five dots wide and eight high.
//
//go:embed font.txt
var fontText string

// Dots of a character's cell, of which the last column is empty.
const (
	cellWidth  = 6
	cellHeight = 8
)

// font has a character's columns, from the left; the lowest bit is the top.
var font = sync.OnceValue(func() map[rune][cellWidth]byte {
	rows := strings.Split(strings.TrimSpace(fontText), "\n")
	chars := map[rune][cellWidth]byte{}
	for i := range 96 {
		var columns [cellWidth]byte
		for y := range cellHeight {
			for x := range cellWidth - 1 {
				if rows[i/16*cellHeight+y][i%16*cellWidth+x] == '#' {
					columns[x] |= 1 << y
				}
			}
		}
		c := rune(' ' + i)
		if i == 95 {
			c = '°'
		}
		chars[c] = columns
	}
	return chars
})

// glyph is a character's columns, or those of ? for what the font has not.
func glyph(c rune) [cellWidth]byte {
	if g, ok := font()[c]; ok {
		return g
	}
	return font()['?']
}
