package channel

import (
	"cmp"

	"halo.internal/model/order"
)

// tables returns all tables anew, so that nobody changes them for others.
func tables() []Table {
	american := func(n int) int { return 902000 + 500*n }
	european := func(n int) int { return 863000 + 500*n }
	classes := map[int]int{1: 68, 2: 69, 4: 70, 8: 71}
	return []Table{
		{"US", Fixed, list(american, as5GHz, classes, widths{1: every(1, 51, 2), 2: every(2, 50, 4), 4: every(8, 48, 8), 8: every(12, 44, 16)})},
		{"NZ", Fixed, list(american, as5GHz, classes, australian2020())},
		{"AU", IEEE20, list(american, as5GHz, classes, australian2020())},
		{"AU", IEEE24, list(american, as5GHzShifted, nil, australian2024())},
		{"AU", REVmf, australianREVmf()},
		{"EU", Fixed, list(european, as5GHz, map[int]int{1: 66}, widths{1: every(1, 9, 2)})},
		{"GB", Fixed, british(european)},
		{"JP", Fixed, japanese()},
	}
}

// widths is channel numbers by the width in MHz.
type widths map[int][]int

func australian2020() widths {
	return widths{1: every(27, 51, 2), 2: every(30, 50, 4), 4: every(32, 48, 8), 8: {44}}
}

// australian2024 lies half a channel higher, so that the band from 915 MHz,
// where 500 kHz are kept free, holds two channels of 8 MHz.
func australian2024() widths {
	return widths{1: every(28, 50, 2), 2: every(29, 49, 4), 4: every(31, 47, 8), 8: {35, 43}}
}

// australianREVmf adds channels between the others, numbered from 894 MHz so
// that no number is used twice.
func australianREVmf() []Channel {
	between := list(func(n int) int { return 894000 + 500*n }, func(n int) int { return 2*n + 53 }, nil, widths{4: {51, 59}, 8: {55}})
	return byWidth(append(list(func(n int) int { return 902000 + 500*n }, as5GHzShifted, nil, australian2024()), between...))
}

// british has the European channels and two of another band, numbered from
// 901.4 MHz.
func british(european func(int) int) []Channel {
	low := list(european, as5GHz, map[int]int{1: 66}, widths{1: every(1, 9, 2)})
	high := list(func(n int) int { return 901400 + 500*n }, as5GHz, map[int]int{1: 77}, widths{1: {33, 35}})
	return append(low, high...)
}

// japanese has three numberings of its own: odd numbers, even numbers and those
// of 4 MHz. Of channels that overlap (2 and 4, 36 and 38 …), the upper ones have
// a part of 5 GHz for themselves.
func japanese() []Channel {
	return []Channel{
		{9, 921000, 1, 73, 108}, {13, 923000, 1, 73, 36}, {15, 924000, 1, 73, 40}, {17, 925000, 1, 73, 44}, {19, 926000, 1, 73, 48}, {21, 927000, 1, 73, 64},
		{2, 923500, 2, 64, 38}, {4, 924500, 2, 64, 54}, {6, 925500, 2, 64, 46}, {8, 926500, 2, 64, 62},
		{36, 924500, 4, 65, 42}, {38, 925500, 4, 65, 58},
	}
}

// every counts from first to last.
func every(first, last, step int) (numbers []int) {
	for n := first; n <= last; n += step {
		numbers = append(numbers, n)
	}
	return numbers
}

func list(centre, mapped func(int) int, classes map[int]int, of widths) (all []Channel) {
	for _, w := range []int{1, 2, 4, 8} {
		for _, n := range of[w] {
			all = append(all, Channel{Number: n, CentreKHz: centre(n), WidthMHz: w, Class: classes[w], As5GHz: mapped(n)})
		}
	}
	return all
}

// as5GHz puts the channels of 902–928 MHz, and those of Europe by the same
// numbers, into the parts of 5 GHz that the kernel knows channels in; what lies
// between 132 and 138 is for the lowest two MHz.
func as5GHz(n int) int {
	switch {
	case n <= 3:
		return 130 + 2*n
	case n <= 19:
		return 26 + 2*n
	case n <= 35:
		return 58 + 2*n
	}
	return 75 + 2*n
}

func as5GHzShifted(n int) int {
	if n <= 42 {
		return 2*n - 20
	}
	return 2*n + 28
}

// byWidth sorts as list does.
func byWidth(all []Channel) []Channel {
	order.By(all, func(a, b Channel) int {
		return cmp.Or(cmp.Compare(a.WidthMHz, b.WidthMHz), cmp.Compare(a.Number, b.Number))
	})
	return all
}
