#!/bin/sh
# Makes internal/synth/captures anew: small labelled captures of the project's own
# clip, encoded, sent and attacked in several ways. The same ffmpeg gives the same
# bytes. Those committed are of ffmpeg 5.1 (Debian: ffmpeg).
set -eu
cd "$(dirname "$0")/.."
out=internal/synth/captures
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
find "$out" -name '*.json' -delete -o -name '*.pcap.gz' -delete
synth="${GO:-go} run ./cmd/gaitkeeper synth --out $out --cache $cache --split dev --input internal/clip/demo.ts --whole 0"
# Without an attack: two encodings over three networks each, with what networks do.
$synth --seed 3 --benign --hours 0.155 --length 130s --baseline 40s --rate 90 --paths 3
# Attacks that a receiver alone can tell from its network.
$synth --seed 5 --attacks --per-kind 1 --baseline 40s --rate 90 --paths 2 \
	--kinds encoder_swap,inject_1%,inject_5%,inject_30%,loop_replay,frozen_feed,exfil_append,exfil_extra
du -sh "$out"
