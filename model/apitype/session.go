package apitype

import "time"

// Session is a login.
type Session struct {
	ID       string     `json:"id" example:"5f0d1c9a7be24c3f8a6e2d4b1c0f9e87"`
	Username string     `json:"username" example:"anna"`
	Remote   string     `json:"remote,omitempty" example:"10.42.0.7" doc:"address from which it was used last"`
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
