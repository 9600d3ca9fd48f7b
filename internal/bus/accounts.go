package bus

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// User is one role of one process on an external NATS server.
type User struct {
	Role Role
	ID   gk.TransportID // of the process
}

// URI names the user in its certificate, which the server maps to permissions.
func (u User) URI() string { return "gaitkeeper-bus:" + string(u.Role) + "/" + string(u.ID) }

// account is where a role lives on an external server. Permissions by subject are
// not enough there: who may make consumers and streams in JetStream can have the
// server publish to, and collect from, every subject of the account. So each
// service with state has an account of its own, and accounts reach one another
// by what they export and import, subject by subject.
func account(r Role) string {
	switch r {
	case RoleKMS:
		return "gk-kms"
	case RoleProcessing:
		return "gk-processing"
	case RoleTransport:
		return "gk-transport"
	}
	return "gk-operation"
}

// link is a subject that one account lets another use.
type link struct {
	kind     string // service, stream
	subject  string
	from, to string // exporting and importing account
}

// links are the crossings between accounts that the users' permissions call for:
// a request crosses to who answers it, an announcement to who hears it.
func links(users []User) []link {
	all := map[link]bool{}
	for _, p := range users {
		for _, s := range users {
			from, to := account(p.Role), account(s.Role)
			if from == to {
				continue
			}
			for _, pub := range PermissionsOf(p.Role, p.ID).Publish {
				for _, sub := range PermissionsOf(s.Role, s.ID).Subscribe {
					subject, ok := common(pub, sub)
					switch {
					case !ok:
					case isNews(subject):
						all[link{"stream", subject, from, to}] = true
					default:
						all[link{"service", subject, to, from}] = true
					}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b link) int {
		return strings.Compare(a.from+" "+a.subject+" "+a.to, b.from+" "+b.subject+" "+b.to)
	})
}

// isNews tells announcements from requests by their subjects' first tokens.
func isNews(subject string) bool {
	return subject == string(Events) || strings.Contains(subject, "-news.")
}

// common is the narrower of two patterns of which one covers the other.
func common(a, b string) (string, bool) {
	switch {
	case covers(a, b):
		return b, true
	case covers(b, a):
		return a, true
	}
	return "", false
}

func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		if token == ">" {
			return len(n) > i
		}
		if i >= len(n) || n[i] == ">" || token != "*" && token != n[i] {
			return false
		}
	}
	return len(w) == len(n)
}

// AccountsConfig is the part of a nats-server's configuration that gives users
// their accounts and permissions: the least that each role needs.
func AccountsConfig(users []User) string {
	var b strings.Builder
	crossings := links(users)
	names := map[string][]User{}
	for _, u := range users {
		names[account(u.Role)] = append(names[account(u.Role)], u)
	}
	b.WriteString("accounts {\n")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "  %s {\n", name)
		state := slices.ContainsFunc(names[name], func(u User) bool { return len(PermissionsOf(u.Role, u.ID).Buckets) > 0 })
		if state {
			b.WriteString("    jetstream: enabled\n")
		}
		b.WriteString("    users: [\n")
		for _, u := range names[name] {
			p := PermissionsOf(u.Role, u.ID)
			fmt.Fprintf(&b, "      { user: %q, permissions: {\n        publish: [%s]\n        subscribe: [%s]\n        allow_responses: { max: 1, expires: \"1m\" } } }\n",
				u.URI(), quoted(p.Publish), quoted(p.Subscribe))
		}
		b.WriteString("    ]\n    exports: [\n")
		for i := 0; i < len(crossings); {
			l := crossings[i]
			var to []string
			for ; i < len(crossings) && crossings[i].from == l.from && crossings[i].subject == l.subject; i++ {
				to = append(to, crossings[i].to)
			}
			if l.from == name {
				fmt.Fprintf(&b, "      { %s: %q, accounts: [%s] }\n", l.kind, l.subject, quoted(to))
			}
		}
		b.WriteString("    ]\n    imports: [\n")
		for _, l := range crossings {
			if l.to == name {
				fmt.Fprintf(&b, "      { %s: { account: %q, subject: %q } }\n", l.kind, l.from, l.subject)
			}
		}
		b.WriteString("    ]\n  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(q, ", ")
}
