package gkrp_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"strings"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// conversation is one good message of every type, and some more.
func conversation(t testing.TB) (names []string, all map[string]gkrp.Message) {
	first := &gkrp.Hello{
		Device: vectorScope.Device, Stream: vectorScope.Stream, Session: vectorSession, Versions: []gkrp.Version{0, 1}, Suites: []gkrp.Suite{2},
		Payload: gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90000}, HighWater: 41,
		Prekeys: prekeysOf(t, gkrp.SuiteX25519, 1, 2, 3, 4), Software: "example/1",
	}
	proven := *first
	proven.Nonce = bytes.Repeat([]byte{0xc7}, 32)
	quantum := *first
	quantum.Suites = []gkrp.Suite{1, 2}
	quantum.Prekeys = prekeysOf(t, gkrp.SuiteMLKEM768X25519, 1, 2, 3, 4)
	native := proven
	native.Payload = gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90000, Encoding: "H264"}
	native.Software, native.HighWater, native.Next = "", 0, 9<<16+7
	hash := func(m gkrp.Message) []byte {
		b, err := gkrp.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return gkrp.Hash(b)
	}
	grant := &gkrp.Grant{
		Stream: vectorScope.Stream, Session: vectorSession, Epoch: vectorEpoch, Reason: gk.ReasonStart, ActWithin: 2000,
		Envelope: sealedWire(t, envelope(t, gkrp.SuiteX25519, 1)), Term: 7,
	}
	grantBytes, err := gkrp.Encode(grant)
	if err != nil {
		t.Fatal(err)
	}
	welcome := &gkrp.Welcome{
		Session: vectorSession, HelloHash: hash(&proven), Versions: []gkrp.Version{0, 1}, Suites: []gkrp.Suite{2}, Version: 1, Suite: 2,
		Stream: vectorScope.Stream, SSRC: vectorSSRC, Transports: []string{"media.example:7004", "[2001:db8::1]:7004"},
		Policy: gkrp.Policy{ReportEveryMs: 1000, RejectAfterS: 86400, Tags: true}, Grant: grantBytes,
	}
	old := *welcome
	old.Version, old.Policy.Tags = 0, false
	report := &gkrp.Report{
		Stream: vectorScope.Stream, Session: vectorSession, Number: 1, Epoch: vectorEpoch, From: vectorFirst, To: vectorFirst + 3, Packets: 2, Bytes: 2632,
	}
	renew := *report
	renew.Renew, renew.Since = true, 999
	tagged := *report
	tagged.Tags = []byte{1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8}
	measured := *report
	measured.Ingress = &gkrp.Ingress{SpanMs: 1000, Packets: 2, Bytes: 2632, GapMs: 40, IdleMs: 7, Frames: 25, Missing: 1, Marks: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	begun := *report
	begun.Renew, begun.Since = true, 1500
	begun.Encoder = &gkrp.Encoder{Changes: 1, AgoMs: 12, Why: gkrp.WhyChanged, Regime: "night"}
	steady := *report
	steady.Encoder = &gkrp.Encoder{}
	full := *report
	full.To, full.Packets = full.From+gkrp.MaxTags, gkrp.MaxTags
	full.Tags = bytes.Repeat([]byte{0xab}, gkrp.MaxTags*gkrp.TagPrefix)
	full.Ingress = &gkrp.Ingress{SpanMs: 1000, Packets: gkrp.MaxTags, Bytes: 1 << 40, GapMs: 1, Frames: 25, Breaks: 1, Strange: 9, Marks: bytes.Repeat([]byte{0xcd}, gkrp.MaxMarks*gkrp.MarkBytes)}
	full.Encoder = &gkrp.Encoder{Changes: 1 << 40, AgoMs: 1 << 31, Why: gkrp.Why(strings.Repeat("w", gkrp.MaxWhy)), Regime: strings.Repeat("r", gkrp.MaxRegime)}
	all = map[string]gkrp.Message{
		"up hello, the first": first, "up hello with nonce": &proven, "up hello of suite 1": &quantum, "up hello for the encoder's own RTP": &native,
		"down challenge": &gkrp.Challenge{Session: vectorSession, HelloHash: hash(first), Nonce: proven.Nonce},
		"down welcome":   welcome, "down welcome to version 0": &old, "down grant": grant,
		"up ack": &gkrp.Ack{
			Stream: vectorScope.Stream, Session: vectorSession, Epoch: vectorEpoch, GrantHash: gkrp.Hash(grantBytes),
			Confirm: confirmOf(t, mediaBytes(vectorEpoch), vectorScope.Stream, vectorSession, vectorEpoch, "device/cam-1"),
			First:   vectorFirst, Prekeys: prekeysOf(t, gkrp.SuiteX25519, 5),
		},
		"up report": report, "up report of a restart": &renew, "up report with tags": &tagged, "up report with ingress": &measured,
		"up report of an encoder that was begun anew": &begun, "up report of an encoder that runs": &steady, "up report as full as can be": &full,
		"down reject":                     &gkrp.Reject{Session: vectorSession, Regarding: hash(&proven), Code: gkrp.CodeBusy, Text: "another session of this stream is sending", RetryAfter: 400},
		"down reject of the versions":     &gkrp.Reject{Session: vectorSession, Regarding: hash(first), Code: gkrp.CodeUnsupportedVersion, Supported: []gkrp.Version{1}},
		"up reject":                       &gkrp.Reject{Session: vectorSession, Regarding: gkrp.Hash(grantBytes), Code: gkrp.CodeCannotOpen},
		"up refill":                       &gkrp.Refill{Stream: vectorScope.Stream, Session: vectorSession, Prekeys: prekeysOf(t, gkrp.SuiteX25519, 6, 7, 8, 9)},
		"down refill":                     &gkrp.Refill{Stream: vectorScope.Stream, Session: vectorSession},
		"down stop":                       &gkrp.Stop{Session: vectorSession, Code: gkrp.CodeRevoked, Text: "revoked by the operator"},
		"down stop with a code to come":   &gkrp.Stop{Session: vectorSession, Code: "out-of-tape"},
		"up bye":                          &gkrp.Bye{Stream: vectorScope.Stream, Session: vectorSession, End: vectorFirst + 3, Text: "source ended"},
		"up bye without a packet or word": &gkrp.Bye{Stream: vectorScope.Stream, Session: vectorSession, End: 1},
	}
	names = []string{
		"up hello, the first", "down challenge", "up hello with nonce", "down welcome", "down welcome to version 0", "up ack", "up report",
		"up report of a restart", "up report with tags", "up report with ingress",
		"up report of an encoder that was begun anew", "up report of an encoder that runs", "up report as full as can be", "down grant", "up reject", "down refill", "up refill", "down reject",
		"down reject of the versions", "down stop", "down stop with a code to come", "up bye", "up bye without a packet or word",
		"up hello of suite 1", "up hello for the encoder's own RTP",
	}
	return names, all
}

func makeMessages(t *testing.T) any {
	f := vectorFile[messageVector]{
		Comment: "Messages as they arrive on the stream's topic. SPEC.md sections 5 and 6. Those of a service carry a controller statement; " +
			"the key that verifies it is kms's.",
		Device: vectorScope.Device, Stream: vectorScope.Stream, Signers: signersOf("device", "kms", "controller", "other"),
	}
	add := func(name, outcome string, dir gkrp.Direction, wire []byte) {
		f.Vectors = append(f.Vectors, messageVector{Name: name, Direction: dir, Outcome: outcome, Wire: wire})
	}
	ok := func(name string, dir gkrp.Direction, typ gkrp.Type, r raw) {
		f.Vectors = append(f.Vectors, messageVector{
			Name: name, Direction: dir, Outcome: "ok", Type: typ, Wire: r.wire(t), Payload: r.payload, Hash: gkrp.Hash(r.payload), Fields: diagnose(t, r.payload),
		})
	}
	names, all := conversation(t)
	for _, name := range names {
		dir, rest, _ := strings.Cut(name, " ")
		m := all[name]
		payload, err := gkrp.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		ok(rest, gkrp.Direction(dir), m.Type(), message(t, "gkrp/1."+dir+"."+string(m.Type()), payload))
	}
	if len(names) != len(all) {
		t.Fatalf("%d names for %d messages", len(names), len(all))
	}

	// Everything else is about a BYE where it can be, because that is short.
	bye := fields(t, all["up bye"])
	byePayload := mustCBOR(t, bye)
	good := message(t, "gkrp/1.up.bye", byePayload)
	with := func(name string, key int64, value any) []byte {
		m := fields(t, all[name])
		m[key] = value
		if value == nil {
			delete(m, key)
		}
		return mustCBOR(t, m)
	}
	later := message(t, "gkrp/1.up.bye", with("up bye", 99, "from a later version"))
	ok("bye with an unknown field", gkrp.Up, gkrp.TypeBye, later)
	ok("bye with an unknown field of any type", gkrp.Up, gkrp.TypeBye, message(t, "gkrp/1.up.bye", with("up bye", 40, []any{map[int]any{1: []int{2}}})))
	header := good
	header.protected = map[int64]any{1: -8, 16: "gkrp/1.up.bye", 1000: "x"}
	header.unprotected = map[int64]any{2000: 1}
	ok("bye with other headers, and no kid", gkrp.Up, gkrp.TypeBye, header)

	// Sizes.
	big := fields(t, all["up hello, the first"])
	big[9] = [][]byte{make([]byte, gkrp.MaxMessage-300)}
	for len(message(t, "gkrp/1.up.hello", mustCBOR(t, big)).wire(t)) != gkrp.MaxMessage+1 {
		big[9] = [][]byte{make([]byte, len(big[9].([][]byte)[0])+1)}
	}
	add("hello of 8193 bytes", "too-large", gkrp.Up, message(t, "gkrp/1.up.hello", mustCBOR(t, big)).wire(t))
	f.Vectors = append(f.Vectors, messageVector{Name: "32769 bytes of anything", Direction: gkrp.Up, Outcome: "too-large", Zeros: gkrp.MaxReport + 1})

	// Structure.
	wire := good.wire(t)
	add("nothing", "malformed", gkrp.Up, nil)
	add("not CBOR", "malformed", gkrp.Up, []byte("hello"))
	add("cut short", "malformed", gkrp.Up, wire[:len(wire)-9])
	add("a byte behind it", "malformed", gkrp.Up, append(bytes.Clone(wire), 0))
	for _, row := range []struct {
		name   string
		change func(r *raw)
	}{
		{"no tag", func(r *raw) { r.tag = 0 }},
		{"COSE_Mac0's tag", func(r *raw) { r.tag = 17 }},
		{"algorithm ES256", func(r *raw) { r.protected[1] = -7 }},
		{"no algorithm", func(r *raw) { delete(r.protected, 1) }},
		{"no typ", func(r *raw) { delete(r.protected, 16) }},
		{"typ of another major version", func(r *raw) { r.protected[16] = "gkrp/2.up.bye" }},
		{"typ of the other direction", func(r *raw) { r.protected[16] = "gkrp/1.down.bye" }},
		{"typ that does not go up", func(r *raw) { r.protected[16] = "gkrp/1.up.grant" }},
		{"typ that does not exist", func(r *raw) { r.protected[16] = "gkrp/1.up.howdy" }},
		{"a statement's typ", func(r *raw) { r.protected[16] = "gkrp/1.prekey" }},
		{"payload that is an array", func(r *raw) { r.payload = []byte{0x80} }},
		{"payload with a key twice", func(r *raw) { r.payload = []byte{0xa2, 1, 0x61, 'a', 1, 0x61, 'a'} }},
		{"payload with a text key", func(r *raw) { r.payload = []byte{0xa1, 0x61, 'a', 0} }},
		{"payload of indefinite length", func(r *raw) { r.payload = []byte{0xbf, 1, 0x61, 'a', 0xff} }},
		{"payload with bytes behind it", func(r *raw) { r.payload = append(bytes.Clone(byePayload), 0) }},
		{"payload with a tag", func(r *raw) { r.payload = []byte{0xa1, 9, 0xc1, 0} }},
		{"payload with text that is not UTF-8", func(r *raw) { r.payload = []byte{0xa1, 9, 0x62, 0xff, 0xfe} }},
		{"payload nested too deep", func(r *raw) { r.payload = []byte{0xa1, 9, 0x81, 0x81, 0x81, 0x81, 0x80} }},
		{"payload with 65 entries", func(r *raw) { r.payload = mustCBOR(t, map[int64]any{9: make([]int, 65)}) }},
		{"payload cut short", func(r *raw) { r.payload = byePayload[:len(byePayload)-1] }},
		{"empty payload", func(r *raw) { r.payload = []byte{} }},
	} {
		r := message(t, "gkrp/1.up.bye", byePayload)
		row.change(&r)
		add(row.name, "malformed", gkrp.Up, r.wire(t))
	}
	add("a device's message on its own down topic", "malformed", gkrp.Down, wire)
	stop := mustCBOR(t, fields(t, all["down stop"]))
	orphan := message(t, "gkrp/1.down.stop", stop)
	orphan.unprotected = nil
	add("a service's message without controller statement", "malformed", gkrp.Down, orphan.wire(t))

	// Signatures.
	damaged := bytes.Clone(wire)
	damaged[len(damaged)-1] ^= 1
	add("signature damaged", "signature", gkrp.Up, damaged)
	edited := bytes.Clone(wire)
	edited[bytes.Index(edited, []byte("source ended"))] ^= 0x20
	add("payload edited", "signature", gkrp.Up, edited)
	for _, row := range []struct {
		name string
		r    raw
	}{
		{"another signer", func() raw { r := message(t, "gkrp/1.up.bye", byePayload); r.signer = "other"; return r }()},
		{"another device's topic", func() raw { r := message(t, "gkrp/1.up.bye", byePayload); r.aad = "cam-2/cam-1-main"; return r }()},
		{"another stream's topic", func() raw { r := message(t, "gkrp/1.up.bye", byePayload); r.aad = "cam-1/cam-2"; return r }()},
		{"no external_aad", func() raw { r := message(t, "gkrp/1.up.bye", byePayload); r.aad = ""; return r }()},
		{"a service's message of a key that the statement does not name", func() raw { r := message(t, "gkrp/1.down.stop", stop); r.signer = "kms"; return r }()},
		{"a service's message with a statement of another key management service", func() raw {
			r := message(t, "gkrp/1.down.stop", stop)
			r.signer = "other"
			r.unprotected = map[int64]any{-70001: statement("gkrp/1.controller", "other", mustCBOR(t, map[int]any{1: "processing-1", 2: publicOf("other")})).wire(t)}
			return r
		}()},
	} {
		dir := gkrp.Up
		if strings.Contains(row.r.protected[16].(string), "down") {
			dir = gkrp.Down
		}
		add(row.name, "signature", dir, row.r.wire(t))
	}

	// Fields.
	add("bye with an unknown mandatory field", "unknown-mandatory", gkrp.Up, message(t, "gkrp/1.up.bye", with("up bye", -1, 0)).wire(t))
	add("grant with an unknown mandatory field", "unknown-mandatory", gkrp.Down, message(t, "gkrp/1.down.grant", with("down grant", -300, "x")).wire(t))
	for _, row := range []struct {
		name  string
		of    string
		key   int64
		value any
	}{
		{"hello of no session", "up hello with nonce", 3, make([]byte, 16)},
		{"hello without session", "up hello with nonce", 3, nil},
		{"hello with a session of 15 bytes", "up hello with nonce", 3, make([]byte, 15)},
		{"hello of a device id that is none", "up hello with nonce", 1, "cam/1"},
		{"hello of a stream id that is too long", "up hello with nonce", 2, strings.Repeat("x", 64)},
		{"hello without versions", "up hello with nonce", 4, []int{}},
		{"hello with a negative version", "up hello with nonce", 4, []int{-1}},
		{"hello without suites", "up hello with nonce", 5, []int{}},
		{"hello with payload type 128", "up hello with nonce", 6, map[int]any{1: "mp2t", 2: 128, 3: 90000}},
		{"hello with a payload of unknown kind", "up hello with nonce", 6, map[int]any{1: "tape", 2: 33, 3: 90000}},
		{"hello without clock rate", "up hello with nonce", 6, map[int]any{1: "mp2t", 2: 33, 3: 0}},
		{"hello with a high water of 33 bits", "up hello with nonce", 7, uint64(1) << 32},
		{"hello without prekeys", "up hello with nonce", 9, [][]byte{}},
		{"hello with 5 prekeys", "up hello with nonce", 9, [][]byte{{1}, {2}, {3}, {4}, {5}}},
		{"hello with long software", "up hello with nonce", 10, strings.Repeat("x", gkrp.MaxTextBytes+1)},
		{"hello with a next index of 49 bits", "up hello with nonce", 11, uint64(1) << 48},
		{"hello with text where an integer belongs", "up hello with nonce", 7, "41"},
		{"challenge with a nonce of 15 bytes", "down challenge", 3, make([]byte, 15)},
		{"challenge with a nonce of 33 bytes", "down challenge", 3, make([]byte, 33)},
		{"welcome without transports", "down welcome", 9, []string{}},
		{"welcome without grant", "down welcome", 11, []byte{}},
		{"welcome with an SSRC of 33 bits", "down welcome", 8, uint64(1) << 32},
		{"grant of epoch 0", "down grant", 3, 0},
		{"grant without envelope", "down grant", 6, nil},
		{"ack of epoch 0", "up ack", 3, 0},
		{"ack with a confirmation of 31 bytes", "up ack", 5, make([]byte, 31)},
		{"ack with a first index of 49 bits", "up ack", 6, uint64(1) << 48},
		{"ack with 5 prekeys", "up ack", 7, [][]byte{{1}, {2}, {3}, {4}, {5}}},
		{"report with a range that falls", "up report", 6, vectorFirst - 1},
		{"report with an index of 49 bits", "up report", 6, uint64(1) << 48},
		{"report with a tag too few", "up report with tags", 10, make([]byte, 8)},
		{"report with half a tag", "up report with tags", 10, make([]byte, 14)},
		{"report whose ingress has half a mark", "up report with ingress", 13, map[int]any{1: 1000, 2: 2, 3: 2632, 4: 40, 5: 7, 10: make([]byte, 6)}},
		{"report whose ingress is no map", "up report with ingress", 13, 7},
		{"report whose encoder has a cause with a space", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 3: "it failed"}},
		{"report whose encoder has a cause of 33 letters", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 3: strings.Repeat("w", gkrp.MaxWhy+1)}},
		{"report whose encoder has a regime with a control character", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 4: "night\x1b[2J"}},
		{"report whose encoder has a regime of 64 letters", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 4: strings.Repeat("r", gkrp.MaxRegime+1)}},
		{"report whose encoder has a regime that begins with a dash", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 4: "-x"}},
		{"report whose encoder has an empty cause", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 3: ""}},
		{"report whose encoder has no text for a cause", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 3: nil}},
		{"report whose encoder has an empty regime", "up report of an encoder that runs", 14, map[int]any{1: 1, 2: 0, 4: ""}},
		{"report whose encoder is no map", "up report of an encoder that runs", 14, 7},
		{"refill with 5 prekeys", "up refill", 3, [][]byte{{1}, {2}, {3}, {4}, {5}}},
		{"reject with long text", "down reject", 4, strings.Repeat("x", gkrp.MaxTextBytes+1)},
		{"stop with long text", "down stop", 3, strings.Repeat("x", gkrp.MaxTextBytes+1)},
		{"bye with long text", "up bye", 4, strings.Repeat("x", gkrp.MaxTextBytes+1)},
	} {
		dir, _, _ := strings.Cut(row.of, " ")
		typ := "gkrp/1." + dir + "." + string(all[row.of].Type())
		add(row.name, "malformed", gkrp.Direction(dir), message(t, typ, with(row.of, row.key, row.value)).wire(t))
	}
	return f
}

// srtpKeys derives session keys (RFC 3711 §4.3) apart from the media package.
func srtpKeys(t testing.TB, mediaKey []byte) (key, salt []byte) {
	t.Helper()
	derive := func(label byte, n int) []byte {
		block, err := aes.NewCipher(mediaKey[:32])
		if err != nil {
			t.Fatal(err)
		}
		iv := append(bytes.Clone(mediaKey[32:]), 0, 0, 0, 0)
		iv[7] ^= label
		out := make([]byte, n)
		cipher.NewCTR(block, iv).XORKeyStream(out, out)
		return out
	}
	return derive(0, 32), derive(2, 12)
}

func makeSRTP(t *testing.T) any {
	f := vectorFile[srtpVector]{
		Comment: "SRTP packets of one epoch in the order of their arrival, and what a receiver makes of each. SPEC.md section 9.",
	}
	v := srtpVector{
		Name: "an epoch that begins before a wrap", MediaKey: mediaBytes(vectorEpoch), SSRC: vectorSSRC, Epoch: vectorEpoch, First: vectorFirst, End: vectorFirst + 8,
	}
	v.SessionKey, v.SessionSalt = srtpKeys(t, v.MediaKey)
	// Every packet is sealed under a fresh sealer, because some indices come twice.
	seal := func(name, outcome string, i gk.Index, header, payload []byte) packetVector {
		s, err := media.NewSealer(mediaKeyOf(t, v.MediaKey), v.SSRC, v.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		pkt, err := s.Seal(nil, header, payload, i)
		if err != nil {
			t.Fatal(err)
		}
		return packetVector{Name: name, Outcome: outcome, Packet: pkt, Index: i, Header: header, Payload: payload}
	}
	header := func(i gk.Index) []byte {
		return media.Header{PayloadType: 33, Seq: i.Seq(), Timestamp: 0x01020304, SSRC: v.SSRC}.AppendTo(nil)
	}
	long := header(v.First + 3)
	long[0] |= 0x12 // extension, two CSRCs
	long = append(long, 0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 1, 0x10, 0x55, 0, 0)
	ts := append([]byte{0x47, 0x1f, 0xff, 0x10}, bytes.Repeat([]byte{0xff}, 184)...)
	first := seal("the first", "ok", v.First, header(v.First), ts)
	damaged := func(name string, at int) packetVector {
		p := seal(name, "auth-failed", v.First+6, header(v.First+6), ts)
		p.Packet = bytes.Clone(p.Packet)
		p.Packet[(at+len(p.Packet))%len(p.Packet)] ^= 1
		return packetVector{Name: name, Outcome: p.Outcome, Packet: p.Packet}
	}
	other := bytes.Clone(first.Packet)
	binary.BigEndian.PutUint32(other[len(other)-4:], uint32(v.Epoch)+1)
	stranger := header(v.First + 6)
	stranger[11] ^= 1
	v.Packets = []packetVector{
		first,
		{Name: "the first again", Outcome: "duplicate", Packet: first.Packet},
		seal("the wrap: ROC rises", "ok", v.First+2, header(v.First+2), []byte("after the wrap")),
		seal("late, from before the wrap", "ok", v.First+1, header(v.First+1), []byte("before the wrap")),
		seal("CSRCs and a header extension", "ok", v.First+3, long, []byte("payload")),
		seal("empty payload", "ok", v.First+4, header(v.First+4), []byte{}),
		seal("another packet of an index that was used", "two-writers", v.First+4, header(v.First+4), []byte("thief")),
		seal("below the epoch's first index", "before-first", v.First-1, header(v.First-1), []byte("early")),
		seal("at the next epoch's first index", "past-end", v.End, header(v.End), []byte("stale")),
		damaged("tag damaged", -5),
		damaged("payload damaged", 20),
		damaged("timestamp damaged", 5),
		{Name: "MKI of another epoch", Outcome: "bad-packet", Packet: other},
		{Name: "another SSRC", Outcome: "bad-packet", Packet: append(stranger, first.Packet[12:]...)},
		{Name: "no room for tag and MKI", Outcome: "bad-packet", Packet: first.Packet[:31]},
		{Name: "RTP version 1", Outcome: "bad-packet", Packet: append([]byte{0x40}, first.Packet[1:]...)},
		{Name: "nothing", Outcome: "bad-packet", Packet: []byte{}},
		seal("the last", "ok", v.End-1, header(v.End-1), []byte("the last")),
	}
	for i, p := range v.Packets {
		if p.Outcome != "ok" {
			v.Packets[i].Index, v.Packets[i].Header, v.Packets[i].Payload = 0, nil, nil
		}
	}
	f.Vectors = []srtpVector{v}
	return f
}
