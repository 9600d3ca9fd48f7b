package bus

import (
	"slices"
	"strings"
	"testing"
)

// TestWhoMayAskWhom: every request and announcement there is, and the roles that may
// make it. One that is missing from the permissions works in one process, and not over
// an external bus.
func TestWhoMayAskWhom(t *testing.T) {
	roles := []Role{RoleKMS, RoleTransport, RoleProcessing, RoleAPI, RoleAudit, RoleBroker}
	rows := map[string]string{
		"gk.events": "kms transport processing api",

		"gk.kms.info":                     "transport processing api broker",
		"gk.kms.open":                     "processing",
		"gk.kms.release":                  "processing",
		"gk.kms.state":                    "processing",
		"gk.kms.keys":                     "api",
		"gk.kms.device":                   "processing broker",
		"gk.kms.standing":                 "processing",
		"gk.kms.enroll":                   "api",
		"gk.kms.join":                     "api",
		"gk.kms.devices":                  "api",
		"gk.kms.revoke":                   "api",
		"gk.kms.seal":                     "processing",
		"gk.kms.unseal":                   "processing",
		"gk.kms.audit-head":               "audit",
		"gk.kms.certify.transport.me":     "transport",
		"gk.kms.certify.transport.you":    "",
		"gk.kms.certify.processing.me":    "processing",
		"gk.kms.certify.processing.you":   "",
		"gk.kms.certify.server.me":        "api broker",
		"gk.kms.certify.server.you":       "",
		"gk.processing.rotate":            "api",
		"gk.processing.streams":           "api",
		"gk.processing.stop":              "api",
		"gk.processing.disarm":            "api",
		"gk.processing.alerts":            "api",
		"gk.processing.episode":           "api",
		"gk.processing.explain":           "api",
		"gk.processing.profile":           "api",
		"gk.processing.planned-change":    "api",
		"gk.processing.feedback":          "api",
		"gk.processing.tuning":            "api",
		"gk.processing.fleet-tuning":      "api",
		"gk.broker.cut":                   "api",
		"gk.processing-news.report":       "processing",
		"gk.processing-news.scores":       "processing",
		"gk.transport-news.here":          "",
		"gk.transport-news.here.me":       "transport",
		"gk.transport-news.here.you":      "",
		"gk.transport-news.proof.me":      "transport",
		"gk.transport-news.proof.you":     "",
		"gk.transport-news.outsiders.me":  "transport",
		"gk.transport-news.outsiders.you": "",
	}
	for _, what := range []string{"assign", "arm", "switch", "release", "report", "lease", "disarm", "hold"} {
		rows["gk.transport."+what+".you"] = "processing"
	}
	for subject, want := range rows {
		var may []string
		for _, r := range roles {
			if slices.ContainsFunc(PermissionsOf(r, "me").Publish, func(p string) bool { return covers(p, subject) }) {
				may = append(may, string(r))
			}
		}
		if got := strings.Join(may, " "); got != want {
			t.Errorf("%s: %q may, want %q", subject, got, want)
		}
	}
	// Nothing else can be asked for by people than what stands above.
	for _, p := range PermissionsOf(RoleAPI, "me").Publish {
		if _, ok := rows[p]; !ok {
			t.Errorf("the API may publish %s, which is not in the table", p)
		}
	}
}
