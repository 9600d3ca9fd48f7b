package attack

import "github.com/gaitkeeper/gaitkeeper/internal/media"

// Film is what the thief shows in place of the source's pictures: it is called
// once for each of his packets with the source's payloads that he recorded,
// oldest first, and gives the payload to send; nil for one that he makes up.
type Film func(recorded [][]byte) []byte

// Loop shows again what the source showed before he began.
func Loop() Film {
	var reel [][]byte
	n := 0
	return func(recorded [][]byte) []byte {
		if reel == nil {
			reel = append(reel, recorded...)
		}
		if len(reel) == 0 {
			return nil
		}
		n++
		return reel[(n-1)%len(reel)]
	}
}

// stillPackets is about a picture of a few Mb/s.
const stillPackets = 12

// Still shows the last picture again and again.
func Still() Film {
	loop := Loop()
	return func(recorded [][]byte) []byte { return loop(recorded[max(0, len(recorded)-stillPackets):]) }
}

// Other shows another transport stream, from its beginning.
func Other(ts []byte) Film {
	const size = media.TSPerRTP * media.TSPacketSize
	n := 0
	return func([][]byte) []byte {
		if len(ts) < size {
			return nil
		}
		if n+size > len(ts) {
			n = 0
		}
		n += size
		return ts[n-size : n]
	}
}
