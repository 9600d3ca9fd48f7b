package feature

import "strings"

// Named is how a payload is read whose encoding has the given name in SDP, in any
// case: MP2T (RFC 2250), H264 (RFC 6184), H265 (RFC 7798). Others are [Opaque].
func Named(encoding string) Form {
	switch strings.ToUpper(encoding) {
	case "MP2T":
		return TS
	case "H264":
		return H264
	case "H265", "HEVC":
		return H265
	}
	return Opaque
}
