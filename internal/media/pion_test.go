package media

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gaitkeeper/gaitkeeper"
	"github.com/pion/srtp/v3"
	"pgregory.net/rapid"
)

func mki(epoch gaitkeeper.Epoch) []byte { return binary.BigEndian.AppendUint32(nil, uint32(epoch)) }

func pionContext(t interface{ Fatal(...any) }, epoch gaitkeeper.Epoch) *srtp.Context {
	key, salt := testKey(byte(epoch))
	c, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes256Gcm, srtp.MasterKeyIndicator(mki(epoch)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// changePionKey moves a pion context on to an epoch's key.
func changePionKey(t interface{ Fatal(...any) }, c *srtp.Context, epoch gaitkeeper.Epoch) {
	key, salt := testKey(byte(epoch))
	if err := c.AddCipherForMKI(mki(epoch), key, salt); err != nil {
		t.Fatal(err)
	}
	if err := c.SetSendMKI(mki(epoch)); err != nil {
		t.Fatal(err)
	}
}

// TestPionAgrees seals the same packets with pion and with ours, byte for byte,
// through key changes and sequence wraps; each side opens the other's.
func TestPionAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		epoch := gaitkeeper.Epoch(1)
		sender, receiver := pionContext(t, epoch), pionContext(t, epoch)
		key, salt := testKey(byte(epoch))
		ours, _ := newSealer(key, salt, testSSRC, epoch)
		open, _ := newOpener(key, salt, testSSRC, epoch)
		// A pion context begins at rollover counter 0.
		index := gaitkeeper.Index(rapid.Uint64Range(0, 1<<16-1).Draw(t, "first index"))
		for n := range rapid.IntRange(1, 30).Draw(t, "packets") {
			if n > 0 {
				index += gaitkeeper.Index(rapid.Uint64Range(1, 30000).Draw(t, "step"))
			}
			if n > 0 && rapid.IntRange(0, 4).Draw(t, "change key") == 0 {
				epoch++
				changePionKey(t, sender, epoch)
				changePionKey(t, receiver, epoch)
				key, salt = testKey(byte(epoch))
				ours, _ = newSealer(key, salt, testSSRC, epoch)
				open, _ = newOpener(key, salt, testSSRC, epoch)
				open.Begin(index)
			}
			hdr := header(index)
			payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
			theirs, err := sender.EncryptRTP(nil, append(bytes.Clone(hdr), payload...), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.Seal(nil, hdr, payload, index)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, theirs) {
				t.Fatalf("epoch %d index %d:\nours  %x\npion  %x", epoch, index, got, theirs)
			}
			clearPkt, err := receiver.DecryptRTP(nil, got, nil)
			if err != nil || !bytes.Equal(clearPkt[12:], payload) {
				t.Fatalf("pion opens ours: %v", err)
			}
			opened, v := open.Open(nil, theirs)
			if v != OK || opened.Index != index || !bytes.Equal(opened.Payload, payload) {
				t.Fatalf("ours opens pion's: %v at %d, want %d", v, opened.Index, index)
			}
		}
	})
}

// TestPionAgreesOnHeaders covers CSRCs, extensions and padding.
func TestPionAgreesOnHeaders(t *testing.T) {
	for name, hdr := range map[string]string{
		"csrcs":              "83a10001 00000000 5501a0b2 00000001 00000002 00000003",
		"extension":          "90210001 00000000 5501a0b2 bede0001 10ff0000",
		"empty extension":    "90210001 00000000 5501a0b2 12340000",
		"padding":            "a0210001 00000000 5501a0b2",
		"csrc and extension": "91210001 00000000 5501a0b2 00000009 bede0002 10ff0000 20ffff00",
	} {
		h := unhex(t, hdr)
		payload := []byte("payload\x00\x00\x00\x04")
		theirs, err := pionContext(t, 4).EncryptRTP(nil, append(bytes.Clone(h), payload...), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, o := testPair(t, 4, 4)
		got, err := s.Seal(nil, h, payload, 1)
		if err != nil || !bytes.Equal(got, theirs) {
			t.Errorf("%s: %v\nours  %x\npion  %x", name, err, got, theirs)
		}
		if opened, v := o.Open(nil, theirs); v != OK || opened.Header.Size != len(h) || !bytes.Equal(opened.Payload, payload) {
			t.Errorf("%s: opened %v", name, v)
		}
	}
}
