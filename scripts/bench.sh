#!/bin/sh
# Prints the benchmarks of the module, one package after another. Each figure
# stands beside its yardstick from the same run, because machines differ and so
# do their minutes.
set -eu
time=${1:-1s}
go=${GO:-go}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
status=0
$go test -p 1 -run '^$' -bench . -benchtime "$time" ./... >"$out" 2>&1 || status=$?
if [ "$status" != 0 ]; then
	cat "$out"
	exit "$status"
fi
grep -E '^(pkg:|Benchmark)' "$out"
