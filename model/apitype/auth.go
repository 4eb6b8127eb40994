package apitype

import "time"

// Roles of people.
const (
	RoleAdmin    = "admin"
	RoleOperator = "operator"
	RoleViewer   = "viewer"
)

// Scopes of API tokens; a role stands for a set of them.
const (
	ScopeNodesRead     = "nodes:read"
	ScopeNodesWrite    = "nodes:write"
	ScopeTelemetryRead = "telemetry:read"
	ScopeEventsRead    = "events:read"
	ScopeSystemRead    = "system:read"
	ScopeAdmin         = "admin"   // everything
	ScopeRestore       = "restore" // of a ticket for a restore alone
)

// ClaimRequest is the body of POST /api/auth/claim. The first post carries
// ClientNonce alone; the second, after the gateway's proof was verified, all.
type ClaimRequest struct {
	ClientNonce string `json:"client_nonce" doc:"32 random octets, base64" maxLength:"64"`
	ServerNonce string `json:"server_nonce,omitempty" doc:"second post: as the gateway sent it" maxLength:"64"`
	Proof       string `json:"proof,omitempty" doc:"second post: the client's proof, base64" maxLength:"64"`
	Username    string `json:"username,omitempty" maxLength:"64"`
	Password    string `json:"password,omitempty" maxLength:"256"`
	Restore     bool   `json:"restore,omitempty" doc:"second post: in the place of username and password, of whoever is to restore a backup; the proof then covers the name 'restore a backup' and no password"`

	Time *time.Time `json:"time,omitempty" doc:"second post: what time it is for the client, for a gateway that does not know"`
}

// ClaimAnswer answers both posts: the first with Salt, ServerNonce and Proof,
// the second with Tokens.
type ClaimAnswer struct {
	Salt        string  `json:"salt,omitempty" doc:"network key, base64"`
	ServerNonce string  `json:"server_nonce,omitempty" doc:"base64; good for two minutes"`
	Proof       string  `json:"proof,omitempty" doc:"the gateway's proof, base64"`
	CA          string  `json:"ca,omitempty" doc:"second answer: the network's CA, PEM"`
	Tokens      *Tokens `json:"tokens,omitempty"`

	RestoreTicket string `json:"restore_ticket,omitempty" doc:"second answer, for restore: for Authorization: Bearer of restore-backup alone; good for half an hour"`
}

// LoginRequest is the body of POST /api/auth/login.
type LoginRequest struct {
	Username string `json:"username" maxLength:"64"`
	Password string `json:"password" maxLength:"256"`

	Time *time.Time `json:"time,omitempty" doc:"what time it is for the client, for a gateway that does not know"`
}

// RefreshRequest is the body of POST /api/auth/refresh and of logout.
type RefreshRequest struct {
	RefreshToken string `json:"refresh_token" maxLength:"128"`
}

// Tokens are what a login is good for.
type Tokens struct {
	AccessToken  string `json:"access_token" doc:"JWT, for Authorization: Bearer"`
	TokenType    string `json:"token_type" enum:"Bearer"`
	ExpiresIn    int    `json:"expires_in" doc:"seconds"`
	RefreshToken string `json:"refresh_token" doc:"good once; each refresh gives a new one"`
	Username     string `json:"username"`
	Role         string `json:"role" enum:"admin,operator,viewer"`
}

// Me is who the caller is.
type Me struct {
	Kind   string   `json:"kind" enum:"user,token"`
	Name   string   `json:"name"`
	Role   string   `json:"role,omitempty"`
	Scopes []string `json:"scopes"`
}

// User is a person who may log in.
type User struct {
	Username  string     `json:"username"`
	Role      string     `json:"role" enum:"admin,operator,viewer"`
	Disabled  bool       `json:"disabled"`
	Created   time.Time  `json:"created"`
	LastLogin *time.Time `json:"last_login,omitempty"`
}

// UserList is a page of users.
type UserList struct {
	Items []User `json:"items"`
	Next  string `json:"next,omitempty" doc:"cursor of the next page; absent on the last"`
}

// CreateUser is the body of POST /api/auth/users.
type CreateUser struct {
	Username string `json:"username" minLength:"1" maxLength:"64" pattern:"^[a-z0-9][a-z0-9._-]*$"`
	Password string `json:"password" maxLength:"256" doc:"at least 10 characters"`
	Role     string `json:"role" enum:"admin,operator,viewer"`
}

// UpdateUser is the body of PATCH /api/auth/users/{username}: what is left out
// stays. A user who is no admin may change his own password alone, and must
// give the present one.
type UpdateUser struct {
	Password        *string `json:"password,omitempty" maxLength:"256"`
	CurrentPassword string  `json:"current_password,omitempty" maxLength:"256"`
	Role            *string `json:"role,omitempty" enum:"admin,operator,viewer"`
	Disabled        *bool   `json:"disabled,omitempty"`
}

// APIToken lets a machine use the API.
type APIToken struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Scopes   []string   `json:"scopes"`
	Created  time.Time  `json:"created"`
	By       string     `json:"by" doc:"user:NAME who made it, with another token too: it ends with him, and may no more than he may now"`
	Expires  *time.Time `json:"expires,omitempty"`
	LastUsed *time.Time `json:"last_used,omitempty"`
	Token    string     `json:"token,omitempty" doc:"the secret; shown once, when made"`
}

// APITokenList is a page of API tokens.
type APITokenList struct {
	Items []APIToken `json:"items"`
	Next  string     `json:"next,omitempty"`
}

// CreateAPIToken is the body of POST /api/auth/tokens.
type CreateAPIToken struct {
	Name     string   `json:"name" minLength:"1" maxLength:"64"`
	Scopes   []string `json:"scopes" minItems:"1" maxItems:"16" nullable:"false" doc:"nodes:read nodes:write telemetry:read events:read system:read admin"`
	ExpiresS int64    `json:"expires_s,omitempty" minimum:"0" maximum:"315360000" doc:"life in seconds; without it the token lasts until it is deleted"`
}
