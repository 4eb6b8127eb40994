package api

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"halo.internal/model/apitype"
)

func BenchmarkJSON(b *testing.B) {
	var s apitype.Series
	for i := range 1440 {
		v := float64(rand.IntN(1000)) / 10
		s.Points = append(s.Points, apitype.Point{Time: time.Unix(int64(i)*60, 0).UTC(), Count: 6, Min: v, Max: v, Mean: v / 7, First: v, Last: v, Value: v / 7})
	}
	l := apitype.SeriesList{Items: []apitype.Series{s}}
	for b.Loop() {
		json.NewEncoder(io.Discard).Encode(l)
	}
	x, _ := json.Marshal(l)
	b.ReportMetric(float64(len(x)), "B")
}

var _ = http.StatusOK
