// Package order sorts slices of structs by one program for all of their types. A board's
// programs have little room, and slices.SortFunc is 10 KiB of program and tables for each
// type of element, slices.SortStableFunc 14; only those of pointers, numbers and texts are
// shared by many, and are left to them.
package order

import (
	"cmp"
	"reflect"
	"slices"
)

// By puts s in the order that compare tells as that of slices.SortFunc does; what is equal
// stays in the order in which it is. Meanwhile it takes four octets for each element, and
// s has at most 2³¹-1 of them.
func By[T any](s []T, compare func(a, b T) int) {
	by(s, len(s), func(a, b int32) int { return compare(s[a], s[b]) })
}

// by is By for any type of s, which has n elements, compared by their places.
func by(s any, n int, compare func(a, b int32) int) {
	sorted := 1
	for sorted < n && compare(int32(sorted-1), int32(sorted)) <= 0 {
		sorted++
	}
	if sorted >= n {
		return
	}
	from := make([]int32, n) // where what comes to a place is now
	for i := range from {
		from[i] = int32(i)
	}
	slices.SortFunc(from, func(a, b int32) int { return cmp.Or(compare(a, b), int(a-b)) })
	swap := reflect.Swapper(s)
	for i := range from { // along each cycle once, what stood at its beginning is carried on to its end
		for at := int32(i); from[at] >= 0; {
			next := from[at]
			from[at] = -1
			if from[next] >= 0 {
				swap(int(at), int(next))
			}
			at = next
		}
	}
}
