package feature

import "testing"

func TestKin(t *testing.T) {
	const picture, sound = 0xe0, 0xc0
	pes := func(zero, stream, flags uint32) Token { return token(FamilyUnit, unitPES|zero<<16|stream<<8|flags) }
	describe := func(stream, length uint32) Token { return token(FamilyUnit, unitDescribe|stream<<14|length) }
	for _, c := range []struct {
		t, kin Token
		ok     bool
	}{
		{pes(1, picture, 2), pes(1, picture, 3), true}, // with B pictures allowed, one that is none
		{pes(1, picture, 3), pes(0, picture, 3), true}, // a small picture, and a great one
		{pes(1, sound, 2), 0, false},
		{describe(picture, 5), describe(picture, 10), true},
		{describe(picture, 10), 0, false}, // who never reordered does not begin to
		{describe(sound, 5), 0, false},
		{token(FamilySize, unitPES), 0, false},
		{token(FamilyUnit, 0x61), token(FamilyUnit, 0x41), true},               // an intra picture of a cut
		{token(FamilyUnit, 0x41), 0, false},                                    // who never had one
		{token(FamilyUnit, 0x65), 0, false},                                    // of another kind
		{token(FamilySlice, 1<<24|0x61), token(FamilySlice, 1<<24|0x41), true}, // in TS
		{token(FamilySlice, 1<<24|0x67), 0, false},
		{token(FamilyUnit, unitTS|0x100), token(FamilyUnit, unitTS|1<<16|0x100), true}, // a picture of two packets
		{token(FamilyUnit, unitTS|1<<16|0x100), 0, false},                              // another PID
		{token(FamilyUnit, unitTS|2<<16|0x100), 0, false},                              // damaged
		{token(FamilyUnit, unitTS|LastTable), 0, false},
	} {
		if kin, ok := c.t.Kin(); kin != c.kin || ok != c.ok {
			t.Errorf("%v: kin %v, %v; want %v, %v", c.t, kin, ok, c.kin, c.ok)
		}
	}
}

func TestStuffingSaysNothing(t *testing.T) {
	for tok, want := range map[Token]bool{
		token(FamilyUnit, unitAdapt|0x100):       true,
		token(FamilyUnit, unitAdapt|2<<16|0x100): false, // private data
		token(FamilyUnit, unitTS|0x100):          false,
	} {
		if got := tok.Stuffing(); got != want {
			t.Errorf("%v: stuffing %v", tok, got)
		}
	}
}

func TestKindsOfStartCodes(t *testing.T) {
	start := func(unit uint32) Token { return token(FamilySlice, 1<<24|1<<16|unit) }
	for _, c := range []struct {
		t                              Token
		disposable, access, restarting bool
	}{
		{start(0x01), true, false, false},
		{start(0x41), false, false, false},
		{start(0x67), false, true, false},
		{start(0x40), false, true, false},
		{start(0xb3), false, true, true},
		{start(0xb6), false, false, true},
		{token(FamilySlice, 2<<24|1), false, false, true},
		{token(FamilyUnit, 1<<24|0x67), false, false, false},
	} {
		if c.t.Disposable() != c.disposable || c.t.Access() != c.access || c.t.Restarting() != c.restarting {
			t.Errorf("%v: disposable %v, access %v, restarting %v", c.t, c.t.Disposable(), c.t.Access(), c.t.Restarting())
		}
	}
}
