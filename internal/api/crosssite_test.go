package api

import (
	"net/http"
	"strings"
	"testing"
)

// TestOtherSitesCannotAct: a browser that was given the token as a password sends it
// along with whatever a page of somebody else's has it send. Such a page can change
// nothing; the server's own pages, and programs, which say nothing of a site, can.
func TestOtherSitesCannotAct(t *testing.T) {
	s := newSystem(t, func(c *Config) { c.Local = false })
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		status             int
	}{
		{"another site", "POST", "/v1/streams/a/rotate", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another port of the host", "POST", "/v1/streams/a/rotate", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"an old browser", "POST", "/v1/streams/a/rotate", map[string]string{"Origin": "https://evil.example"}, 403},
		{"a page from a file", "POST", "/v1/devices/cam-1/revoke", map[string]string{"Origin": "null"}, 403},
		{"a form", "POST", "/v1/enroll", map[string]string{"Origin": "https://evil.example", "Content-Type": "text/plain"}, 403},
		{"looking only", "GET", "/v1/streams", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
		{"the server's own page", "POST", "/v1/streams/a/rotate", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"a program", "POST", "/v1/streams/a/rotate", nil, 200},
	} {
		before, enrolled := len(s.rotate), len(s.enrolled)
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("operator", token)
		for k, v := range c.header {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, resp.StatusCode, c.status)
		}
		if c.status != 200 && (len(s.rotate) != before || len(s.enrolled) != enrolled || resp.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: something was done, or the refusal is no JSON", c.name)
		}
	}
}
