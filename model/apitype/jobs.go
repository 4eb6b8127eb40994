package apitype

import (
	"encoding/json"
	"time"

	"halo.internal/model"
)

// States of a job.
const (
	JobQueued      = "queued"
	JobRunning     = "running"
	JobDone        = "done"
	JobFailed      = "failed"      // it was tried; code and message say what went wrong
	JobRefused     = "refused"     // the node cannot or will not; nothing was done
	JobCancelled   = "cancelled"   // somebody took it back
	JobExpired     = "expired"     // its time was over before it began
	JobInterrupted = "interrupted" // the gateway ended meanwhile, and it is of no use to go on
)

// Job is something that takes longer than a request: a command to a node, a speed
// test, and what else the gateway does in the background.
type Job struct {
	ID        int64           `json:"id" example:"42"`
	Kind      string          `json:"kind" example:"scan" doc:"a kind of command, or speed-test"`
	Node      string          `json:"node,omitempty" example:"n-mfzwizlomfzwizlomfzw" doc:"canonical ID, where it is about one"`
	By        string          `json:"by" example:"user:ada" doc:"who asked for it"`
	State     string          `json:"state" enum:"queued,running,done,failed,refused,cancelled,expired,interrupted" example:"done"`
	Progress  int             `json:"progress" minimum:"0" maximum:"100" example:"100" doc:"percent, as far as it can be told"`
	Code      string          `json:"code,omitempty" example:"no-led" doc:"why it is not done; programs act on it"`
	Message   string          `json:"message,omitempty" example:"the board has no LED that HALO may use" doc:"for people"`
	Created   time.Time       `json:"created"`
	Started   *time.Time      `json:"started,omitempty"`
	Ended     *time.Time      `json:"ended,omitempty"`
	Expires   *time.Time      `json:"expires,omitempty" doc:"it is given up when it has not begun by then"`
	Cancelled bool            `json:"cancel_requested,omitempty" doc:"somebody asked to take it back, and it has not ended yet"`
	Request   json.RawMessage `json:"request,omitempty" doc:"what was asked for, as its kind has it"`
	Result    json.RawMessage `json:"result,omitempty" doc:"what has come of it, as its kind has it"`
	File      *JobFile        `json:"file,omitempty" doc:"what it has made: GET /v1/jobs/{id}/file"`
}

// Final tells whether nothing more comes.
func (j Job) Final() bool { return j.State != JobQueued && j.State != JobRunning }

// JobFile is what a job has made.
type JobFile struct {
	Bytes int64  `json:"bytes" example:"65536"`
	Type  string `json:"type" example:"application/vnd.tcpdump.pcap"`
}

// JobList is a page of jobs, newest first.
type JobList struct {
	Items []Job  `json:"items"`
	Next  string `json:"next,omitempty"`
}

// CreateCommand is the body of POST /v1/nodes/{id}/commands.
type CreateCommand struct {
	model.Command
	ExpiresS int64 `json:"expires_s,omitempty" minimum:"5" maximum:"604800" default:"300" example:"300" doc:"seconds for which it waits for a node that is off, or for one that is at something else"`
}

// NodeCapabilities is what a node can be commanded to.
type NodeCapabilities struct {
	Node   string          `json:"node" example:"n-mfzwizlomfzwizlomfzw"`
	Online bool            `json:"online" doc:"a command would be handed over at once"`
	Known  bool            `json:"known" doc:"the node has said it since the gateway started"`
	Items  []model.Ability `json:"items" doc:"each kind, and why the node cannot where it cannot"`
}

// CreateSpeedTest is the body of POST /v1/speed-tests.
type CreateSpeedTest struct {
	Node      string `json:"node" minLength:"1" maxLength:"64" example:"mast-3" doc:"canonical ID or name of the node that measures"`
	Peer      string `json:"peer,omitempty" maxLength:"64" example:"mast-7" doc:"the device that it measures the way to; the gateway when left out"`
	DownBytes int64  `json:"down_bytes,omitempty" minimum:"1" maximum:"2000000" default:"2000000" example:"2000000" doc:"octets to the node, at most"`
	UpBytes   int64  `json:"up_bytes,omitempty" minimum:"1" maximum:"1000000" default:"1000000" example:"1000000" doc:"octets from it, at most"`
}

// SpeedTest is what a speed test has measured.
type SpeedTest struct {
	Job   int64     `json:"job" example:"42"`
	Node  string    `json:"node" example:"n-mfzwizlomfzwizlomfzw"`
	Peer  string    `json:"peer" example:"n-ovzwk4tjmzxxezldnfxw"`
	Time  time.Time `json:"time" doc:"when it ended"`
	State string    `json:"state" enum:"queued,running,done,failed,refused,cancelled,expired,interrupted" example:"done"`
	Code  string    `json:"code,omitempty"`
	Text  string    `json:"message,omitempty"`

	Result *model.SpeedResult `json:"result,omitempty"`
}

// SpeedTestList is a page of speed tests, newest first.
type SpeedTestList struct {
	Items []SpeedTest `json:"items"`
	Next  string      `json:"next,omitempty"`
}
