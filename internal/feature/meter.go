package feature

import "math"

// Meter measures one stream. It belongs to one goroutine, and neither reads a clock
// nor allocates after [NewMeter].
type Meter struct {
	form     Form
	started  bool
	steady   bool  // nothing but the highest number is known: see number
	clocked  bool  // the RTP timestamp has moved: there is one
	marker   bool  // the packet before ended its frame
	sameTime bool  // this packet has the timestamp of the one before
	inFrame  bool  // a frame was begun
	header   place // of the newest header's word

	last      int64 // arrival of the packet before
	lastSeq   int64 // highest sequence number, extended
	prevSeq   int64 // number of the packet before, extended; where steady it is lastSeq
	lastTS    uint32
	length    uint32  // of the packet before
	perByte   float64 // for that length
	mediaTime int64   // extended RTP timestamp of the last packet in order
	mediaHigh int64   // its maximum
	origin    int64   // delay of the first packet, µs
	nearDelay int64   // see delay

	// The stream so far, and how far it was when the window, the run of packets of one
	// length, the slot of the peak and the frame began. Packets that are late to their
	// frame are none of it.
	packets, bytes           uint64
	windowPackets            uint64
	lengthPackets            uint64
	slotBytes                uint64
	slotStart                int64
	framePackets, frameBytes uint64

	hashedFrame   bool // a payload of this frame was looked up
	repeatedFrame bool // and one was known
	fragment      fragmentState

	w      Sums // of the window in work
	tokens tokenTable

	// What not every stream has need of.
	seen *[seenRoom]seenPacket // numbers that were there; nil where none comes twice
	ts   *tsState              // of [TS]
	echo *echoFinder           // of [TS]
	loop *loopMemory           // where payload is visible
	runs *runFinder            // where it is hidden
}

// NewMeter makes the meter of a stream as it was recorded, whose payload has the given
// form.
func NewMeter(form Form) *Meter {
	m := NewLiveMeter(form)
	m.seen = new([seenRoom]seenPacket)
	return m
}

// NewLiveMeter makes the meter of a stream of which only packets come that were
// authenticated and accepted: no number comes twice, so that it remembers none. Of such
// packets its windows equal those of [NewMeter].
func NewLiveMeter(form Form) *Meter {
	m := &Meter{form: form, perByte: perByte(0), tokens: newTokenTable()}
	switch form {
	case Hidden:
		m.runs = new(runFinder)
	case TS:
		m.ts, m.echo = newTSState(), newEchoFinder()
		fallthrough
	default:
		m.loop = newLoopMemory()
	}
	m.clear()
	return m
}

// clear begins a window.
func (m *Meter) clear() {
	m.w = Sums{Delay: noDelay, Delay2: noDelay}
	m.windowPackets = m.packets
	m.nearDelay = math.MinInt64
	if m.clocked {
		m.nearDelay = math.MaxInt64
	}
}

// Observe measures one packet. Its stages: aliens out; numbering (loss, order, a
// number twice); size; arrival; frame; payload.
func (m *Meter) Observe(p *Packet) {
	header := token(FamilyHeader, uint32(p.Flags)<<8|uint32(p.PayloadType))
	if p.Alien {
		m.w.Aliens++
		m.tokens.add(header|1<<16, p.At)
		return
	}
	if w := m.tokens.of(&m.header, header); p.At-w.last >= occasionGap {
		m.tokens.occasion(w, p.At)
	}
	order := following
	if m.steady && p.Seq == uint16(m.lastSeq+1) {
		m.lastSeq++
	} else if order = m.number(p); order == repeated {
		return
	}
	consecutive := order == following
	m.size(p.At, uint32(p.Wire))
	if m.started {
		m.arrival(p.At)
	}
	if order != late {
		m.frame(p, consecutive)
	} else {
		m.framePackets++
		m.frameBytes += uint64(uint32(p.Wire))
	}
	if p.cut() {
		m.w.CutPackets++
	}
	switch {
	case len(p.Payload) == 0 || m.form == Hidden:
	case m.form == TS:
		m.observeTS(p, consecutive)
	default:
		m.payload(p, consecutive)
	}
	m.marker = p.Marker
	m.last = p.At
	m.started = true
}

func (m *Meter) payload(p *Packet, consecutive bool) {
	b := p.Payload
	switch m.form {
	case H264:
		m.observeH264(p, consecutive)
		if t := b[0] & 0x1f; (t == rtpFUA || t == nalSlice || t == nalIDR) && len(b) > 2 {
			m.sample(b[2:], p.At)
		}
	case H265:
		m.observeH265(p, consecutive)
		if t := b[0] >> 1 & 0x3f; (t == rtpFU65 || t < hevcVPS) && len(b) > 3 {
			m.sample(b[3:], p.At)
		}
	default:
		m.tokens.add(token(FamilyUnit, uint32(b[0])), p.At)
		if len(b) > 4 {
			m.sample(b[4:], p.At)
		}
	}
}

// sample looks for picture bytes b, behind all transport headers, that were there
// before, if they are among those that are remembered.
func (m *Meter) sample(b []byte, at int64) {
	if len(b) < visibleLeast {
		return
	}
	l := m.loop
	l.met++
	if picks(markOf(b), l.mask) {
		m.known(b, at)
	}
}

func (m *Meter) known(b []byte, at int64) {
	m.w.Hashed++
	if !m.hashedFrame {
		m.hashedFrame = true
		m.w.HashedFrames++
	}
	b = b[:min(len(b), visibleMost)]
	if m.loop.seen(hashVisible(0, b[:visibleLeast]), uint32(at/1e6)) && rich(b) {
		m.w.Repeats++
		if !m.repeatedFrame {
			m.repeatedFrame = true
			m.w.RepeatFrames++
		}
	}
}

// Roll ends the window at end, moves it into out and begins the next one there.
func (m *Meter) Roll(out *Window, end int64) {
	m.Close(out, end)
	m.Tidy(end)
}

// Close does what [Meter.Roll] does, but for what can wait: [Meter.Tidy] is to be called
// soon, with the same end.
func (m *Meter) Close(out *Window, end int64) {
	m.endLength()
	m.endSlot()
	if n := m.packets - m.windowPackets; n > 0 {
		m.w.Gaps = n
		if m.windowPackets == 0 {
			m.w.Gaps-- // the stream's first has no predecessor
		}
	}
	m.w.Start, m.w.End, m.w.Hops = end-Hop, end, 1
	out.Sums = m.w
	moved := m.tokens.roll(&out.Tokens)
	if m.loop != nil {
		m.loop.roll()
	}
	if m.ts != nil {
		m.ts.roll(moved)
	}
	m.clear()
}

// Tidy makes room for what a stream says next, once for each window that was closed. It
// alone allocates, where a stream became faster.
func (m *Meter) Tidy(end int64) {
	if m.echo != nil {
		m.echo.recent.sweep(uint32(end / 1e6))
	}
}
