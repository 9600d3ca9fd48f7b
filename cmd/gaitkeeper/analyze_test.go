package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// writeCapture writes 60 s of an MPEG-TS stream; from 40 s on, bytes are appended to
// every tenth packet if tampered.
func writeCapture(t *testing.T, path string, tampered bool) {
	t.Helper()
	var buf bytes.Buffer
	w := pcapgo.NewWriterNanos(&buf)
	if err := w.WriteFileHeader(96, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 60 * 50 {
		length := 1316
		if tampered && i > 40*50 && i%10 == 0 {
			length += 24
		}
		b := make([]byte, 96)
		b[12], b[14], b[23] = 0x08, 0x45, 17
		binary.BigEndian.PutUint16(b[16:], uint16(40+length))
		copy(b[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		binary.BigEndian.PutUint16(b[34:], 40000)
		binary.BigEndian.PutUint16(b[36:], 5004)
		binary.BigEndian.PutUint16(b[38:], uint16(20+length))
		b[42], b[43] = 0x80, 33
		binary.BigEndian.PutUint16(b[44:], uint16(i))
		binary.BigEndian.PutUint32(b[46:], uint32(i/2*3600))
		binary.BigEndian.PutUint32(b[50:], 7)
		copy(b[54:], []byte{0x47, 0x01, 0x00, 0x10 | byte(i*7)&15})
		for k := 58; k < 96; k++ {
			b[k] = byte(rng.Uint32())
		}
		at := start.Add(time.Duration(i/2)*40*time.Millisecond + time.Duration(i%2)*time.Millisecond)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: 96, Length: 54 + length}, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnalyze(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cam.pcap")
	writeCapture(t, path, true)

	status, out, errs := gaitkeeper(t.Context(), "analyze", "--baseline=30s", path)
	if status != 0 || !strings.Contains(out, "payload ts") || !strings.Contains(out, "over-cap") {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}

	status, out, errs = gaitkeeper(t.Context(), "analyze", "--jsonl", "--detail", "--baseline=30s", "--plot", filepath.Join(dir, "plot.html"), path)
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	alarms, windows, learned := 0, 0, 0
	for line := range strings.Lines(out) {
		var l windowLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.T <= 30 {
			if learned++; !l.Baseline || l.Score != 0 || l.Kind != "" || l.T != float64(learned)/4 || learned > 4 && len(l.Features) == 0 {
				t.Fatalf("line of the baseline %s", line)
			}
			continue
		}
		windows++
		if l.Baseline || l.Capture != "cam" || l.T <= 30 || !l.Partial || len(l.Scores) == 0 {
			t.Fatalf("line %s", line)
		}
		if l.Score >= 1 {
			alarms++
			if l.T < 40 || l.T > 42 || l.Kind == "" || l.Class != "source" || l.Evidence == "" {
				t.Errorf("alarm %s", line)
			}
		}
	}
	if alarms != 1 || learned != 120 || windows < 110 || windows > 120 {
		t.Errorf("%d alarms in %d windows, want 1 in about 119, behind %d of the baseline, want 120", alarms, windows, learned)
	}
	page, err := os.ReadFile(filepath.Join(dir, "plot.html"))
	for _, want := range []string{"<title>Gaitkeeper: cam</title>", "<polyline", "learned: 30s", `<td class="source">`, "seconds from the first packet"} {
		if err != nil || !bytes.Contains(page, []byte(want)) {
			t.Errorf("plot: no %q (%v)", want, err)
		}
	}
	if bytes.Contains(page, []byte("http")) {
		t.Error("the page needs something from elsewhere")
	}

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--flow=9", path}, "10.0.0.2:5004 (3000 packets): choose the stream's with --flow"},
		{[]string{"--baseline=0s", path}, "too short to learn"},
		{[]string{"--baseline=5m", "--jsonl", path}, "learn for less with --baseline"},
		{[]string{"--weight=nonsense=1", "--baseline=30s", path}, `"nonsense" is no detector: choose among `},
		{[]string{"--plot", filepath.Join(dir, "absent", "x.html"), path}, "plot: "},
		{[]string{write(t, filepath.Join(dir, "empty"), "")}, "empty"},
		{[]string{"--flow=x:y", path}, "ADDRESS:PORT"},
		{[]string{"--sensitivity=2", path}, "sensitivity"},
		{[]string{write(t, filepath.Join(dir, "text"), "no packets here")}, "tcpdump -w"},
		{[]string{filepath.Join(dir, "absent")}, "absent"},
	} {
		if status, _, errs := gaitkeeper(t.Context(), append([]string{"analyze"}, c.args...)...); status == 0 || !strings.Contains(errs, c.want) {
			t.Errorf("analyze %q: status %d, %q; want %q", c.args, status, errs, c.want)
		}
	}
}

func TestEval(t *testing.T) {
	dir := t.TempDir()
	writeCapture(t, filepath.Join(dir, "cam.pcap"), true)
	writeCapture(t, filepath.Join(dir, "quiet.pcap"), false)
	write(t, filepath.Join(dir, "cam.json"), `{"capture":"cam","baseline_end_s":30,"duration_s":60,"events":[
		{"t_start":40,"t_end":60,"kind":"exfil_append","malicious":true},{"t_start":32,"t_end":33,"kind":"nothing"}]}`)
	write(t, filepath.Join(dir, "quiet.json"), `{"capture":"quiet","baseline_end_s":30,"duration_s":60}`)

	status, out, errs := gaitkeeper(t.Context(), "eval", "--baseline=30s", "--ablation", "--json", "--plot", filepath.Join(dir, "plot.html"), dir)
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	var r evalReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.All.Detected != 1 || r.All.Events != 1 || r.All.False != 0 || r.Source.Detected != 1 || len(r.ROC) == 0 {
		t.Errorf("%+v", r.All)
	}
	found := map[string]bool{}
	for _, d := range r.Ablation {
		found[d.Detector] = d.Alone.Detected == 1 && d.Alone.False == 0
		if d.Advisory && d.Change.Detected != 1 {
			t.Errorf("with %s the engine finds %d, want 1", d.Detector, d.Change.Detected)
		}
	}
	if len(found) < 20 || !found["over-cap"] || found["absence"] {
		t.Errorf("%d detectors alone; over-cap finds it %v, absence %v; want some 25, true and false", len(found), found["over-cap"], found["absence"])
	}
	if status, out, _ = gaitkeeper(t.Context(), "eval", "--ablation", "--baseline=30s", dir); status != 0 || !strings.Contains(out, "advises") || !strings.Contains(out, "exfil_append") {
		t.Errorf("status %d: %s", status, out)
	}
	write(t, filepath.Join(dir, "gone.json"), `{"capture":"gone"}`)
	if status, _, errs = gaitkeeper(t.Context(), "eval", dir); status == 0 || !strings.Contains(errs, "no capture gone") {
		t.Errorf("status %d: %s", status, errs)
	}
}
