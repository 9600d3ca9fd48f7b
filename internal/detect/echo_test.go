package detect

import (
	"math"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// TestEchoFloor: a codec that repeats rows by itself is accused by more echoes.
func TestEchoFloor(t *testing.T) {
	const sequenceHeader = 1<<24 | 0xb3
	rows := feature.Token(uint32(feature.FamilySlice)<<28 | sequenceHeader)
	for _, c := range []struct {
		rate float64 // packets/s
		rows bool
		want float64
	}{
		{25, false, 3}, {290, false, 3}, {490, false, 5}, {1500, false, 12},
		{10, true, 3}, {26, true, 4}, {64, true, 8}, {105, true, 12}, {1000, true, 12},
	} {
		p := &Profile{}
		p.Fours[feature.PacketRate].Median = math.Log2(c.rate)
		if c.rows {
			p.Vocabulary.Words = []Word{{Token: rows}}
		}
		if got := p.echoFloor(); got != c.want {
			t.Errorf("%g packets/s, rows coded apart %v: %g echoes accuse, want %g", c.rate, c.rows, got, c.want)
		}
	}
}
