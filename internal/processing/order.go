package processing

import (
	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Order asks for a new epoch of a stream, as an operator's request without
// waiting does. It is false where this instance runs no such stream.
func (s *Service) Order(id gk.StreamID, reason gk.Reason) bool {
	st := s.find(id)
	if st == nil {
		return false
	}
	st.post(func() {
		if l := st.machine.Live(); l != nil {
			st.step(gkrp.Rotate{Reason: reason, Known: l.Record.Epoch})
		}
	})
	return true
}
