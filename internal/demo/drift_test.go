package demo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/attack"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The drift that the story tells is one that the engine finds, with the story's
// baseline and footage, within the time that the story gives it; and the same footage
// without it is calm. Virtual time: the story itself takes two minutes.
func TestDriftIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("encodes two minutes of footage")
	}
	t.Parallel()
	needEncoder(t)
	k, err := find("drift")
	if err != nil {
		t.Fatal(err)
	}
	begin := k.learn + 2*time.Second + calmly.Clean
	path := filepath.Join(t.TempDir(), "camera.ts")
	if err := encodeClip(t.Context(), path, 0, begin+k.within, cameraFilter, steadyEncoder...); err != nil {
		t.Fatal(err)
	}
	film, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, attacked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			alarms := watchDrift(t, film, k, begin, attacked)
			if !attacked && len(alarms) > 0 {
				t.Errorf("alarms without an attack: %+v", alarms)
			}
			if attacked && (len(alarms) != 1 || alarms[0].Kind != "drift" || alarms[0].Class != detect.Source) {
				t.Errorf("alarms: %+v, want one of class source, drift", alarms)
			}
		})
	}
}

// watchDrift has an engine watch film, and gives its alarms.
func watchDrift(t *testing.T, film []byte, k kind, begin time.Duration, attacked bool) (alarms []detect.Verdict) {
	t.Helper()
	up, err := attack.NewUpstream(device.NewClipSource(bytes.NewReader(film), false), attack.Drift, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if _, err := up.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	meter := feature.NewMeter(feature.TS)
	engine := detect.NewEngine(feature.TS, detect.Settings{Sensitivity: storySensitivity})
	start, end, began := time.Now(), int64(feature.Hop), false
	var w feature.Window
	p := feature.Packet{Header: feature.Header{Flags: 0x80, PayloadType: media.PayloadTypeTS, SSRC: 1}, HeaderLen: 12}
	for {
		var b device.Batch
		if err := up.Read(t.Context(), &b); errors.Is(err, io.EOF) {
			return alarms
		} else if err != nil {
			t.Fatal(err)
		}
		at := time.Since(start)
		for ; at.Nanoseconds() >= end; end += feature.Hop {
			meter.Roll(&w, end)
			v := engine.Observe(&w)
			if v.Alarm {
				t.Logf("after %v: %s", time.Duration(end)-begin, v.Text)
				alarms = append(alarms, v)
			}
			if engine.Learning() && end >= (k.learn+2*time.Second).Nanoseconds() {
				engine.Settle()
			}
		}
		if attacked && !began && at >= begin {
			began = true
			up.Begin()
		}
		for i, u := range b.Units {
			p.At, p.Timestamp, p.Payload, p.Wire = at.Nanoseconds()+int64(i), u.Timestamp, u.Payload, 12+len(u.Payload)
			meter.Observe(&p)
			p.Seq++
		}
	}
}
