package api

import (
	"cmp"
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
	keys := make([]*placed, len(list))
	for i, t := range list {
		keys[i] = &placed{i, key(t)}
	}
	if keys, next, err = cutPage(keys, p.Limit, after); err != nil {
		return nil, "", err
	}
	items = make([]T, len(keys))
	for i, k := range keys {
		items[i] = list[k.at]
	}
	return items, next, nil
}

// placed is an item by its place in a list and its key.
type placed struct {
	at  int
	key []string
}

// cutPage does pageOf's work, by one program for all types of items: all is put in order,
// and after is what the cursor holds, nil for the first page.
func cutPage(all []*placed, limit int, after []string) (page []*placed, next string, err error) {
	slices.SortFunc(all, func(a, b *placed) int { return cmp.Or(slices.Compare(a.key, b.key), a.at-b.at) })
	// first of those that have a key, or a later one
	first := func(k []string) int {
		i, _ := slices.BinarySearchFunc(all, k, func(t *placed, k []string) int { return slices.Compare(t.key, k) })
		return i
	}
	from := 0
	if after != nil {
		k, before := after[:len(after)-1], after[len(after)-1]
		place, err := strconv.ParseUint(before, 10, 31)
		if err != nil {
			return nil, "", notACursor()
		}
		for from = first(k); from < len(all) && place > 0 && slices.Equal(all[from].key, k); place-- {
			from++
		}
	}
	to := min(from+limit, len(all))
	if to < len(all) {
		k := all[to-1].key
		next = cursorOf(append(slices.Clone(k), strconv.Itoa(to-first(k)))...)
	}
	return all[from:to], next, nil
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
