package device

import (
	"errors"
	"fmt"
	"slices"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// maxOutstanding bounds the prekeys of which the private halves are kept: more
// than a service holds, because the messages that bring them may be lost. The
// oldest go first.
const maxOutstanding = 16 * gkrp.MaxPrekeys

// A media key's way through this file, and where it is wiped:
//
//	offer    a one-time prekey is made, signed and sent to the service
//	open     an envelope comes: the KMS's signature is verified, the key opened
//	         with the prekey, and the prekey wiped
//	confirm  the proof of possession is computed
//	seal     the sealer takes session keys from the media key, which is wiped
//	switch   packetPath.install moves to the sealer and wipes the one before

// keys are the prekeys of one session, and what a granted key must match.
type keys struct {
	device  gk.DeviceID
	stream  gk.StreamID
	session gk.SessionID
	suite   gkrp.Suite
	floor   gk.Epoch // every granted epoch must be above
	kms     gkrp.Verifier
	kem     keyring.KEM
	signer  gkrp.Signer
	kid     []byte
	ssrc    uint32 // the session's; set when it is accepted
	prekeys []prekey
	onKey   func(gk.StreamID, uint32, gk.Epoch, keyring.MediaKey) // see Config.OnKey
}

// prekey is a private half with the signed statement of its public one.
type prekey struct {
	key    keyring.Receiver
	signed []byte
}

// receiver is how envelopes and confirmations name this device.
func receiver(d gk.DeviceID) string { return "device/" + string(d) }

// offer makes n prekeys and gives their signed statements. They are always new
// ones: one that was offered before may be in use for a grant on its way.
func (k *keys) offer(n int) ([][]byte, error) {
	var out [][]byte
	for range n {
		if err := k.add(); err != nil {
			return nil, err
		}
		out = append(out, k.prekeys[len(k.prekeys)-1].signed)
	}
	return out, nil
}

func (k *keys) add() error {
	r, err := k.kem.Generate(uint16(k.suite))
	if err != nil {
		return err
	}
	signed, err := gkrp.SignPrekey(k.signer, k.kid, &gkrp.Prekey{
		Device: k.device, Stream: k.stream, Session: k.session, Suite: k.suite, Public: r.Public(),
	})
	if err != nil {
		return fmt.Errorf("cannot sign a prekey: %w", err)
	}
	k.prekeys = append(k.prekeys, prekey{r, signed})
	if over := len(k.prekeys) - maxOutstanding; over > 0 {
		for i := range over {
			k.prekeys[i].key.Wipe()
		}
		k.prekeys = slices.Delete(k.prekeys, 0, over)
	}
	return nil
}

// open takes the key of epoch out of its envelope: signed by the KMS, for this
// device, session, epoch and SSRC, and sealed to one of our prekeys, which is
// gone afterwards. The caller wipes the key.
func (k *keys) open(epoch gk.Epoch, wire []byte) (keyring.MediaKey, error) {
	e, err := gkrp.OpenKeyEnvelope(k.kms, wire)
	if err != nil {
		return keyring.MediaKey{}, fmt.Errorf("key envelope is not from the key management service that this device enrolled with: %w", err)
	}
	if e.Receiver != receiver(k.device) || e.Stream != k.stream || e.Session != k.session || e.Epoch != epoch || e.SSRC != k.ssrc {
		return keyring.MediaKey{}, fmt.Errorf("key envelope is for %s, stream %s, session %s, epoch %d, ssrc %08x and not for this grant", e.Receiver, e.Stream, e.Session, e.Epoch, e.SSRC)
	}
	if e.Epoch <= k.floor {
		return keyring.MediaKey{}, fmt.Errorf("key envelope has epoch %d, but this device has used epoch %d already", e.Epoch, k.floor)
	}
	i := slices.IndexFunc(k.prekeys, func(p prekey) bool { id := p.key.ID(); return string(id[:]) == string(e.KeyID) })
	if i < 0 || k.prekeys[i].key.Suite() != uint16(e.Suite) {
		return keyring.MediaKey{}, errors.New("key envelope is sealed to a prekey that this device does not have, or used before")
	}
	m, err := k.prekeys[i].key.OpenMediaKey(e.Info(), e.Sealed)
	if err != nil {
		return keyring.MediaKey{}, err
	}
	k.prekeys[i].key.Wipe()
	k.prekeys = slices.Delete(k.prekeys, i, i+1)
	return m, nil
}

// granted turns an envelope into a sealer and the proof that we hold its key.
func (k *keys) granted(epoch gk.Epoch, wire []byte) (*media.Sealer, [32]byte, error) {
	m, err := k.open(epoch, wire)
	if err != nil {
		return nil, [32]byte{}, err
	}
	defer m.Wipe()
	confirm := m.Confirm(k.stream, k.session, epoch, receiver(k.device))
	if k.onKey != nil {
		k.onKey(k.stream, k.ssrc, epoch, m)
	}
	s, err := media.NewSealer(m, k.ssrc, epoch)
	return s, confirm, err
}

// wipe drops every prekey, at the session's end.
func (k *keys) wipe() {
	for _, p := range k.prekeys {
		p.key.Wipe()
	}
	k.prekeys = nil
}
