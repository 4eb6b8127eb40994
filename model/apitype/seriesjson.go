package apitype

import (
	"math"
	"slices"
	"strconv"
)

// What a point and the rest of a series usually take, in octets.
const (
	pointSize  = 160
	seriesSize = 256
)

// AppendJSON appends what json.Marshal makes of the list. A day by minutes is 1,440 points of
// eight values each, on which encoding/json is as long as all that finds them.
func (l SeriesList) AppendJSON(b []byte) (_ []byte, err error) {
	points := 0
	for _, s := range l.Items {
		points += len(s.Points)
	}
	b = slices.Grow(b, points*pointSize+len(l.Items)*seriesSize)
	b = append(b, `{"step_s":`...)
	if b, err = appendNumber(b, l.StepS); err != nil {
		return nil, err
	}
	b = append(b, `,"items":`...)
	if l.Items == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i, s := range l.Items {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = s.appendJSON(b); err != nil {
				return nil, err
			}
		}
		b = append(b, ']')
	}
	if l.Next != "" {
		if b, err = appendText(append(b, `,"next":`...), l.Next); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func (s Series) appendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '{')
	if s.Node != "" {
		if b, err = appendText(append(b, `"node":`...), s.Node); err != nil {
			return nil, err
		}
		b = append(b, ',')
	}
	if b, err = appendText(append(b, `"metric":`...), s.Metric); err != nil {
		return nil, err
	}
	if s.Unit != "" {
		if b, err = appendText(append(b, `,"unit":`...), s.Unit); err != nil {
			return nil, err
		}
	}
	b = append(b, `,"points":`...)
	if s.Points == nil {
		return append(b, "null}"...), nil
	}
	b = append(b, '[')
	for i := range s.Points {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = s.Points[i].appendJSON(b); err != nil {
			return nil, err
		}
	}
	return append(b, "]}"...), nil
}

func (p *Point) appendJSON(b []byte) (_ []byte, err error) {
	b = append(b, `{"time":"`...)
	if b, err = p.Time.AppendText(b); err != nil {
		return nil, err
	}
	b = append(b, `","count":`...)
	b = strconv.AppendInt(b, p.Count, 10)
	number := func(name string, v float64) {
		if err == nil {
			b, err = appendNumber(append(b, name...), v)
		}
	}
	number(`,"min":`, p.Min)
	number(`,"max":`, p.Max)
	number(`,"mean":`, p.Mean)
	mean := len(b)
	number(`,"first":`, p.First)
	number(`,"last":`, p.Last)
	if err == nil && math.Float64bits(p.Value) == math.Float64bits(p.Mean) { // usually, and the longest of all
		from := mean - 1
		for b[from] != ':' {
			from--
		}
		return append(append(append(b, `,"value":`...), b[from+1:mean]...), '}'), nil
	}
	number(`,"value":`, p.Value)
	return append(b, '}'), err
}
