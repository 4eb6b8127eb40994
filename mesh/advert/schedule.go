package advert

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

// Times of RFC 4861, 6.2.1 and 10.
const (
	maxInterval  = 10 * time.Minute // between unsolicited advertisements
	minInterval  = maxInterval / 3
	firstFew     = 3 // are sent sooner
	firstFewGap  = 16 * time.Second
	longestDelay = 500 * time.Millisecond // of an answer, random
	minGap       = 3 * time.Second        // between advertisements to all
	maxAnswers   = 16                     // to one each, that wait at a time
)

// schedule says when to advertise to whom.
type schedule struct {
	answers map[netip.Addr]time.Time
	due     time.Time // of the next to all
	last    time.Time // to all
	sent    int       // to all
}

func newSchedule(now time.Time) *schedule {
	return &schedule{answers: map[netip.Addr]time.Time{}, due: now}
}

// solicit answers a host, the zero Addr by telling all.
func (s *schedule) solicit(now time.Time, from netip.Addr) {
	at := now.Add(rand.N(longestDelay))
	if _, waits := s.answers[from]; waits {
		return
	}
	if from.IsValid() && len(s.answers) < maxAnswers {
		s.answers[from] = at
		return
	}
	s.all(at)
}

func (s *schedule) all(at time.Time) {
	if soonest := s.last.Add(minGap); at.Before(soonest) {
		at = soonest
	}
	if at.Before(s.due) {
		s.due = at
	}
}

// take returns to whom to send now.
func (s *schedule) take(now time.Time) []netip.Addr {
	if !now.Before(s.due) {
		s.last = now
		s.sent++
		s.due = now.Add(minInterval + rand.N(maxInterval-minInterval))
		if s.sent < firstFew {
			s.due = now.Add(firstFewGap)
		}
		clear(s.answers) // they are among all
		return []netip.Addr{allNodes}
	}
	var list []netip.Addr
	for to, at := range s.answers {
		if !now.Before(at) {
			delete(s.answers, to)
			list = append(list, to)
		}
	}
	return list
}

func (s *schedule) next() time.Time {
	due := s.due
	for _, at := range s.answers {
		if at.Before(due) {
			due = at
		}
	}
	return due
}
