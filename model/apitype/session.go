package apitype

import "time"

// Session is a login.
type Session struct {
	ID       string     `json:"id"`
	Username string     `json:"username"`
	Remote   string     `json:"remote,omitempty" doc:"address from which it was used last"`
	Started  *time.Time `json:"started,omitempty" doc:"absent for one that an earlier release began"`
	LastUsed time.Time  `json:"last_used" doc:"when it was last refreshed"`
	Expires  time.Time  `json:"expires" doc:"if it is not refreshed before"`
	Current  bool       `json:"current" doc:"the one that asks"`
}

// SessionList is a page of sessions.
type SessionList struct {
	Items []Session `json:"items"`
	Next  string    `json:"next,omitempty"`
}
