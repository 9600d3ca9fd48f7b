package feature

import "testing"

func TestPicturesAreRead(t *testing.T) {
	unit := func(v uint32) Token { return token(FamilyUnit, v) }
	code := func(v uint32) Token { return token(FamilySlice, 1<<24|v) }
	for _, c := range []struct {
		form    Form
		t       Token
		want    Picture
		ok      bool
		between bool
	}{
		{H264, unit(0x41), Picture{}, true, false},
		{H264, unit(0x01), Picture{}, true, true},
		{H264, unit(0x21), Picture{}, true, true},
		{H264, unit(0x65), Picture{Key: true}, true, false},
		{H264, unit(0xe5), Picture{}, false, false}, // the forbidden bit
		{H264, unit(0x67), Picture{}, false, false},
		{H264, unit(1<<16 | 0x65), Picture{}, false, false},
		{H264, token(FamilySlice, 1<<16|6<<8), Picture{}, false, true},
		{H264, token(FamilySlice, 1<<16|5<<8), Picture{}, false, false},
		{H265, unit(1<<8 | 1), Picture{HEVC: true, Last: 1}, true, false},
		{H265, unit(8<<8 | 2), Picture{HEVC: true, Last: 2}, true, true},
		{H265, unit(19<<8 | 1), Picture{HEVC: true, Key: true, Last: 1}, true, false},
		{H265, unit(33<<8 | 1), Picture{}, false, false},
		{TS, code(1<<16 | 0x41), Picture{}, true, false},
		{TS, code(0x65), Picture{Key: true}, true, false},
		{TS, code(0x02), Picture{HEVC: true}, true, false},
		{TS, code(0x10), Picture{HEVC: true}, true, true},
		{TS, code(0x2a), Picture{HEVC: true, Key: true}, true, false},
		{TS, unit(0x41), Picture{}, false, false},
		{Opaque, unit(0x41), Picture{}, false, false},
	} {
		got, ok := c.t.Picture(c.form)
		if ok != c.ok || ok && got != c.want || c.t.Between(c.form) != c.between {
			t.Errorf("%v of %v: %+v, %v, between %v; want %+v, %v, %v", c.t, c.form, got, ok, c.t.Between(c.form), c.want, c.ok, c.between)
		}
	}
}

func TestWhatStandsBeforeKeyPictures(t *testing.T) {
	unit := func(v uint32) Token { return token(FamilyUnit, v) }
	for _, c := range []struct {
		form             Form
		t                Token
		heading, message bool
		apart            Token // 0: none
	}{
		{H264, unit(0x67), true, false, unit(1<<16 | 0x67)},
		{H264, unit(1<<16 | 0x06), true, true, unit(0x06)},
		{H264, unit(unitRegular | nalSEI), true, true, 0},
		{H264, unit(unitRegular | nalAUD), false, false, 0},
		{H264, unit(0x41), false, false, 0},
		{H264, unit(0x0b), false, false, unit(1<<16 | 0x0b)}, // the end of a stream
		{H264, unit(2<<16 | 6), true, false, 0},              // a recovery point
		{H264, unit(2<<16 | 5), false, false, 0},             // whatever somebody likes
		{H265, unit(33<<8 | 1), true, false, unit(1<<20 | 33<<8 | 1)},
		{H265, unit(1<<8 | 1), false, false, 0},
		{TS, unit(0x67), false, false, 0},
	} {
		other, ok := c.t.Apart(c.form)
		if !ok {
			other = 0
		}
		if c.t.Heading(c.form) != c.heading || c.t.Messages(c.form) != c.message || other != c.apart {
			t.Errorf("%v of %v: heading %v, message %v, apart %v", c.t, c.form, c.t.Heading(c.form), c.t.Messages(c.form), other)
		}
	}
}
