package synth

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const (
	mediaPort = 5004
	// snapShort is what the corpus' captures hold of a packet, in bytes.
	snapShort = 96
	snapWhole = 65535
)

// epoch is when every capture begins: seeds, not clocks, tell them apart.
var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// write stores a capture and its label. Times of events become those of the
// capture.
func write(dir string, l *Label, ps []packet) error {
	if len(ps) == 0 {
		return fmt.Errorf("%s: no packet arrived", l.Capture)
	}
	start := ps[0].at
	l.Duration = round3(float64(ps[len(ps)-1].at-start) / 1e9)
	l.Packets = len(ps)
	for i := range ps {
		l.Bytes += ps[i].length() + wireOverhead
	}
	l.MeanKbps = round3(float64(l.Bytes) * 8 / 1e3 / l.Duration)
	for i := range l.Events {
		e := &l.Events[i]
		e.Start, e.End = round3(e.Start-float64(start)/1e9), round3(min(e.End-float64(start)/1e9, l.Duration))
	}
	err := create(filepath.Join(dir, l.Capture+".pcap.gz"), func(w io.Writer) error {
		z := gzip.NewWriter(w)
		if err := writePackets(z, ps, l.SnapLength); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return err
	}
	// The label last: with it the capture is whole.
	return create(filepath.Join(dir, l.Capture+".json"), func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// create writes a file that is there whole or not at all.
func create(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	b := bufio.NewWriterSize(f, 1<<18)
	err = fill(b)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writePackets(w io.Writer, ps []packet, snap int) error {
	out := pcapgo.NewWriterNanos(w)
	if err := out.WriteFileHeader(uint32(snap), layers.LinkTypeEthernet); err != nil {
		return err
	}
	b := make([]byte, 0, 2048)
	for i := range ps {
		p := &ps[i]
		b = p.frame(b[:0], uint16(i))
		n := min(len(b), snap)
		info := gopacket.CaptureInfo{Timestamp: epoch.Add(time.Duration(p.at)), CaptureLength: n, Length: len(b)}
		if err := out.WritePacket(info, b[:n]); err != nil {
			return err
		}
	}
	return nil
}

// frame is the packet in UDP, IPv4 and Ethernet, between addresses kept for examples
// (RFC 5737).
func (p *packet) frame(b []byte, id uint16) []byte {
	n := p.length()
	b = append(b, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+n))
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1)
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum&0xffff+sum>>16))
	b = binary.BigEndian.AppendUint16(b, p.port)
	b = binary.BigEndian.AppendUint16(b, mediaPort)
	b = binary.BigEndian.AppendUint16(b, uint16(8+n))
	b = append(b, 0, 0) // no checksum, RFC 768
	if !p.junk {
		b = p.header(b)
	}
	return append(b, p.payload...)
}

func round3(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name+".json"))
	return err == nil
}
