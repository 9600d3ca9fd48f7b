// Package synth makes labelled captures of live video: the output of real
// encoders over many contents, put into RTP as senders do it, sent over models of
// networks on virtual time, with harmless events and attacks at known times.
//
// A [Recipe] says what ffmpeg encodes; its output is kept in a cache and is sent
// many times. A source turns frames into packets with the timing of an encoder
// (RFC 6184, RFC 7798, RFC 7741, RFC 6416, or MPEG-TS by RFC 2250). A path
// decides when each packet arrives, if it does. Attacks change packets before the
// path or after it. [Run] draws all of that from a seed and writes NAME.pcap.gz
// and NAME.json, which `gaitkeeper eval` reads. The same seed gives the same
// bytes, given the same ffmpeg.
package synth
