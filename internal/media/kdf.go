package media

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// Sizes of AEAD_AES_256_GCM (RFC 7714 §12.1).
const (
	masterKeySize  = 32
	masterSaltSize = 12
	sessionSalt    = 12
)

// Labels of the key derivation function (RFC 3711 §4.3.2).
const (
	labelEncryption = 0x00
	labelSalt       = 0x02
)

// sessionKeys derives what one SRTP direction uses from its master key and salt.
// The key derivation rate is zero: one session key for the life of the master key.
func sessionKeys(masterKey, masterSalt []byte) (cipher.AEAD, [sessionSalt]byte, error) {
	var salt [sessionSalt]byte
	if len(masterKey) != masterKeySize || len(masterSalt) != masterSaltSize {
		return nil, salt, fmt.Errorf("media key has %d+%d bytes: want %d of key and %d of salt",
			len(masterKey), len(masterSalt), masterKeySize, masterSaltSize)
	}
	var key [masterKeySize]byte
	defer clear(key[:])
	if err := prf(key[:], masterKey, masterSalt, labelEncryption); err != nil {
		return nil, salt, err
	}
	if err := prf(salt[:], masterKey, masterSalt, labelSalt); err != nil {
		return nil, salt, err
	}
	aead, err := newGCM(key[:])
	return aead, salt, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// prf fills out from AES in counter mode (RFC 3711 §4.3.3; with a 256-bit key,
// AES_256_CM_PRF of RFC 6188 §3). A 96-bit salt counts as the upper bits of the
// 112-bit one (RFC 7714 §11, erratum 4938).
func prf(out, masterKey, masterSalt []byte, label byte) error {
	block, err := aes.NewCipher(masterKey)
	if err != nil {
		return err
	}
	var in, stream [aes.BlockSize]byte
	copy(in[:14], masterSalt)
	in[7] ^= label
	for i := uint16(0); len(out) > 0; i++ {
		binary.BigEndian.PutUint16(in[14:], i)
		block.Encrypt(stream[:], in[:])
		out = out[copy(out, stream[:]):]
	}
	clear(stream[:])
	return nil
}
