package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/control"
	"halo.internal/lab/network"
)

// where is a place in words.
func where(p physics.Position) string {
	if p.Z == 0 {
		return fmt.Sprintf("%.4g,%.4g", p.X, p.Y)
	}
	return fmt.Sprintf("%.4g,%.4g,%.4g", p.X, p.Y, p.Z)
}

// radios are those of a machine in words.
func radios(list []network.Radio) string {
	if len(list) == 0 {
		return "-"
	}
	var parts []string
	for _, r := range list {
		state := "off"
		if r.On {
			state = "on"
		}
		parts = append(parts, state+" at "+where(r.Position))
	}
	return strings.Join(parts, "; ")
}

func onChannel(freqMHz int) string {
	if freqMHz == 0 {
		return "all channels"
	}
	return fmt.Sprintf("%d MHz", freqMHz)
}

func describeJammer(j air.Jammer) string {
	if j.At != nil {
		return fmt.Sprintf("%.3g dBm from %s on %s", j.PowerDBm, where(*j.At), onChannel(j.FreqMHz))
	}
	return fmt.Sprintf("noise raised by %.3g dB on %s", j.RaiseDB, onChannel(j.FreqMHz))
}

// describeDisorder is one in words; none is empty.
func describeDisorder(d air.Disorder) string {
	var parts []string
	for _, s := range []struct {
		share float64
		what  string
	}{{d.Retransmitted, "retransmitted"}, {d.Replayed, "replayed"}, {d.Late, "late"}} {
		if s.share > 0 {
			parts = append(parts, fmt.Sprintf("%.3g%% %s", s.share*100, s.what))
		}
	}
	if d.Delay > 0 {
		parts = append(parts, "within "+d.Delay.String())
	}
	return strings.Join(parts, ", ")
}

func airTable(w io.Writer, s control.Air) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %g MHz wide\n\nRADIO\tADDRESS\tPLACE\tPOWER\tCHANNEL\tSENT\tAIRTIME\tGROUP\n", s.Profile, s.WidthMHz)
	for _, r := range s.Radios {
		channel, share := "off", "-"
		if r.On {
			channel, share = "-", fmt.Sprintf("%.1f%%", r.Share*100)
		}
		if r.On && r.FreqMHz != 0 {
			channel = fmt.Sprintf("%d MHz", r.FreqMHz)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.3g dBm\t%s\t%d\t%s\t%d\n", r.Name, r.Address, where(r.Position), r.PowerDBm, channel, r.Frames, share, r.Group)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(s.Links) > 0 {
		fmt.Fprintf(t, "\nFROM\tTO\tDISTANCE\tSIGNAL\tSNR\tRATE\tEXPECTED LOSS\tHEARD\t\n")
	}
	for _, l := range s.Links {
		rate := "-"
		if l.RateKbps != 0 {
			rate = fmt.Sprintf("%.4g Mbit/s", l.RateKbps/1000)
		}
		var set []string
		if l.Cut {
			set = append(set, "cut")
		}
		if l.Loss > 0 {
			set = append(set, fmt.Sprintf("%.3g%% lost besides", l.Loss*100))
		}
		if d := describeDisorder(l.Disorder); d != "" {
			set = append(set, d)
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f m\t%.0f dBm\t%.0f dB\t%s\t%.1f%%\t%d of %d\t%s\n",
			l.From, l.To, l.DistanceM, l.SignalDBm, l.SNRDB, rate, l.Expected*100, l.Heard, l.Frames, strings.Join(set, ", "))
	}
	for _, j := range s.Jammers {
		fmt.Fprintf(t, "\nJammer: %s\n", describeJammer(j))
	}
	if r := s.Rogue; r != nil {
		fmt.Fprintf(t, "\nRogue: %s, %d a second at most; %d sent, %d of them acknowledged; heard %d frames of %d radios\n", r.Attack, r.PerSecond, r.Sent, r.Acked, r.Heard, r.Victims)
	}
	if s.Capture != "" {
		fmt.Fprintf(t, "\nCaptured to %s\n", s.Capture)
	}
	return t.Flush()
}
