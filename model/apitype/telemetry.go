package apitype

import "time"

// Metric is one that there are readings of.
type Metric struct {
	Metric string `json:"metric" example:"system.cpu.used_percent"`
	Unit   string `json:"unit,omitempty" example:"%"`
}

// MetricList is a page of metrics, by name.
type MetricList struct {
	Items []Metric `json:"items"`
	Next  string   `json:"next,omitempty"`
}

// Point is what the readings of one bucket came to. Minimum and maximum keep the peaks
// however wide the bucket is.
type Point struct {
	Time  time.Time `json:"time" doc:"when the bucket begins"`
	Count int64     `json:"count" example:"6" doc:"readings; across nodes: nodes"`
	Min   float64   `json:"min"`
	Max   float64   `json:"max"`
	Mean  float64   `json:"mean"`
	First float64   `json:"first"`
	Last  float64   `json:"last"`
	Value float64   `json:"value" doc:"by func; across nodes: by across, of what func gives for each node"`
}

// Series is what one metric was over a time.
type Series struct {
	Node   string  `json:"node,omitempty" doc:"canonical ID; absent across nodes"`
	Metric string  `json:"metric" example:"system.cpu.used_percent"`
	Unit   string  `json:"unit,omitempty" example:"%"`
	Points []Point `json:"points" doc:"of buckets that have readings, in the order of time"`
}

// SeriesList is a page of series, by node and metric.
type SeriesList struct {
	StepS float64  `json:"step_s" example:"60" doc:"width of a bucket, in seconds"`
	Items []Series `json:"items"`
	Next  string   `json:"next,omitempty"`
}

// Import says what became of readings that were imported.
type Import struct {
	Readings   int      `json:"readings" example:"1200" doc:"that came"`
	Stored     int      `json:"stored" example:"1180"`
	Duplicate  int      `json:"duplicate" example:"20" doc:"their series has a reading of that instant, which stays"`
	Summarised int      `json:"summarised" doc:"of their time only minutes, or what is longer, are kept: whether they are in there cannot be told"`
	Misdated   int      `json:"misdated" doc:"older than is kept, or of the future"`
	Refused    int      `json:"refused" doc:"of more metrics than a node may have within a week"`
	Crowded    int      `json:"crowded" doc:"they would make more within an hour than are kept"`
	Unknown    int      `json:"unknown" doc:"of nodes that this gateway has never admitted"`
	Nodes      []string `json:"nodes,omitempty" doc:"some of those nodes"`
}

// Mark is something that a node's readings alone do not tell.
type Mark struct {
	Time   time.Time  `json:"time"`
	Until  *time.Time `json:"until,omitempty" doc:"of a gap: the first reading after it"`
	Kind   string     `json:"kind" enum:"boot,clock,leap,gap" doc:"the node started; its clock was put right; its clock was put forward, or it measured nothing meanwhile; batches that it made never came"`
	Boot   uint64     `json:"boot"`
	Detail string     `json:"detail,omitempty" example:"+2338000 ms, none to gateway"`
}

// MarkList is a page of marks, in the order of time.
type MarkList struct {
	Node  string `json:"node"`
	Items []Mark `json:"items"`
	Next  string `json:"next,omitempty"`
}
