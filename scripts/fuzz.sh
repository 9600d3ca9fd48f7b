#!/bin/sh
# Runs every fuzz target of the module for the given time each.
set -eu
time=${1:-20s}
go=${GO:-go}
found=0
for pkg in $($go list ./...); do
	for target in $($go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		found=$((found + 1))
		echo "== $pkg $target"
		$go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg"
	done
done
[ "$found" -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
echo "$found fuzz targets ran for $time each"
