package api

import (
	"net/http"
	"strings"

	"halo.internal/model/apitype"
)

// textProblem makes a problem of a refusal that is written as http.Error does, such as
// those of requests that ask for no WebSocket.
type textProblem struct {
	http.ResponseWriter
	status int // of a refusal whose text comes next
}

// WriteHeader implements http.ResponseWriter.
func (w *textProblem) WriteHeader(status int) {
	if status < 400 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

// Write implements http.ResponseWriter.
func (w *textProblem) Write(b []byte) (int, error) {
	if w.status == 0 {
		return w.ResponseWriter.Write(b)
	}
	apitype.WriteProblem(w.ResponseWriter, apitype.Refuse(w.status, "", "%s", strings.TrimSpace(string(b))))
	w.status = 0
	return len(b), nil
}

// Unwrap is for who takes the connection over.
func (w *textProblem) Unwrap() http.ResponseWriter { return w.ResponseWriter }
