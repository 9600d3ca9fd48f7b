package keyring

// KEM makes receivers' keys and seals media keys to them. [HPKE] is the real one.
// A simulation of many services brings a cheap one of its own.
type KEM interface {
	Generate(suite uint16) (Receiver, error)
	// CheckPublic reports whether public is a valid key of suite.
	CheckPublic(suite uint16, public []byte) error
	// SealMediaKey seals k to a public key, bound to info.
	SealMediaKey(suite uint16, public, info []byte, k MediaKey) ([]byte, error)
}

// Receiver is a private key to which media keys are sealed.
type Receiver interface {
	Suite() uint16
	Public() []byte
	ID() [16]byte // [PublicID] of Public
	OpenMediaKey(info, sealed []byte) (MediaKey, error)
	Wipe()
}

// HPKE is RFC 9180 by crypto/hpke.
type HPKE struct{}

// Generate is [GenerateReceiverKey].
func (HPKE) Generate(suite uint16) (Receiver, error) { return GenerateReceiverKey(suite) }

// CheckPublic is [CheckPublic].
func (HPKE) CheckPublic(suite uint16, public []byte) error { return CheckPublic(suite, public) }

// SealMediaKey is [SealMediaKey].
func (HPKE) SealMediaKey(suite uint16, public, info []byte, k MediaKey) ([]byte, error) {
	return SealMediaKey(suite, public, info, k)
}
