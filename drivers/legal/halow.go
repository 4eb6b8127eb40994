package legal

import "halo.internal/drivers/halow/channel"

// s1gRule is what one region says of a range of frequencies.
type s1gRule struct {
	region          string
	lowKHz, highKHz int
	eirp            Reason
	maxEIRP         DBm
	conducted       Reason // its text empty without a limit of its own
	maxConducted    DBm
	duty            Reason // its text empty without a limit
	station, access DutyCycle
}

// Sources of the table.
const (
	driver = "Morse driver d457021, dot11ah/reg_rules.c"
	regdb  = "Morse regdb 1cb25f1, repo_channels.csv"
	fcc    = "47 CFR 15.247(b)"
)

// s1gRules holds what is known. Where driver and regdb differ, the stricter is
// here.
var s1gRules = []s1gRule{
	{
		region: "US", lowKHz: 902000, highKHz: 928000,
		maxEIRP: 3600, eirp: Reason{"at most 36 dBm from the antenna", regdb + "; " + driver},
		maxConducted: 3000, conducted: Reason{"at most 1 W at the connector, less what the antenna has over 6 dBi", fcc},
		station: Always, access: Always,
	},
	{
		region: "AU", lowKHz: 915000, highKHz: 928000,
		maxEIRP: 3000, eirp: Reason{"at most 30 dBm from the antenna", regdb + "; " + driver},
		station: Always, access: Always,
	},
	{
		region: "NZ", lowKHz: 915000, highKHz: 920000,
		maxEIRP: 3000, eirp: Reason{"at most 30 dBm from the antenna below 920 MHz", regdb + "; " + driver},
		station: Always, access: Always,
	},
	{
		region: "NZ", lowKHz: 920000, highKHz: 928000,
		maxEIRP: 3600, eirp: Reason{"at most 36 dBm from the antenna from 920 MHz", regdb + "; " + driver},
		station: Always, access: Always,
	},
	{
		region: "EU", lowKHz: 863000, highKHz: 868000,
		maxEIRP: 1600, eirp: Reason{"at most 16 dBm from the antenna", driver + "; 16.13 dBm in " + regdb},
		station: 280, access: 1000, duty: Reason{"a station may send for 2.8 % of an hour, a network access point for 10 %", driver + "; no limit in " + regdb},
	},
	{
		region: "GB", lowKHz: 863000, highKHz: 868000,
		maxEIRP: 1600, eirp: Reason{"at most 16 dBm from the antenna", driver + "; 16.13 dBm in " + regdb},
		station: 280, access: 1000, duty: Reason{"a station may send for 2.8 % of an hour, a network access point for 10 %", driver + "; no limit in " + regdb},
	},
	{
		region: "GB", lowKHz: 917400, highKHz: 919400,
		maxEIRP: 1600, eirp: Reason{"at most 16 dBm from the antenna", driver + "; 16.13 dBm in " + regdb},
		station: 280, access: 1000, duty: Reason{"a station may send for 2.8 % of an hour, a network access point for 10 %", driver + "; " + regdb},
	},
	{
		region: "JP", lowKHz: 920500, highKHz: 927500,
		maxEIRP: 1600, eirp: Reason{"at most 16 dBm from the antenna", regdb + "; " + driver},
		station: 1000, access: 1000, duty: Reason{"a station may send for 10 % of an hour; the driver keeps 2 ms between frames and 100 ms at most for one", regdb + "; " + driver},
	},
}

// S1G is what is asked about a HaLow channel.
type S1G struct {
	Country  string // ISO 3166, two letters
	Scheme   channel.Scheme
	Number   int
	WidthMHz int  // 0 takes the number's
	Access   bool // a network access point by the law's words; nodes of a mesh are none
}

// HaLow answers what is allowed on an S1G channel. A channel that the country
// does not have, or a country without a table, is an answer that refuses: its
// reason names what there is.
func HaLow(q S1G) (a Answer) {
	a = Answer{Country: q.Country, Duty: Always}
	table, err := channel.For(q.Country, q.Scheme)
	if err != nil {
		a.Channel = channel.Channel{Number: q.Number, WidthMHz: q.WidthMHz}.Short()
		a.because("table of S1G channels", "%v", err)
		return a
	}
	for _, c := range table.Channels {
		a.MaxWidthKHz = max(a.MaxWidthKHz, 1000*c.WidthMHz)
	}
	c, err := table.Find(q.Number, q.WidthMHz)
	if err != nil {
		a.Channel = channel.Channel{Number: q.Number, WidthMHz: q.WidthMHz}.Short()
		a.because(regdb+"; "+driver, "%v", err)
		return a
	}
	a.Channel, a.CentreKHz, a.WidthKHz = c.String(), c.CentreKHz, 1000*c.WidthMHz
	for _, r := range s1gRules {
		if r.region != table.Region || c.LowKHz() < r.lowKHz || c.HighKHz() > r.highKHz {
			continue
		}
		a.Allowed, a.MaxEIRP, a.Duty = true, r.maxEIRP, r.station
		if q.Access {
			a.Duty = r.access
		}
		if table.Region != q.Country {
			a.because("Morse's driver", "%s goes by the rules of %s", q.Country, table.Region)
		}
		a.Reasons = append(a.Reasons, r.eirp)
		if r.conducted.Text != "" {
			a.HasConducted, a.MaxConducted = true, r.maxConducted
			a.Reasons = append(a.Reasons, r.conducted)
		}
		if r.duty.Text != "" {
			a.Reasons = append(a.Reasons, r.duty)
		}
		return a
	}
	a.because("table of rules", "no rule of %s covers %s", table.Region, c)
	return a
}

// HaLowChannels answers for every channel of a country.
func HaLowChannels(country string, s channel.Scheme) ([]Answer, error) {
	table, err := channel.For(country, s)
	if err != nil {
		return nil, err
	}
	var all []Answer
	for _, c := range table.Channels {
		all = append(all, HaLow(S1G{Country: country, Scheme: s, Number: c.Number}))
	}
	return all, nil
}
