// Package benchgateway measures the gateway's telemetry: what taking it in costs, beside
// VictoriaMetrics and a bare journal in SQLite in the same run, how fast a backlog is taken
// in, what is written to a card, and how long a start takes. The server has one core for
// itself, and what plays the nodes another one. It is all tests; make bench-gateway runs
// them.
package benchgateway
