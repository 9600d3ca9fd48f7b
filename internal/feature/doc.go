// Package feature turns packets into windows: the behaviour of one media
// stream, measured at packet time and summarised every 250 ms.
//
// A [Meter] takes every accepted packet (arrival time, RTP header, payload,
// length on the wire) and needs no allocation, lock or clock of its own. [Meter.Roll]
// hands out a [Window], a summary that can be added to others: merging is
// associative and exact, so that 1 s and 10 s windows are sums of hops.
// [Vector] names the numbers that a window yields; [Token] is one word of the
// source's grammar.
//
// What did not authenticate is counted in [OutsiderCounters], another type, so
// that it can enter no window and no profile.
package feature
