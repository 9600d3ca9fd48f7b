package gkrp

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// structure lists the fields of a structure as "KEY" or "KEY optional".
func structure(v any) (out []string) {
	typ := reflect.TypeOf(v)
	for i := range typ.NumField() {
		key, rest, _ := strings.Cut(typ.Field(i).Tag.Get("cbor"), ",")
		if strings.Contains(rest, "omitempty") {
			key += " optional"
		}
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// The specification, the schema and the structures name the same fields, and
// agree on which may be left out.
func TestSpecificationAndSchemaNameEveryField(t *testing.T) {
	spec, schema := readText(t, "SPEC.md"), readText(t, "gkrp.cddl")
	for _, row := range []struct {
		value   any
		heading string // in SPEC.md; none: told in words
		rules   []string
	}{
		{Hello{}, "6.1 HELLO", []string{"up-hello"}},
		{Challenge{}, "6.2 CHALLENGE", []string{"down-challenge"}},
		{Welcome{}, "6.3 WELCOME", []string{"down-welcome"}},
		{Grant{}, "6.4 GRANT", []string{"down-grant"}},
		{Ack{}, "6.5 ACK", []string{"up-ack"}},
		{Report{}, "6.6 REPORT", []string{"up-report"}},
		{Ingress{}, "6.6.1 Ingress", []string{"ingress"}},
		{Encoder{}, "6.6.2 Encoder", []string{"encoder"}},
		{Reject{}, "6.7 REJECT", []string{"up-reject", "down-reject"}},
		{Refill{}, "6.8 REFILL", nil},
		{Stop{}, "6.9 STOP", []string{"down-stop"}},
		{Bye{}, "6.10 BYE", []string{"up-bye"}},
		{KeyEnvelope{}, "7.1 Key envelope", []string{"key"}},
		{Prekey{}, "7.2 Prekey", []string{"prekey-statement"}},
		{Controller{}, "7.3 Controller", []string{"controller"}},
		{ReceiverKey{}, "", []string{"receiver"}},
		{Lease{}, "", []string{"lease"}},
		{LeaseSession{}, "", []string{"lease-session"}},
		{Policy{}, "", []string{"policy"}},
		{Payload{}, "", []string{"payload-kind"}},
		{JoinToken{}, "3.1 Token", []string{"token"}},
	} {
		want := structure(row.value)
		name := reflect.TypeOf(row.value).Name()
		if row.heading != "" {
			_, section, ok := strings.Cut(spec, "\n### "+row.heading)
			if !ok {
				t.Errorf("SPEC.md has no section %q", row.heading)
			}
			section, _, _ = strings.Cut(section, "\n### ")
			var got []string
			for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| (.*)$`).FindAllStringSubmatch(section, -1) {
				key := m[1]
				if strings.Contains(m[2], ", opt |") {
					key += " optional"
				}
				got = append(got, key)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s has the fields %q, section %s of SPEC.md %q", name, want, row.heading, got)
			}
		}
		for _, rule := range row.rules {
			_, body, ok := strings.Cut(schema, "\n"+rule+" = {")
			if !ok {
				t.Errorf("gkrp.cddl has no rule %q", rule)
			}
			body, _, _ = strings.Cut(body, "\n}")
			var got []string
			for _, m := range regexp.MustCompile(`(?m)^  (\? )?(\d+): `).FindAllStringSubmatch(body, -1) {
				key := m[2]
				if m[1] != "" {
					key += " optional"
				}
				got = append(got, key)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s has the fields %q, rule %s of gkrp.cddl %q", name, want, rule, got)
			}
		}
	}
}

func TestSpecificationNamesEveryCode(t *testing.T) {
	spec, schema := readText(t, "SPEC.md"), readText(t, "gkrp.cddl")
	source := readText(t, "message.go")
	codes := regexp.MustCompile(`Code\w+\s+Code = "([a-z-]+)"`).FindAllStringSubmatch(source, -1)
	if len(codes) < 9 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	for _, m := range codes {
		final := map[bool]string{true: "yes", false: "no"}[Code(m[1]).Final()]
		if !strings.Contains(spec, fmt.Sprintf("\n| `%s` | %s |", m[1], final)) {
			t.Errorf("section 12 of SPEC.md does not say of %s that final is %q", m[1], final)
		}
		if !strings.Contains(schema, fmt.Sprintf("%q", m[1])) {
			t.Errorf("gkrp.cddl does not name %s", m[1])
		}
	}
}

func TestSpecificationNamesTheLimits(t *testing.T) {
	spec := strings.ReplaceAll(readText(t, "SPEC.md"), " ", " ")
	for _, row := range []string{
		fmt.Sprintf("| message, statement | %d bytes |", MaxMessage),
		fmt.Sprintf("| REPORT | %d %d bytes, %d tags |", MaxReport/1000, MaxReport%1000, MaxTags),
		fmt.Sprintf("| text field | %d bytes |", MaxTextBytes),
		fmt.Sprintf("| prekeys in a message; unused ones at the service | %d; %d ", MaxPrekeys, 2*MaxPrekeys),
		fmt.Sprintf("| ACKs a device keeps | %d |", keptAcks),
		fmt.Sprintf("| messages that a REJECT may regard | the last %d of the stage |", keptSent),
		fmt.Sprintf("| life of a nonce | service | %d s to %d s |", int(nonceLife.Seconds()), int(2*nonceLife.Seconds())),
		fmt.Sprintf("| %d | *tags* in REPORT", Version1),
		fmt.Sprintf("| %d | *ingress* in REPORT", Version2),
		fmt.Sprintf("| %d | *encoder* in REPORT", Version3),
		fmt.Sprintf("1 to %d letters, digits, `-` and `_`, the first a letter or digit. To be shown", MaxWhy),
		fmt.Sprintf("1 to %d letters, digits, `-` and `_`, the first a letter or digit |", MaxRegime),
		fmt.Sprintf("at most %d hashes", MaxMarks),
	} {
		if !strings.Contains(spec, row) {
			t.Errorf("SPEC.md does not have %q", row)
		}
	}
}
