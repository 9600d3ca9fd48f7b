#!/bin/sh
# Prints the benchmarks of the module. Each figure stands beside its yardstick
# from the same run, because machines differ and so do their minutes.
set -eu
time=${1:-1s}
go=${GO:-go}
$go test -run '^$' -bench . -benchtime "$time" -benchmem ./... | grep -Ev '^(ok|PASS|\?|goos|goarch)' || true
