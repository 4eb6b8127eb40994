package scenarios

import (
	"context"
	"fmt"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

// slow is how long a recovery takes that wants an explanation: what each machine lacks
// and whom it has shaken hands with while it lasts, what was told of it afterwards.
const slow = 90 * time.Second

const explainWait = 20 * time.Second

// diagnose says what the machines lack, and how their overlay is.
func (w *World) diagnose(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	for _, m := range w.Members {
		var lacks []string
		if m != w.gateway() {
			d, err := m.Diag(ctx)
			if err != nil {
				lacks = append(lacks, err.Error())
			}
			for _, h := range d.Health {
				if h.State != health.OK {
					lacks = append(lacks, fmt.Sprintf("%s lacks %s: %s", h.Name, h.Missing, h.Detail))
				}
			}
		}
		s, _, err := w.status(ctx, m)
		if err != nil {
			lacks = append(lacks, err.Error())
		}
		w.say("  %s at %s: %s; overlay: %s", m.Name(), s.Time.Format(time.TimeOnly), strings.Join(lacks, "; "), handshakes(s.Overlay))
	}
}

func handshakes(list []model.OverlayPeer) string {
	var out []string
	for _, p := range list {
		at := "never"
		if p.LastHandshake != nil {
			at = p.LastHandshake.Format(time.TimeOnly)
		}
		out = append(out, fmt.Sprintf("%s shaken hands %s, %d in, %d out", p.Node, at, p.RxBytes, p.TxBytes))
	}
	return strings.Join(out, ", ")
}

// explain says what the gateway was told of since before an outage.
func (w *World) explain(ctx context.Context, o *Outage) {
	ctx, cancel := context.WithTimeout(ctx, explainWait)
	defer cancel()
	list, err := w.Admin.EventsSince(ctx, "", "", o.event)
	if err != nil {
		w.say("  what happened meanwhile is not to be had: %v", err)
	}
	for _, e := range list {
		w.say("  %s %s %s: %s %v", e.Time.Format(time.TimeOnly), e.Source, e.Kind, e.Message, e.Fields)
	}
}
