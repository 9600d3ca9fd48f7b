package gkrp_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// A validator for the part of CDDL (RFC 8610) that gkrp.cddl uses: maps with
// integer keys, arrays, choices, ranges, literals, one CBOR tag, and the controls
// .size, .cbor and .regexp. No Go module has one.

type cddl struct {
	text string // of each rule's right side that is being read
	pos  int
	defs map[string]node
}

// node says what is wrong with a value; nil if nothing is.
type node func(v any) error

func parseCDDL(t *testing.T, path string) map[string]node {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &cddl{text: regexp.MustCompile(`;[^\n]*`).ReplaceAllString(string(b), ""), defs: map[string]node{}}
	for p.space(); p.pos < len(p.text); p.space() {
		name := p.name()
		p.want("=")
		if _, twice := p.defs[name]; twice || name == "" {
			p.fail("rule %q is empty or stands twice", name)
		}
		p.defs[name] = p.choice()
	}
	return p.defs
}

func (p *cddl) fail(format string, args ...any) {
	line := 1 + strings.Count(p.text[:p.pos], "\n")
	panic(fmt.Sprintf("gkrp.cddl:%d: %s", line, fmt.Sprintf(format, args...)))
}

func (p *cddl) space() {
	for p.pos < len(p.text) && strings.ContainsRune(" \n\t", rune(p.text[p.pos])) {
		p.pos++
	}
}

func (p *cddl) take(s string) bool {
	p.space()
	if strings.HasPrefix(p.text[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

func (p *cddl) want(s string) {
	if !p.take(s) {
		p.fail("%q is wanted", s)
	}
}

func (p *cddl) match(pattern string) string {
	p.space()
	m := regexp.MustCompile(`^(?:` + pattern + `)`).FindString(p.text[p.pos:])
	p.pos += len(m)
	return m
}

func (p *cddl) name() string { return p.match(`[a-zA-Z][a-zA-Z0-9-]*`) }

func (p *cddl) choice() node {
	all := []node{p.controlled()}
	for p.take("/") {
		all = append(all, p.controlled())
	}
	if len(all) == 1 {
		return all[0]
	}
	return func(v any) error {
		var last error
		for _, n := range all {
			if last = n(v); last == nil {
				return nil
			}
		}
		return fmt.Errorf("none of %d choices, the last: %w", len(all), last)
	}
}

func (p *cddl) controlled() node {
	n := p.single()
	switch {
	case p.take(".size"):
		least, most := p.bounds()
		return both(n, func(v any) error {
			size := int64(-1)
			switch v := v.(type) {
			case []byte:
				size = int64(len(v))
			case string:
				size = int64(len(v))
			}
			if size < least || size > most {
				return fmt.Errorf("size %d is not %d to %d", size, least, most)
			}
			return nil
		})
	case p.take(".cbor"):
		inner := p.single()
		return both(n, func(v any) error {
			var decoded any
			if err := cbor.Unmarshal(v.([]byte), &decoded); err != nil {
				return err
			}
			return inner(decoded)
		})
	case p.take(".regexp"):
		re := regexp.MustCompile(`^(?:` + strings.Trim(p.match(`"[^"]*"`), `"`) + `)$`)
		return both(n, func(v any) error {
			if !re.MatchString(v.(string)) {
				return fmt.Errorf("%q does not match %s", v, re)
			}
			return nil
		})
	}
	return n
}

func both(a, b node) node {
	return func(v any) error {
		if err := a(v); err != nil {
			return err
		}
		return b(v)
	}
}

// bounds reads N or (N..N).
func (p *cddl) bounds() (least, most int64) {
	if !p.take("(") {
		least, _ = p.number()
		return least, least
	}
	least, _ = p.number()
	p.want("..")
	most, _ = p.number()
	p.want(")")
	return least, most
}

func (p *cddl) number() (int64, bool) {
	s := p.match(`-?[0-9]+`)
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.fail("%v", err)
	}
	return n, true
}

func (p *cddl) single() node {
	switch {
	case p.take("{"):
		return p.mapping()
	case p.take("["):
		return p.array()
	case p.take("#6.18("):
		inner := p.choice()
		p.want(")")
		return func(v any) error {
			tag, ok := v.(cbor.Tag)
			if !ok || tag.Number != 18 {
				return fmt.Errorf("%T is not tag 18", v)
			}
			return inner(tag.Content)
		}
	}
	if s := p.match(`"[^"]*"`); s != "" {
		want := strings.Trim(s, `"`)
		return func(v any) error {
			if v != want {
				return fmt.Errorf("%v is not %q", v, want)
			}
			return nil
		}
	}
	if least, ok := p.number(); ok {
		most := least
		if p.take("..") {
			most, _ = p.number()
		}
		return func(v any) error {
			if n, ok := integer(v); !ok || n < least || n > most {
				return fmt.Errorf("%v is not %d to %d", v, least, most)
			}
			return nil
		}
	}
	return p.named()
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case uint64:
		return int64(min(v, math.MaxInt64)), true
	case int64:
		return v, true
	}
	return 0, false
}

func (p *cddl) named() node {
	name := p.name()
	kinds := map[string]func(v any) bool{
		"any":  func(any) bool { return true },
		"uint": func(v any) bool { _, ok := v.(uint64); return ok }, "int": func(v any) bool { _, ok := integer(v); return ok },
		"bstr": func(v any) bool { _, ok := v.([]byte); return ok }, "tstr": func(v any) bool { _, ok := v.(string); return ok },
		"bool": func(v any) bool { _, ok := v.(bool); return ok },
	}
	if is, ok := kinds[name]; ok {
		return func(v any) error {
			if !is(v) {
				return fmt.Errorf("%v (%T) is not %s", v, v, name)
			}
			return nil
		}
	}
	if name == "" {
		p.fail("a type is wanted")
	}
	return func(v any) error {
		n, ok := p.defs[name]
		if !ok {
			return fmt.Errorf("there is no rule %q", name)
		}
		if err := n(v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
}

// mapping reads "? key: type" entries, and a last one of "* keytype => type". The
// colon makes a cut (RFC 8610 §3.5.4): what has the key must have the type, and
// is nothing that the last entry lets in.
func (p *cddl) mapping() node {
	type entry struct {
		optional bool
		value    node
	}
	known := map[int64]entry{}
	var otherKey, otherValue node
	for !p.take("}") {
		if p.take("*") {
			otherKey = p.single()
			p.want("=>")
			otherValue = p.choice()
		} else {
			e := entry{optional: p.take("?")}
			key, ok := p.number()
			if _, twice := known[key]; !ok || twice {
				p.fail("key %d is none, or stands twice", key)
			}
			p.want(":")
			e.value = p.choice()
			known[key] = e
		}
		p.take(",")
	}
	return func(v any) error {
		m, ok := v.(map[any]any)
		if !ok {
			return fmt.Errorf("%T is not a map", v)
		}
		seen := 0
		for k, value := range m {
			n, isInt := integer(k)
			if e, ok := known[n]; ok && isInt {
				seen++
				if err := e.value(value); err != nil {
					return fmt.Errorf("%d: %w", n, err)
				}
				continue
			}
			if otherKey == nil || otherKey(k) != nil || otherValue(value) != nil {
				return fmt.Errorf("key %v does not belong here", k)
			}
		}
		for k, e := range known {
			if !e.optional {
				seen--
			}
			if _, ok := m[uint64(k)]; e.optional && (ok || m[k] != nil) {
				seen--
			}
		}
		if seen != 0 {
			return fmt.Errorf("%d keys are missing of %v", -seen, reflect.ValueOf(m).MapKeys())
		}
		return nil
	}
}

// array reads "[N*M type]", or "[name: type, ...]".
func (p *cddl) array() node {
	if occurs := p.match(`[0-9]+\*[0-9]+`); occurs != "" {
		var least, most int
		if _, err := fmt.Sscanf(occurs, "%d*%d", &least, &most); err != nil {
			p.fail("%v", err)
		}
		item := p.choice()
		p.want("]")
		return func(v any) error {
			list, ok := v.([]any)
			if !ok || len(list) < least || len(list) > most {
				return fmt.Errorf("%T of %d is not an array of %d to %d", v, len(list), least, most)
			}
			for _, x := range list {
				if err := item(x); err != nil {
					return err
				}
			}
			return nil
		}
	}
	var items []node
	for !p.take("]") {
		p.name()
		p.want(":")
		items = append(items, p.choice())
		p.take(",")
	}
	return func(v any) error {
		list, ok := v.([]any)
		if !ok || len(list) != len(items) {
			return fmt.Errorf("%T of %d is not an array of %d", v, len(list), len(items))
		}
		for i, n := range items {
			if err := n(list[i]); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
		return nil
	}
}

func decoded(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := cbor.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Every vector that is to be accepted keeps the schema; those with a field that
// is wrong break it, so that the schema says as much as the code does.
func TestVectorsKeepTheSchema(t *testing.T) {
	rules := parseCDDL(t, "gkrp.cddl")
	beyond := regexp.MustCompile(`of no session|without session|range that falls|a tag too few|half a tag|half a mark`) // rules that the schema cannot say
	check := func(name, rule string, wire []byte, outcome string) {
		t.Helper()
		n := rules[rule]
		if n == nil {
			t.Fatalf("%s: there is no rule %q", name, rule)
		}
		frame := decoded(t, wire)
		err := rules["sign1"](frame)
		if err == nil {
			err = n(decoded(t, frame.(cbor.Tag).Content.([]any)[2].([]byte)))
		}
		switch {
		case outcome == "ok" && err != nil:
			t.Errorf("%s: %v", name, err)
		case outcome != "ok" && err == nil && !beyond.MatchString(name):
			t.Errorf("%s: keeps the schema, but is %s", name, outcome)
		}
	}
	kinds := map[gkrp.Type]bool{}
	for _, v := range readVectors[messageVector](t, "messages").Vectors {
		typ, rest, _ := strings.Cut(v.Name, " ")
		if v.Outcome == "ok" {
			typ = string(v.Type)
			kinds[v.Type] = true
		}
		if rules[string(v.Direction)+"-"+typ] == nil || v.Outcome == "too-large" || strings.HasPrefix(rest, "of indefinite") {
			continue
		}
		check(v.Name, string(v.Direction)+"-"+typ, v.Wire, v.Outcome)
	}
	if len(kinds) != 10 {
		t.Errorf("vectors for %d types of message: %v", len(kinds), kinds)
	}
	rule := map[string]string{"key": "key", "prekey": "prekey-statement", "controller": "controller", "receiver": "receiver", "lease": "lease"}
	for _, v := range readVectors[statementVector](t, "statements").Vectors {
		if v.Outcome == "ok" || v.Outcome == "unknown-mandatory" {
			check(v.Name, rule[v.Kind], v.Wire, v.Outcome)
		}
	}
	for _, v := range readVectors[tokenVector](t, "tokens").Vectors {
		if v.Outcome != "ok" {
			continue
		}
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(v.Text), "gkj1."))
		if err != nil {
			t.Fatal(err)
		}
		if err := rules["token"](decoded(t, b)); err != nil {
			t.Errorf("token: %s: %v", v.Name, err)
		}
	}
}
