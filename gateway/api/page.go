package api

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"halo.internal/model/apitype"
)

// Page are the parameters of every list that may be long.
type Page struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"items on a page"`
	Cursor string `query:"cursor" maxLength:"512" doc:"next of the page before"` // the longest: a node, a metric and a unit, in base64
}

// cursorOf makes a cursor of what sorts the last item of a page.
func cursorOf(key ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(key, "\x00")))
}

// keyOf takes it back; nil: the first page.
func keyOf(cursor string, parts int) ([]string, error) {
	if cursor == "" {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	key := strings.SplitN(string(text), "\x00", parts) // the last of them may have anything in it, as units of metrics do
	if err != nil || len(key) != parts {
		return nil, notACursor()
	}
	return key, nil
}

func notACursor() error {
	return apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
}

// pageOf puts a list that is there as a whole in the order of its items' keys, each of so
// many parts, and cuts the page out of it that is asked for; next is the cursor of the one
// after it, or "". Items of one key are told apart by their place among each other, so that
// none falls between two pages; what comes and goes meanwhile moves no others.
func pageOf[T any](list []T, p Page, parts int, key func(T) []string) (items []T, next string, err error) {
	after, err := keyOf(p.Cursor, parts+1)
	if err != nil {
		return nil, "", err
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b T) int { return slices.Compare(key(a), key(b)) })
	// first of those that have a key, or a later one
	first := func(k []string) int {
		i, _ := slices.BinarySearchFunc(list, k, func(t T, k []string) int { return slices.Compare(key(t), k) })
		return i
	}
	from := 0
	if after != nil {
		place, err := strconv.ParseUint(after[parts], 10, 31)
		if err != nil {
			return nil, "", notACursor()
		}
		k := after[:parts]
		for from = first(k); from < len(list) && place > 0 && slices.Equal(key(list[from]), k); place-- {
			from++
		}
	}
	to := min(from+p.Limit, len(list))
	if to < len(list) {
		k := key(list[to-1])
		next = cursorOf(append(slices.Clone(k), strconv.Itoa(to-first(k)))...)
	}
	return append([]T{}, list[from:to]...), next, nil
}

// addressKey sorts addresses as netip does: IPv4 first.
func addressKey(a netip.Addr) string {
	return ordered(a.Is4()) + hex.EncodeToString(a.AsSlice()) + a.Zone()
}

// ordered sorts what is so before what is not.
func ordered(so bool) string {
	if so {
		return "0"
	}
	return "1"
}
