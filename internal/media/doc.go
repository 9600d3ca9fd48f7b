// Package media carries RTP between device and transport: SRTP with one key per
// epoch, batched UDP, an impairment relay, and the few MPEG-TS facts that both
// ends need.
//
// A packet on the wire is
//
//	RTP header (12 bytes, CSRCs, extension) ‖ ciphertext ‖ tag (16 bytes) ‖ MKI (4 bytes)
//
// which is SRTP (RFC 3711) with AEAD_AES_256_GCM (RFC 7714). The MKI is the key
// epoch, so every packet names its key.
package media
