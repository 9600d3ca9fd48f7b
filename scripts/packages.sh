#!/bin/sh
# Installs the Debian packages that the tests drive as real peers, only where
# a program is missing. Elsewhere than on Debian it says what to install.
set -eu

missing=
need() { # need PROGRAM PACKAGE...
	program=$1
	shift
	command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}
need ffmpeg ffmpeg
need ffprobe ffmpeg
need gcc gcc libc6-dev
need mosquitto mosquitto
need gst-launch-1.0 gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
# The example device runs on Debian's own Python, whatever comes first in PATH.
if ! /usr/bin/python3 -c 'import cbor2, cryptography, paho.mqtt' >/dev/null 2>&1; then
	missing="$missing python3 python3-cbor2 python3-cryptography python3-paho-mqtt"
fi
if command -v gst-inspect-1.0 >/dev/null 2>&1; then
	gst-inspect-1.0 srtpdec >/dev/null 2>&1 || missing="$missing gstreamer1.0-plugins-bad"
	gst-inspect-1.0 rtpmp2tdepay >/dev/null 2>&1 || missing="$missing gstreamer1.0-plugins-good"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "install these first (Debian names):$missing" >&2
	exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing:$missing"
$sudo apt-get update -q
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends $missing
