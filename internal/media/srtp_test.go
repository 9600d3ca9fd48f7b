package media

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

const testSSRC = 0x5501a0b2

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testKey is a fixed master key and salt; different n give different keys.
func testKey(n byte) (key, salt []byte) {
	key, salt = make([]byte, masterKeySize), make([]byte, masterSaltSize)
	for i := range key {
		key[i] = byte(i)*7 + n
	}
	for i := range salt {
		salt[i] = byte(i)*11 + n
	}
	return key, salt
}

func testPair(t testing.TB, n byte, epoch gaitkeeper.Epoch) (*Sealer, *Opener) {
	t.Helper()
	key, salt := testKey(n)
	s, err := newSealer(key, salt, testSSRC, epoch)
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOpener(key, salt, testSSRC, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func header(index gaitkeeper.Index) []byte {
	return Header{PayloadType: PayloadTypeTS, Seq: index.Seq(), Timestamp: uint32(index) * 90, SSRC: testSSRC}.AppendTo(nil)
}

func seal(t testing.TB, s *Sealer, index gaitkeeper.Index, payload string) []byte {
	t.Helper()
	pkt, err := s.Seal(nil, header(index), []byte(payload), index)
	if err != nil {
		t.Fatalf("seal %d: %v", index, err)
	}
	return pkt
}

// TestRFC6188Vectors checks the key derivation: RFC 6188 §7.4.
func TestRFC6188Vectors(t *testing.T) {
	key := unhex(t, `f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6`)
	salt := unhex(t, `3b04803de51ee7c96423ab5b78d2`)
	for _, c := range []struct {
		label byte
		want  string
	}{
		{labelEncryption, `5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4`},
		{labelSalt, `fa31791685ca444a9e07c6c64e93`},
		{0x01, `fd9c32d39ed5fbb5a9dc96b30818454d1313dc05`},
	} {
		want := unhex(t, c.want)
		got := make([]byte, len(want))
		if err := prf(got, key, salt, c.label); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("label %d: got %x, want %x", c.label, got, want)
		}
	}
}

// TestRFC7714Vectors checks the packet transform: RFC 7714 §16.2.1 (no MKI
// there, so the last four bytes are ours), starting at the session key.
func TestRFC7714Vectors(t *testing.T) {
	aead, err := newGCM(unhex(t, `000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f`))
	if err != nil {
		t.Fatal(err)
	}
	salt := [sessionSalt]byte(unhex(t, `517569642070726f2071756f`))
	clearPkt := unhex(t, `8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
		69736120 696e2070 61727465 73207472 6573`)
	want := unhex(t, `8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
		9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13
		00000001`)
	s := &Sealer{aead: aead, salt: salt, ssrc: testSSRC, epoch: 1}
	got, err := s.Seal(nil, clearPkt[:12], clearPkt[12:], 0xf17b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("sealed\n%x\nwant\n%x", got, want)
	}
	o := &Opener{aead: aead, salt: salt, ssrc: testSSRC, epoch: 1, end: gaitkeeper.MaxIndex + 1}
	opened, v := o.Open(nil, want)
	if v != OK || opened.Index != 0xf17b || !bytes.Equal(opened.Payload, clearPkt[12:]) {
		t.Fatalf("opened %v index %x payload %x", v, opened.Index, opened.Payload)
	}
}

func TestSealRefuses(t *testing.T) {
	s, _ := testPair(t, 1, 1)
	s.SetFloor(100)
	extended := append(header(101), 0, 0, 0, 0)
	for _, c := range []struct {
		name   string
		header []byte
		index  gaitkeeper.Index
		want   error // nil: any
	}{
		{"below the floor", header(99), 99, ErrIndexUsed},
		{"beyond 48 bits", header(gaitkeeper.MaxIndex + 1), gaitkeeper.MaxIndex + 1, ErrIndexRange},
		{"another sequence number", header(100), 101, nil},
		{"short header", header(100)[:11], 100, ErrBadLength},
		{"header with payload behind it", extended, 101, nil},
		{"another version", append([]byte{0x40}, header(100)[1:]...), 100, ErrBadVersion},
		{"another ssrc", append(header(100)[:11], 0xff), 100, nil},
	} {
		dst, err := s.Seal([]byte("kept"), c.header, []byte("payload"), c.index)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		if string(dst) != "kept" {
			t.Errorf("%s: dst is %q", c.name, dst)
		}
	}
	if s.Next() != 100 {
		t.Fatalf("refused packets moved the index to %d", s.Next())
	}
	seal(t, s, 100, "")
	for _, index := range []gaitkeeper.Index{100, 99, 0} {
		if _, err := s.Seal(nil, header(index), nil, index); !errors.Is(err, ErrIndexUsed) {
			t.Errorf("index %d after 100: %v", index, err)
		}
	}
	s.SetFloor(5)
	if s.Next() != 101 {
		t.Errorf("SetFloor lowered the index to %d", s.Next())
	}
	seal(t, s, gaitkeeper.MaxIndex, "the last one")
	if _, err := s.Seal(nil, header(0), nil, 0); !errors.Is(err, ErrIndexUsed) {
		t.Errorf("index 0 after the last: %v", err)
	}
	s.Wipe()
	if _, err := s.Seal(nil, header(0), nil, 0); err == nil {
		t.Error("a wiped sealer seals")
	}
}

func TestSealInPlace(t *testing.T) {
	s, o := testPair(t, 1, 7)
	buf := make([]byte, 0, 200)
	buf = append(buf, header(9)...)
	buf = append(buf, "in place"...)
	pkt, err := s.Seal(buf[:0], buf[:12], buf[12:], 9)
	if err != nil {
		t.Fatal(err)
	}
	opened, v := o.Open(nil, pkt)
	if v != OK || string(opened.Payload) != "in place" {
		t.Fatalf("%v %q", v, opened.Payload)
	}
}

// TestOpenRefuses corrupts each byte of a packet and each of its lengths: none
// authenticates, and afterwards the true packet still does.
func TestOpenRefuses(t *testing.T) {
	s, o := testPair(t, 1, 3)
	good := seal(t, s, 70000, "some payload of the stream")
	before := o.window
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, v := o.Open(nil, bad); v != BadPacket && v != AuthFail {
				t.Errorf("byte %d bit %d: %v", i, bit, v)
			}
		}
		if _, v := o.Open(nil, good[:i]); v != BadPacket && v != AuthFail {
			t.Errorf("cut to %d: %v", i, v)
		}
	}
	if o.window != before {
		t.Fatal("packets that failed changed the receive state")
	}
	if _, v := o.Open(nil, good); v != OK {
		t.Fatalf("the true packet: %v", v)
	}
	if _, v := o.Open(nil, good); v != Duplicate {
		t.Fatalf("the true packet again: %v", v)
	}
	o.Wipe()
	if _, v := o.Open(nil, good); v != BadPacket {
		t.Fatalf("after wiping: %v", v)
	}
}

func TestOpenReplay(t *testing.T) {
	s, o := testPair(t, 1, 3)
	thief, _ := testPair(t, 1, 3)
	old := seal(t, s, 10, "ten")
	first := seal(t, s, 100, "genuine")
	second := seal(t, thief, 100, "forged by a key holder")
	high := seal(t, s, 10+windowSize, "much later")
	forged := bytes.Clone(second)
	forged[len(forged)-mkiSize-1] ^= 1

	for i, c := range []struct {
		pkt  []byte
		want Verdict
	}{
		{first, OK}, {first, Duplicate}, {second, TwoWriters}, {forged, AuthFail}, {second, TwoWriters}, {first, Duplicate},
		{high, OK}, {old, TooOld}, {first, Duplicate}, {second, TwoWriters},
	} {
		if _, v := o.Open(nil, c.pkt); v != c.want {
			t.Errorf("step %d: %v, want %v", i, v, c.want)
		}
	}
}

func TestOpenBounds(t *testing.T) {
	s, o := testPair(t, 1, 3)
	thief, _ := testPair(t, 1, 3)
	o.Begin(1000)
	below := seal(t, s, 999, "below")
	at := seal(t, s, 1000, "first")
	last := seal(t, s, 1999, "last")
	if _, v := o.Open(nil, below); v != BeforeFirst {
		t.Errorf("below first: %v", v)
	}
	if _, started := o.Highest(); started {
		t.Error("a packet below first moved the state")
	}
	if _, v := o.Open(nil, at); v != OK {
		t.Errorf("first: %v", v)
	}
	o.End(2000)
	for _, index := range []gaitkeeper.Index{2000, 30000} {
		if _, v := o.Open(nil, seal(t, thief, index, "stolen")); v != PastEnd {
			t.Errorf("%d: %v", index, v)
		}
	}
	if high, _ := o.Highest(); high != 1000 {
		t.Errorf("packets past the end moved the highest index to %d", high)
	}
	if _, v := o.Open(nil, last); v != OK {
		t.Errorf("last: %v", v)
	}
}

// TestOpenSeeds opens the first packet of an epoch at far indices.
func TestOpenSeeds(t *testing.T) {
	const cycle = 1 << 16
	for _, c := range []struct {
		name  string
		seed  func(*Opener)
		index gaitkeeper.Index
		want  Verdict
	}{
		{"unseeded, no rollover", nil, 5, OK},
		{"unseeded, three rollovers", nil, 3*cycle + 5, OK},
		{"unseeded, four rollovers", nil, 4*cycle + 5, AuthFail},
		{"hinted exactly", func(o *Opener) { o.Hint(9 * cycle) }, 9 * cycle, OK},
		{"hinted, sender is a cycle further", func(o *Opener) { o.Hint(9 * cycle) }, 10*cycle + 5, OK},
		{"hinted, a packet from a cycle ago", func(o *Opener) { o.Hint(9 * cycle) }, 8*cycle + 5, OK},
		{"hinted, sender restarted the counter", func(o *Opener) { o.Hint(9 * cycle) }, 5, OK},
		{"hinted, sender is two cycles further", func(o *Opener) { o.Hint(9 * cycle) }, 11*cycle + 5, AuthFail},
		{"begins across a wrap", func(o *Opener) { o.Begin(9*cycle - 1) }, 9 * cycle, OK},
		{"begins below a wrong hint", func(o *Opener) { o.Hint(40 * cycle); o.Begin(9 * cycle) }, 9*cycle + 7, OK},
		{"the last index", func(o *Opener) { o.Hint(gaitkeeper.MaxIndex) }, gaitkeeper.MaxIndex, OK},
	} {
		s, o := testPair(t, 1, 3)
		if c.seed != nil {
			c.seed(o)
		}
		if opened, v := o.Open(nil, seal(t, s, c.index, "x")); v != c.want || v == OK && opened.Index != c.index {
			t.Errorf("%s: %v at %d, want %v at %d", c.name, v, opened.Index, c.want, c.index)
		}
	}
}

// TestOpenAfterOutage loses more than half a sequence cycle: only a hint helps.
func TestOpenAfterOutage(t *testing.T) {
	s, o := testPair(t, 1, 3)
	o.Open(nil, seal(t, s, 10, "x"))
	pkt := seal(t, s, 200_000, "x")
	if _, v := o.Open(nil, pkt); v != AuthFail && v != TooOld {
		t.Fatalf("without a hint: %v", v)
	}
	o.Hint(199_000)
	if _, v := o.Open(nil, pkt); v != OK {
		t.Fatalf("with a hint: %v", v)
	}
}

func TestEpochZeroAndWipedKeysRefused(t *testing.T) {
	key, salt := testKey(1)
	if _, err := newSealer(key, salt, 1, 0); err == nil {
		t.Error("sealer for epoch 0")
	}
	if _, err := newOpener(key, salt, 1, 0); err == nil {
		t.Error("opener for epoch 0")
	}
	k, err := keyring.NewMediaKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Wipe()
	if _, err := NewSealer(k, 1, 1); err == nil {
		t.Error("sealer of a wiped key")
	}
	if _, err := NewOpener(k, 1, 1); err == nil {
		t.Error("opener of a wiped key")
	}
}

func TestPrintsNoKey(t *testing.T) {
	s, o := testPair(t, 1, 3)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		got := fmt.Sprintf(format+" "+format, s, o)
		if want := "sealer(ssrc 5501a0b2, epoch 3) opener(ssrc 5501a0b2, epoch 3)"; got != want {
			t.Errorf("%s prints %q", format, got)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	s, o := testPair(t, 1, 3)
	payload := make([]byte, TSPerRTP*TSPacketSize)
	hdr := header(0)
	buf, out := make([]byte, 0, 2048), make([]byte, 0, 2048)
	index := gaitkeeper.Index(0)
	allocs := testing.AllocsPerRun(2000, func() {
		hdr = Header{PayloadType: PayloadTypeTS, Seq: index.Seq(), SSRC: testSSRC}.AppendTo(hdr[:0])
		pkt, err := s.Seal(buf, hdr, payload, index)
		if err != nil {
			t.Fatal(err)
		}
		if _, v := o.Open(out, pkt); v != OK {
			t.Fatal(v)
		}
		index++
	})
	if allocs != 0 {
		t.Errorf("%v allocations for seal and open", allocs)
	}
}

// What an opener only suspects does not displace what it was told; and below
// where it resumes, a recording of the same epoch is too old.
func TestOpenSuspectsAndResumes(t *testing.T) {
	const cycle = gaitkeeper.Index(1 << 16)
	for _, row := range []struct {
		name  string
		tell  func(*Opener)
		index gaitkeeper.Index
		want  Verdict
	}{
		{"led astray", func(o *Opener) { o.Hint(9*cycle + 100); o.Suspect(15*cycle + 7) }, 9*cycle + 200, OK},
		{"led astray, and back at once", func(o *Opener) { o.Hint(9*cycle + 100); o.Suspect(15*cycle + 7) }, 10*cycle + 3, OK},
		{"rightly suspected, as long ago told", func(o *Opener) { o.Hint(2 * cycle); o.Suspect(9 * cycle) }, 9*cycle + 200, OK},
		{"only suspected", func(o *Opener) { o.Suspect(9 * cycle) }, 9*cycle - 1, OK},
		{"suspected twice", func(o *Opener) { o.Hint(9 * cycle); o.Suspect(40 * cycle); o.Suspect(20 * cycle) }, 20*cycle + 1, OK},
		{"resumed", func(o *Opener) { o.Resume(9*cycle + 5000) }, 9*cycle + 5000, OK},
		{"resumed, late packet", func(o *Opener) { o.Resume(9*cycle + 5000) }, 9*cycle + 5000 - windowSize, OK},
		{"resumed, recording", func(o *Opener) { o.Resume(9*cycle + 5000) }, 9*cycle + 4999 - windowSize, TooOld},
		{"resumed near the beginning", func(o *Opener) { o.Resume(10) }, 1, OK},
	} {
		s, o := testPair(t, 1, 3)
		row.tell(o)
		if _, v := o.Open(nil, seal(t, s, row.index, "x")); v != row.want {
			t.Errorf("%s: %v, want %v", row.name, v, row.want)
		}
	}
}
