#!/bin/sh
# Makes demo.ts, the clip that `gaitkeeper demo` streams: ten scenes of 16 s from
# ffmpeg's synthetic sources, so nothing in it is anybody else's work, under a
# running clock that makes every second unlike every other.
#
# Needs ffmpeg with libx264 (5.1 made the committed file) and the DejaVu fonts
# (Debian: ffmpeg, fonts-dejavu-core). One ffmpeg version gives the same bytes
# each time: fixed seeds, one thread, no dates or version strings in the output.
set -eu

out=${1:-$(dirname "$0")/demo.ts}
font=/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf
size=640x360
fps=25
scene=16 # seconds each

# What every scene passes through, so that concat accepts them side by side.
same="scale=640:360:flags=neighbor,setsar=1,fps=$fps,format=yuv420p,trim=duration=$scene,setpts=PTS-STARTPTS"
smooth="scale=640:360:flags=bicubic,setsar=1,fps=$fps,format=yuv420p,trim=duration=$scene,setpts=PTS-STARTPTS"

graph="
testsrc2=s=$size:r=$fps,$same[v0];
mandelbrot=s=320x180:r=$fps:start_scale=2.2:end_scale=0.02:end_pts=420:maxiter=700,$smooth[v1];
gradients=s=$size:r=$fps:c0=0x102a5c:c1=0xf2994a:c2=0x2d9cdb:c3=0xeb5757:n=4:seed=7:speed=0.04,$smooth[v2];
smptehdbars=s=$size:r=$fps,scroll=h=0.003,$same[v3];
life=s=80x45:r=5:seed=11:ratio=0.28:mold=6:life_color=0x9be564:death_color=0x1b3a2f:mold_color=0x3f6b4f,$same[v4];
color=c=0x0b1020:s=160x90:r=$fps,geq=lum='128+60*sin(X/11+T*1.7)+50*sin(Y/9-T*1.1)':cb='128+70*sin(X/23-T*0.9)':cr='128+70*sin((X+Y)/29+T*1.3)',$smooth[v5];
cellauto=s=160x90:r=12:rule=110:seed=5:ratio=0.4:scroll=1,negate,$same[v6];
color=c=0x14213d:s=$size:r=$fps[bg7];color=c=0xfca311:s=90x90:r=$fps[box7];color=c=0xe5e5e5:s=48x48:r=$fps[dot7];
[bg7][box7]overlay=x='275+250*sin(t*1.3)':y='135+120*sin(t*1.9)'[ov7];
[ov7][dot7]overlay=x='296+280*sin(t*2.1+1)':y='156+140*cos(t*1.1)',$same[v7];
sierpinski=s=320x180:r=$fps:type=triangle:seed=3:jump=90,hue=h='t*20',$same[v8];
testsrc=s=$size:r=$fps:decimals=2,hue=h='t*15',$same[v9];
[v0][v1][v2][v3][v4][v5][v6][v7][v8][v9]concat=n=10:v=1:a=0,
drawbox=x=0:y=312:w=640:h=48:color=black@0.65:t=fill,
drawtext=fontfile=$font:fontsize=30:fontcolor=white:x=16:y=321:text='%{pts\\:hms}',
drawtext=fontfile=$font:fontsize=18:fontcolor=0xfca311:x=w-tw-16:y=327:text='gaitkeeper  frame %{n}'[video];
aevalsrc=c=mono:s=48000:d=$((scene * 10)):exprs='0.16*sin(2*PI*(220+55*mod(floor(t/2),5)+13*floor(t/16))*t)*(0.55+0.45*cos(2*PI*t))+0.05*sin(2*PI*110*t)'[audio]
"

ffmpeg -hide_banner -loglevel error -nostdin -y \
	-filter_threads 1 -filter_complex_threads 1 -filter_complex "$graph" \
	-map '[video]' -map '[audio]' -map_metadata -1 \
	-c:v libx264 -threads 1 -preset slow -profile:v main -g 50 -keyint_min 25 -bf 2 \
	-b:v 250k -maxrate 400k -bufsize 800k \
	-c:a aac -b:a 48k \
	-fflags +bitexact -flags:v +bitexact -flags:a +bitexact \
	-f mpegts -mpegts_flags +resend_headers -pat_period 0.5 -pcr_period 40 "$out"

ls -l "$out"
