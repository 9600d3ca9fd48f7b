package device

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A signature tells one kind of data by its first bytes.
type signature struct {
	at    int
	bytes string
	name  string
	mend  string
}

const (
	remux  = "convert it without re-encoding: ffmpeg -i INPUT -c copy -f mpegts OUTPUT.ts"
	encode = "encode it: ffmpeg -i INPUT -c:v libx264 -f mpegts OUTPUT.ts"
)

var signatures = []signature{
	{4, "ftyp", "MP4 (ftyp box)", remux},
	{4, "moov", "MP4 (moov box)", remux},
	{4, "moof", "fragmented MP4 (moof box)", remux},
	{0, "\x1a\x45\xdf\xa3", "Matroska or WebM", remux},
	{0, "FLV\x01", "FLV", remux},
	{0, "OggS", "Ogg", encode},
	{0, "RIFF", "AVI or WAV (RIFF)", encode},
	{0, "\x00\x00\x01\xba", "an MPEG program stream", remux},
	{0, "\x00\x00\x00\x01", "a bare H.264 or H.265 elementary stream", "wrap it: ffmpeg -fflags +genpts -i INPUT -c copy -f mpegts OUTPUT.ts"},
	{0, "\x00\x00\x01", "a bare MPEG elementary stream", "wrap it: ffmpeg -fflags +genpts -i INPUT -c copy -f mpegts OUTPUT.ts"},
	{0, "\xff\xd8\xff", "JPEG", encode},
	{0, "\x89PNG", "PNG", encode},
	{0, "\x1f\x8b", "gzip", "unpack it first"},
	{0, "PK\x03\x04", "a ZIP archive", "unpack it first"},
	{0, "\xd4\xc3\xb2\xa1", "a packet capture", "a capture is no source; take the stream out of it first"},
	{0, "\x0a\x0d\x0d\x0a", "a packet capture (pcapng)", "a capture is no source; take the stream out of it first"},
	{0, "ID3", "MP3", encode},
	{0, "#EXTM3U", "an HLS playlist", "let ffmpeg read it: exec:'ffmpeg -i URL -c copy -f mpegts -'"},
	{0, "v=0", "an SDP description", "give the address it names: rtp://HOST:PORT"},
}

// recognise tells data of a kind that is known not to be MPEG-TS.
func recognise(data []byte) (found, mend string, known bool) {
	for _, s := range signatures {
		if len(data) >= s.at+len(s.bytes) && string(data[s.at:s.at+len(s.bytes)]) == s.bytes {
			return s.name, s.mend, true
		}
	}
	return "", "", false
}

// describeInput says what data is that should have been MPEG-TS, and what to do.
func describeInput(data []byte) (found, mend string) {
	if found, mend, known := recognise(data); known {
		return found, mend
	}
	switch {
	case len(data) == 0:
		return "nothing", "check that the encoder writes MPEG-TS there"
	case periodic(data, 192):
		return "MPEG-TS in 192-byte packets (Blu-ray, AVCHD)", remux
	case periodic(data, 204):
		return "MPEG-TS in 204-byte packets (with Reed-Solomon code)", remux
	case looksLikeText(data):
		return fmt.Sprintf("text (%q)", firstWords(data)), "send MPEG-TS: ffmpeg … -f mpegts"
	}
	return fmt.Sprintf("unknown data (beginning % x)", data[:min(len(data), 8)]), "send MPEG-TS: ffmpeg … -f mpegts"
}

// periodic reports whether sync bytes stand in data at distance size.
func periodic(data []byte, size int) bool {
	for at := 0; at < size && at < len(data); at++ {
		n := 0
		for i := at; i < len(data) && data[i] == 0x47; i += size {
			n++
		}
		if n >= 4 {
			return true
		}
	}
	return false
}

func looksLikeText(data []byte) bool {
	head := data[:min(len(data), 64)]
	if len(head) < 4 {
		return false
	}
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && len(head) >= utf8.UTFMax || !unicode.IsPrint(r) && !unicode.IsSpace(r) && r != utf8.RuneError {
			return false
		}
		head = head[n:]
	}
	return true
}

func firstWords(data []byte) string {
	line, _, _ := bytes.Cut(data[:min(len(data), 40)], []byte("\n"))
	return strings.TrimSpace(string(line))
}
