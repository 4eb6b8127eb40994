package legal

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/nl80211"
)

func reasons(a Answer) string {
	var all []string
	for _, r := range a.Reasons {
		all = append(all, r.String())
	}
	return strings.Join(all, "; ")
}

func TestHaLow(t *testing.T) {
	for name, tc := range map[string]struct {
		ask       S1G
		allowed   bool
		eirp      DBm
		conducted DBm // with 2 dBi and no cable
		duty      DutyCycle
		reason    string
	}{
		"US":                      {S1G{Country: "US", Number: 28}, true, 3600, 3000, Always, "47 CFR 15.247(b)"},
		"AU by the driver's":      {S1G{Country: "AU", Scheme: channel.REVmf, Number: 55}, true, 3000, 2800, Always, "at most 30 dBm"},
		"AU without a scheme":     {S1G{Country: "AU", Number: 44}, false, 0, 0, Always, "name that of the driver"},
		"NZ below 920 MHz":        {S1G{Country: "NZ", Number: 32}, true, 3000, 2800, Always, "below 920 MHz"},
		"NZ above":                {S1G{Country: "NZ", Number: 44}, true, 3600, 3400, Always, "from 920 MHz"},
		"a station in Germany":    {S1G{Country: "DE", Number: 9}, true, 1600, 1400, 280, "DE goes by the rules of EU"},
		"an access point there":   {S1G{Country: "DE", Number: 9, Access: true}, true, 1600, 1400, 1000, "a network access point for 10 %"},
		"the European 2 MHz":      {S1G{Country: "EU", Number: 2}, false, 0, 0, Always, "1 MHz: 1 3 5 7 9"},
		"JP":                      {S1G{Country: "JP", Number: 38}, true, 1600, 1400, 1000, "2 ms between frames"},
		"28 is not 2 MHz wide":    {S1G{Country: "US", Number: 28, WidthMHz: 2}, false, 0, 0, Always, "8 MHz wide, not 2"},
		"a country without rules": {S1G{Country: "RU", Number: 9}, false, 0, 0, Always, "HaLow stays off"},
		"below all numbers":       {S1G{Country: "US", Number: -3}, false, 0, 0, Always, "no S1G channel -3"},
	} {
		t.Run(name, func(t *testing.T) {
			a := HaLow(tc.ask)
			if a.Allowed != tc.allowed || a.MaxEIRP != tc.eirp || a.Duty != tc.duty || !strings.Contains(reasons(a), tc.reason) {
				t.Errorf("got %+v, want %+v", a, tc)
			}
			if got := a.MostConducted(200, 0); a.Allowed && got != tc.conducted {
				t.Errorf("at the connector %s, want %s", got, tc.conducted)
			}
			if err := a.Check(Station{}); (err == nil) != tc.allowed || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("check of 0 dBm: %v", err)
			}
		})
	}
}

// TestEveryChannelHasARule: a table of channels without rules would be off
// wherever it is needed.
func TestEveryChannelHasARule(t *testing.T) {
	for _, country := range channel.Regions() {
		for _, s := range []channel.Scheme{channel.IEEE20, channel.IEEE24, channel.REVmf} {
			all, err := HaLowChannels(country, s)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				if !a.Allowed || a.MaxEIRP <= 0 || a.Duty <= 0 || a.MaxWidthKHz < 1000 || len(a.Reasons) == 0 {
					t.Errorf("%s %s: %+v", country, s, a)
				}
			}
		}
	}
	if _, err := HaLowChannels("RU", channel.Fixed); err == nil {
		t.Error("a country without a table has channels")
	}
}

func TestStation(t *testing.T) {
	us := HaLow(S1G{Country: "US", Number: 28})
	eu := HaLow(S1G{Country: "EU", Number: 9})
	if us.CentreKHz != 916000 || us.WidthKHz != 8000 {
		t.Errorf("channel 28 of the US: got %d kHz, %d kHz wide", us.CentreKHz, us.WidthKHz)
	}
	for name, tc := range map[string]struct {
		answer Answer
		set    Station
		want   string // of the error
	}{
		"as much as there is":           {us, Station{3000, 600, 0}, ""},
		"over 6 dBi":                    {us, Station{3000, 900, 0}, "39 dBm from the antenna (30 dBm at the connector) on S1G channel 28 (916.0 MHz, 8 MHz wide) in US, of 36 dBm at most: set at most 27 dBm"},
		"a cable makes up for it":       {us, Station{3000, 900, 300}, ""},
		"a cable does not at the radio": {us, Station{3100, 0, 900}, "31 dBm at the connector"},
		"the module's most in Europe":   {eu, Station{2200, 200, 0}, "set at most 14 dBm"},
		"within 16 dBm":                 {eu, Station{1400, 250, 50}, ""},
		"a cable that amplifies":        {eu, Station{1400, 0, -100}, "amplifies"},
		"half a dB":                     {eu, Station{1650, 0, 0}, "16.5 dBm from the antenna"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.answer.Check(tc.set)
			if tc.want == "" && err == nil {
				return
			}
			if tc.want == "" || err == nil || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestWiFi(t *testing.T) {
	de := nl80211.Regulatory{Country: "DE", Wiphy: -1, Rules: []nl80211.Rule{
		{StartKHz: 2400000, EndKHz: 2483500, MaxWidthKHz: 40000, MaxEIRPMBm: 2000},
		{StartKHz: 5150000, EndKHz: 5250000, MaxWidthKHz: 80000, MaxEIRPMBm: 2300, Flags: nl80211.RuleNoOutdoor | nl80211.RuleAutoBW},
		{StartKHz: 5470000, EndKHz: 5725000, MaxWidthKHz: 160000, MaxEIRPMBm: 2698, Flags: nl80211.RuleDFS},
		{StartKHz: 5945000, EndKHz: 6425000, MaxWidthKHz: 20000, MaxEIRPMBm: 2300, Flags: nl80211.RuleNoIR},
	}}
	for name, tc := range map[string]struct {
		wanted  string
		c       nl80211.Channel
		allowed bool
		eirp    DBm
		reason  string
	}{
		"channel 1":          {"DE", nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}, true, 2000, "at most 20 dBm from the antenna (the kernel's rules of DE)"},
		"40 MHz about 2422":  {"DE", nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width40, Center1MHz: 2422}, true, 2000, ""},
		"channel 14":         {"DE", nl80211.Channel{FreqMHz: 2484, Width: nl80211.Width20}, false, 0, "no rule lets anybody use 2474 to 2494 MHz"},
		"indoors":            {"DE", nl80211.Channel{FreqMHz: 5180, Width: nl80211.Width20}, true, 2300, "indoors only"},
		"radar":              {"DE", nl80211.Channel{FreqMHz: 5500, Width: nl80211.Width20}, false, 2698, "radar"},
		"only after another": {"DE", nl80211.Channel{FreqMHz: 6000, Width: nl80211.Width20}, false, 2300, "has not heard another first"},
		"too wide":           {"DE", nl80211.Channel{FreqMHz: 6000, Width: nl80211.Width40, Center1MHz: 6010}, false, 2300, "20 MHz wide at most"},
		"past the end":       {"DE", nl80211.Channel{FreqMHz: 5240, Width: nl80211.Width40, Center1MHz: 5250}, false, 0, "no rule"},
		"another country":    {"US", nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}, false, 0, "set to US, and the kernel keeps to DE"},
		"no such width":      {"DE", nl80211.Channel{FreqMHz: 2412, Width: 99}, false, 0, "a width that is known"},
	} {
		t.Run(name, func(t *testing.T) {
			a := WiFi(tc.wanted, de, tc.c)
			if a.Allowed != tc.allowed || a.MaxEIRP != tc.eirp || !strings.Contains(reasons(a), tc.reason) {
				t.Errorf("got %+v, want %+v", a, tc)
			}
		})
	}
	de.Wiphy = 3
	if a := WiFi("DE", de, nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}); !strings.Contains(reasons(a), "radio 3 brings along") {
		t.Errorf("a radio's own rules: %s", reasons(a))
	}
}

func TestAccount(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	a := NewAccount(280, start) // 100.8 s of an hour
	if a.Budget() != 100800*time.Millisecond {
		t.Fatalf("budget %s", a.Budget())
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.Reserve(at(10*time.Second), 60*time.Second))
	must(a.Reserve(at(20*time.Minute), 40*time.Second))
	err := a.Reserve(at(30*time.Minute), time.Second)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "leaves 800ms; wait 31m0s") {
		t.Errorf("above the budget: %v", err)
	}
	if left := a.Left(at(30 * time.Minute)); left != 800*time.Millisecond {
		t.Errorf("a refusal cost airtime: %s left", left)
	}
	// The first minute counts until all of it is an hour ago.
	if err := a.Reserve(at(time.Hour+59*time.Second), time.Second); err == nil {
		t.Error("airtime came back before its hour was over")
	}
	must(a.Reserve(at(time.Hour+time.Minute), 60*time.Second))
	if err := a.Reserve(at(time.Hour+2*time.Minute), 200*time.Second); err == nil || !strings.Contains(err.Error(), "more than the 1m40.8s that an hour has") {
		t.Errorf("more than any hour has: %v", err)
	}
	// What the driver sent counts although it is too much.
	a.Charge(at(90*time.Minute), 300*time.Second)
	if left := a.Left(at(90 * time.Minute)); left > -200*time.Second {
		t.Errorf("%s left after far too much", left)
	}
	if err := a.Reserve(at(90*time.Minute), time.Second); err == nil || !strings.Contains(err.Error(), "leaves 0s") {
		t.Errorf("while in debt: %v", err)
	}
	// A clock that goes back gives nothing back.
	if left := a.Left(at(-time.Hour)); left > -200*time.Second {
		t.Errorf("%s left after the clock went back", left)
	}
	if left := a.Left(at(24 * time.Hour)); left != a.Budget() {
		t.Errorf("%s left a day later", left)
	}
	a.Charge(at(24*time.Hour), -time.Hour)
	if left := a.Left(at(24 * time.Hour)); left != a.Budget() {
		t.Errorf("%s left after airtime below nothing", left)
	}
}

// TestAnyHour holds the sliding window against a plain sum: whatever is asked
// for, no hour has more than the budget.
func TestAnyHour(t *testing.T) {
	type sent struct{ at, airtime time.Duration }
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := NewAccount(1000, start)
	var all []sent
	state := uint32(1)
	random := func(below int) int { // a fixed sequence
		state = state*1664525 + 1013904223
		return int(state>>8) % below
	}
	for now := time.Duration(0); now < 6*time.Hour; now += time.Duration(random(20000)) * time.Millisecond {
		airtime := time.Duration(random(4000)) * time.Millisecond
		if a.Reserve(start.Add(now), airtime) == nil {
			all = append(all, sent{now, airtime})
		}
	}
	most := time.Duration(0)
	for i, from := range all {
		sum := time.Duration(0)
		for _, s := range all[i:] {
			if s.at <= from.at+Window {
				sum += s.airtime
			}
		}
		most = max(most, sum)
	}
	if most > a.Budget() {
		t.Errorf("an hour with %s, of %s", most, a.Budget())
	}
	if most < a.Budget()*9/10 {
		t.Errorf("the fullest hour has %s of %s: the account is too strict", most, a.Budget())
	}
}

func TestRulesNameTheirSources(t *testing.T) {
	for _, r := range s1gRules {
		for _, reason := range []Reason{r.eirp, r.conducted, r.duty} {
			if (reason.Text == "") != (reason.Source == "") {
				t.Errorf("%s: %+v", r.region, reason)
			}
		}
		if r.eirp.Text == "" || (r.duty.Text == "") != (r.station == Always) || !slices.Contains(channel.Regions(), r.region) {
			t.Errorf("%+v", r)
		}
	}
}
