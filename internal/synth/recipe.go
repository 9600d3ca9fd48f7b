package synth

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Recipe is one encoding: what ffmpeg is asked for.
type Recipe struct {
	Content Content
	Codec   string   // h264, hevc, mpeg2video, mpeg4, vp8, vp9
	Encoder []string // arguments
	Sound   []string // arguments of the sound's encoder; none: no sound
	Mux     []string // arguments of the MPEG-TS multiplexer; none: native RTP only
	CBR     bool     // the multiplexer fills up to a constant rate
	Frame   frame
	Seconds float64
}

// hasTS and native tell how a codec can travel.
func (r *Recipe) hasTS() bool  { return r.Codec != "vp8" && r.Codec != "vp9" }
func (r *Recipe) native() bool { return r.Codec != "mpeg2video" }

// settings are a family's choices.
type settings struct {
	codec string
	draw  func(d dice, split Split, f frame, kbps int) []string
}

var x264 = settings{"h264", func(d dice, split Split, f frame, kbps int) []string {
	gop := pick(d, choose(split, []int{25, 50, 100, 250}, []int{30, 48, 60, 75, 125, 300})...)
	a := []string{
		"-c:v", "libx264", "-threads", "1",
		"-preset", pick(d, choose(split, []string{"ultrafast", "veryfast", "faster"}, []string{"superfast", "superfast", "superfast", "veryfast", "veryfast", "fast"})...),
		"-g", fmt.Sprint(gop),
	}
	params := ""
	add := func(format string, v ...any) { params += ":" + fmt.Sprintf(format, v...) }
	if d.chance(0.35) {
		a = append(a, "-tune", "zerolatency")
	} else {
		a = append(a, "-bf", fmt.Sprint(d.IntN(4)))
		if split != Dev && d.chance(0.3) {
			add("open-gop=1")
		}
	}
	if d.chance(0.2) {
		add("slices=%d", d.whole(2, 4))
	}
	if d.chance(0.12) {
		add("intra-refresh=1")
	}
	if d.chance(0.5) {
		add("scenecut=0")
	}
	if split != Dev && d.chance(0.2) {
		add("aud=1")
	}
	if split != Dev && d.chance(0.15) {
		a = append(a, "-profile:v", "baseline", "-bf", "0")
	}
	return append(rateControl(d, a, kbps, true, add), "-x264-params", "threads=1"+params)
}}

// rateControl draws how the rate is kept.
func rateControl(d dice, a []string, kbps int, hrd bool, add func(string, ...any)) []string {
	k := func(x float64) string { return fmt.Sprintf("%dk", int(x*float64(kbps))) }
	switch d.IntN(4) {
	case 0: // constant quality
		return append(a, "-crf", fmt.Sprint(d.whole(20, 32)))
	case 1: // average
		return append(a, "-b:v", k(1))
	case 2: // capped
		return append(a, "-b:v", k(1), "-maxrate", k(d.between(1.1, 2)), "-bufsize", k(d.between(0.8, 3)))
	default: // constant
		if hrd && d.chance(0.5) {
			add("nal-hrd=cbr")
		}
		return append(a, "-b:v", k(1), "-minrate", k(1), "-maxrate", k(1), "-bufsize", k(d.between(0.5, 1.5)))
	}
}

var x265 = settings{"hevc", func(d dice, split Split, f frame, kbps int) []string {
	params := fmt.Sprintf("log-level=error:pools=none:frame-threads=1:keyint=%d", pick(d, choose(split, []int{25, 50, 100}, []int{30, 60, 75, 200})...))
	if split == Dev {
		params += fmt.Sprintf(":bframes=%d", pick(d, 0, 3))
	} else {
		params += fmt.Sprintf(":bframes=%d:open-gop=%d", pick(d, 0, 2, 4), d.IntN(2))
	}
	if d.chance(0.3) {
		params += ":repeat-headers=1"
	}
	a := []string{"-c:v", "libx265", "-preset", pick(d, choose(split, []string{"ultrafast"}, []string{"ultrafast", "superfast"})...)}
	if d.chance(0.3) {
		a = append(a, "-tune", "zerolatency")
		params = regexp.MustCompile(":bframes=[0-9]").ReplaceAllString(params, "") // has none
	}
	if d.chance(0.4) {
		a = append(a, "-crf", fmt.Sprint(d.whole(24, 34)))
	} else {
		a = append(a, "-b:v", fmt.Sprintf("%dk", kbps))
	}
	return append(a, "-x265-params", params)
}}

var mpeg2 = settings{"mpeg2video", func(d dice, split Split, f frame, kbps int) []string {
	a := []string{
		"-c:v", "mpeg2video", "-threads", "1", "-g", fmt.Sprint(pick(d, choose(split, []int{12, 15, 25}, []int{10, 18, 30, 50})...)),
		"-bf", fmt.Sprint(d.IntN(3)),
	}
	switch d.IntN(3) {
	case 0:
		return append(a, "-q:v", fmt.Sprint(d.whole(4, 14)))
	case 1:
		return append(a, "-b:v", fmt.Sprintf("%dk", kbps*3/2))
	}
	return append(a, "-b:v", fmt.Sprintf("%dk", kbps*3/2), "-minrate", fmt.Sprintf("%dk", kbps*3/2), "-maxrate", fmt.Sprintf("%dk", kbps*3/2), "-bufsize", fmt.Sprintf("%dk", kbps))
}}

var mpeg4 = settings{"mpeg4", func(d dice, split Split, f frame, kbps int) []string {
	a := []string{"-c:v", pick(d, choose(split, []string{"mpeg4"}, []string{"libxvid"})...), "-threads", "1",
		"-g", fmt.Sprint(pick(d, choose(split, []int{12, 40, 100}, []int{24, 60, 250})...)), "-bf", fmt.Sprint(d.IntN(2))}
	if d.chance(0.4) {
		return append(a, "-q:v", fmt.Sprint(d.whole(3, 10)))
	}
	return append(a, "-b:v", fmt.Sprintf("%dk", kbps))
}}

func vpx(codec, encoder string) settings {
	return settings{codec, func(d dice, _ Split, f frame, kbps int) []string {
		a := []string{"-c:v", encoder, "-threads", "1", "-deadline", "realtime", "-cpu-used", "8", "-g", fmt.Sprint(pick(d, 60, 128, 250)),
			"-error-resilient", fmt.Sprint(d.IntN(2)), "-lag-in-frames", "0", "-auto-alt-ref", "0", "-b:v", fmt.Sprintf("%dk", kbps)}
		if d.chance(0.5) {
			a = append(a, "-minrate", fmt.Sprintf("%dk", kbps), "-maxrate", fmt.Sprintf("%dk", kbps))
		}
		return a
	}}
}

// A family's weight is how often it is repeated here.
var (
	devFamilies     = []settings{x264, x264, x264, x264, x264, x265, mpeg2, mpeg2, mpeg4, vpx("vp8", "libvpx")}
	heldOutFamilies = []settings{x264, x264, x264, x264, x264, x264, x265, x265, mpeg2, mpeg2, mpeg4, vpx("vp8", "libvpx"), vpx("vp9", "libvpx-vp9")}
)

// drawFrame draws a picture's format. Pictures are small: an hour must be encoded
// in minutes, and what is measured is the traffic.
func drawFrame(d dice, split Split) frame {
	type wh struct{ w, h int }
	type fps struct{ num, den int }
	s := pick(d, choose(split,
		[]wh{{160, 120}, {192, 108}, {192, 108}, {320, 180}},
		[]wh{{128, 96}, {144, 112}, {160, 90}, {160, 90}, {176, 144}, {208, 120}, {256, 144}})...)
	r := pick(d, choose(split,
		[]fps{{15, 1}, {25, 1}, {25, 1}, {30, 1}, {30, 1}, {60, 1}},
		[]fps{{12, 1}, {12, 1}, {20, 1}, {20, 1}, {24, 1}, {24, 1}, {25, 1}, {25, 1}, {30000, 1001}, {30000, 1001}, {50, 1}})...)
	return frame{s.w &^ 1, s.h &^ 1, r.num, r.den}
}

// drawRecipe draws an encoding of the given length. fixed, if it is not 0, is its rate
// in kbit/s; want fixes how it must be able
// to travel: "ts", "native" or anything.
func drawRecipe(d dice, split Split, seconds float64, fixed int, inputs []string, want string) Recipe {
	r := Recipe{Frame: drawFrame(d, split), Seconds: seconds}
	families := choose(split, devFamilies, heldOutFamilies)
	f := pick(d, families...)
	for r.Codec = f.codec; want == "ts" && !r.hasTS() || want == "native" && !r.native(); r.Codec = f.codec {
		f = pick(d, families...)
	}
	kbps := int(d.logBetween(200, 900))
	if fixed > 0 {
		kbps = fixed
	}
	r.Encoder = f.draw(d, split, r.Frame, kbps)
	r.Content = drawContent(d, split, r.Frame, seconds, inputs, 0)
	if !r.hasTS() {
		return r
	}
	if r.Frame.num == 12 && r.Codec == "mpeg2video" { // no rate of that codec
		r.Frame.num = 24
		r.Content = drawContent(d, split, r.Frame, seconds, inputs, 0)
	}
	switch d.IntN(3) {
	case 0:
		r.Sound = []string{soundFor(d, seconds, 1024), "-c:a", "aac", "-b:a", pick(d, "32k", "48k", "64k")}
	case 1:
		r.Sound = []string{soundFor(d, seconds, 1152), "-c:a", "mp2", "-b:a", pick(d, "32k", "64k", "96k")}
	}
	r.Mux = []string{"pat_period=" + pick(d, "0.1", "0.2", "0.5"), fmt.Sprintf("mpegts_start_pid=%d", pick(d, choose(split, []int{256, 32, 512}, []int{256, 68, 4000})...))}
	if d.chance(0.5) {
		r.Mux = append(r.Mux, "mpegts_flags=+resend_headers")
	}
	if peak := r.peak(); peak > 0 && d.chance(0.7) || peak == 0 && d.chance(0.15) {
		r.CBR = true
		if peak == 0 { // nobody bounds the pictures: there must be room for the largest
			peak = 3 * kbps
		}
		r.Mux = append(r.Mux, fmt.Sprintf("muxrate=%d", int(d.between(1.25, 1.6)*float64(peak)*1000)+200_000))
	} else {
		r.Mux = append(r.Mux, "pcr_period="+pick(d, "20", "40", "80"))
	}
	return r
}

// peak is the greatest rate that the encoder is held to, in kbit/s; 0 without one.
func (r *Recipe) peak() int {
	for i, a := range r.Encoder {
		if a == "-maxrate" {
			n, _ := strconv.Atoi(strings.TrimSuffix(r.Encoder[i+1], "k"))
			return n
		}
	}
	return 0
}

// lower is the same film from the same encoder at another rate or quality: the next
// step of a ladder.
func (r *Recipe) lower(by float64) Recipe {
	s := *r
	s.Encoder = slices.Clone(r.Encoder)
	for i := 1; i < len(s.Encoder); i++ {
		a := &s.Encoder[i]
		switch s.Encoder[i-1] {
		case "-b:v", "-maxrate", "-minrate", "-bufsize":
			n, _ := strconv.Atoi(strings.TrimSuffix(*a, "k"))
			*a = fmt.Sprintf("%dk", int(by*float64(n)))
		case "-crf", "-q:v":
			n, _ := strconv.Atoi(*a)
			*a = strconv.Itoa(n + 4)
		}
	}
	return s
}

// soundFor is a chain of sounds that change all the time, in whole frames of so many
// samples: MP2's encoder takes no others.
func soundFor(d dice, seconds float64, samples int) string {
	return fmt.Sprintf("aevalsrc=c=mono:s=24000:n=%d:d=%.6f:exprs='0.2*sin(%d*t+9*sin(%.2f*t))+0.1*sin(%d*t*t)'[a]",
		samples, float64((int(seconds*24_000)/samples-4)*samples)/24_000, d.whole(300, 3000), d.between(0.2, 3), d.whole(1, 9))
}

// stillAfter is how long a film goes on before its picture stands, in seconds.
const stillAfter = 2.0

// sibling is the same encoder with the same settings on another film.
func (r *Recipe) sibling(d dice, split Split, seconds float64, inputs []string, stillAt float64) Recipe {
	s := *r
	s.Seconds = seconds
	if len(s.Sound) > 0 {
		samples := 1024
		if s.Sound[2] == "mp2" {
			samples = 1152
		}
		s.Sound = append([]string{soundFor(d, seconds, samples)}, s.Sound[1:]...)
	}
	s.Content = drawContent(d, split, r.Frame, seconds, inputs, stillAt)
	return s
}
