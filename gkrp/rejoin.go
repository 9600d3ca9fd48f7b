package gkrp

import (
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// rejoining brings a restarted transport back to the epochs in use.
type rejoining struct {
	want  []gk.Epoch
	env   map[gk.Epoch][]byte
	retry backoff
}

func (s *Session) armJoining(id gk.TransportID, e gk.Epoch, env []byte) Effect {
	return Arm{id, e, env, gk.ReasonStart, true, max(s.First, s.Near)}
}

// unwant drops epochs that transports which lost their keys need no more.
func (s *Session) unwant(over func(gk.Epoch) bool) {
	for id, j := range s.rejoin {
		j.want = slices.DeleteFunc(j.want, over)
		if len(j.want) == 0 {
			delete(s.rejoin, id)
		}
	}
}

func (s *Session) transportLost(now time.Time, id gk.TransportID) []Effect {
	if !slices.Contains(s.Transports, id) {
		return nil
	}
	j := &rejoining{env: map[gk.Epoch][]byte{}}
	if !s.Candidate() {
		j.want = append(j.want, s.Record.Epoch)
	}
	if s.rot != nil {
		switch s.rot.stage {
		case StageGranting:
			j.want = append(j.want, s.rot.epoch)
		case StageArming, StageRecording: // what was sealed for it cannot be opened by its new key
			s.rot.stage = StageReleasing
		}
	}
	if len(j.want) == 0 {
		return nil
	}
	if s.rejoin == nil {
		s.rejoin = map[gk.TransportID]*rejoining{}
	}
	s.rejoin[id] = j
	return s.pushJoin(now, id, j)
}

func (s *Session) pushJoin(now time.Time, id gk.TransportID, j *rejoining) []Effect {
	j.retry.next(now, s.timing)
	var fx []Effect
	for _, e := range j.want {
		if env := j.env[e]; env != nil {
			fx = append(fx, s.armJoining(id, e, env))
		} else {
			fx = append(fx, Release{Epoch: e, Transports: []gk.TransportID{id}})
		}
	}
	return fx
}
