package capture

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// offsets are where the records of a file that [writePcap] made begin.
func offsets(file []byte) (at []int) {
	for i := pcapHeader; i < len(file); i += pcapRecord + int(binary.LittleEndian.Uint32(file[i+8:])) {
		at = append(at, i)
	}
	return at
}

// blocks are where the packets of a file that [writeNg] made begin.
func blocks(file []byte) (at []int) {
	for i := 0; i < len(file); i += int(binary.LittleEndian.Uint32(file[i+4:])) {
		if binary.LittleEndian.Uint32(file[i:]) == ngEnhanced {
			at = append(at, i)
		}
	}
	return at
}

// TestDamagedRecord: a broken record costs at most itself, and is told with its place.
func TestDamagedRecord(t *testing.T) {
	fs := mixed()
	put := func(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
	const broken = 60 // of the file's records: a packet of the stream
	pcap := func(spoil func([]byte)) []byte {
		file := writePcap(t, fs, true, 65535)
		spoil(file[offsets(file)[broken-1]:])
		return file
	}
	ng := func(spoil func([]byte)) []byte {
		file := writeNg(t, fs, 65535)
		spoil(file[blocks(file)[broken-1]:])
		return file
	}
	zip := func() []byte {
		file := zipped(writePcap(t, fs, true, 65535))
		for i := len(file) * 6 / 10; i < len(file)*7/10; i++ {
			file[i] ^= 0x5a
		}
		return file
	}
	for name, c := range map[string]struct {
		file        []byte
		least, most int // packets of the stream that are left of 100
		want        string
	}{
		"nothing":                        {pcap(func([]byte) {}), 100, 100, ""},
		"pcap, original below captured":  {pcap(func(b []byte) { put(b[12:], 7) }), 100, 100, "record 60 at byte "},
		"pcap, no such length":           {pcap(func(b []byte) { put(b[8:], 1<<31) }), 99, 99, "1070 bytes up to the next record were left out"},
		"pcap, too long":                 {pcap(func(b []byte) { put(b[8:], 1400); put(b[12:], 1400) }), 98, 99, "record 61 at byte "},
		"pcap, too short":                {pcap(func(b []byte) { put(b[8:], 500) }), 99, 100, "record 61 at byte "},
		"pcap, gzip":                     {zip(), 10, 90, "cannot be unpacked"},
		"pcapng, nothing":                {ng(func([]byte) {}), 100, 100, ""},
		"pcapng, original below":         {ng(func(b []byte) { put(b[24:], 7) }), 100, 100, "record 60 at byte "},
		"pcapng, captured above":         {ng(func(b []byte) { put(b[20:], 1<<20) }), 99, 99, "is more than its block holds: it was left out"},
		"pcapng, no such interface":      {ng(func(b []byte) { put(b[8:], 3) }), 99, 99, "of interface 3, and the file describes 1"},
		"pcapng, no such length":         {ng(func(b []byte) { put(b[4:], 1<<31) }), 99, 99, "bytes up to the next were left out"},
		"pcapng, lengths do not agree":   {ng(func(b []byte) { put(b[4:], 200) }), 99, 99, "bytes up to the next were left out"},
		"pcapng, nothing readable after": {ng(func(b []byte) { clear(b) }), 40, 60, "the rest was left out"},
	} {
		t.Run(name, func(t *testing.T) {
			r, ps := read(t, c.file, Flow{Port: 5004})
			if len(ps) < c.least || len(ps) > c.most {
				t.Errorf("%d packets, want %d to %d", len(ps), c.least, c.most)
			}
			told := strings.Join(r.Damage(), "\n")
			if !strings.Contains(told, c.want) || (told == "") != (c.want == "") {
				t.Errorf("told %q, want %q in it", told, c.want)
			}
		})
	}
}

// TestManyDamages: a file of nothing but broken records is told in few lines.
func TestManyDamages(t *testing.T) {
	file := writePcap(t, mixed(), true, 65535)
	for _, at := range offsets(file) {
		binary.LittleEndian.PutUint32(file[at+12:], 1)
	}
	r, ps := read(t, file, Flow{})
	if told := r.Damage(); len(ps) != 100 || len(told) != toldDamages+1 || told[toldDamages] != "and 125 more" {
		t.Errorf("%d packets, told %q", len(ps), told)
	}
	if _, err := Open(bytes.NewReader(append(file[:pcapHeader:pcapHeader], bytes.Repeat([]byte{0xff}, 5000)...)), Flow{}); err == nil {
		t.Error("a file without a record opens")
	}
}
