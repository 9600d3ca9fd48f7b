package processing

import (
	"context"
	"errors"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

func fleetPlace(version uint64) bus.SealPlace {
	return bus.SealPlace{Kind: bus.SealedFleet, Stream: bus.FleetPlace, Version: version}
}

// keptPrior reads what was found for the fleet; found is nil where nothing was, or
// where what is there is not believed, which refused says. revision is the store's.
func (s *Service) keptPrior(ctx context.Context) (found *tune.Params, revision uint64, refused string, err error) {
	e, err := s.records.Get(ctx, fleetKey)
	if errors.Is(err, store.ErrNotFound) {
		_, refused, err = s.removed(ctx, fleetPlace(0))
		return nil, 0, refused, err
	}
	if err != nil {
		return nil, 0, "", err
	}
	var v envelope
	if cbor.Unmarshal(e.Value, &v) != nil || len(v.Content) == 0 {
		return nil, e.Revision, "the fleet's settings are not sealed: a version before this one wrote them, or somebody else did; gaitkeeper tune --fleet --apply writes them anew", nil
	}
	rep, err := bus.KMSUnseal.Do(ctx, s.conn, bus.UnsealRequest{Place: fleetPlace(v.Version), Sealed: v.Content})
	if bus.CodeOf(err) == bus.CodeUnauthorized {
		return nil, e.Revision, err.Error(), nil
	}
	if err != nil {
		return nil, 0, "", err
	}
	var p tune.Params
	if err := unpack(rep.Content, &p); err != nil || !p.Valid() {
		return nil, e.Revision, "the fleet's settings do not read", nil
	}
	return &p, e.Revision, "", nil
}

// prior is what a new stream starts from: what was found for the fleet, no further than
// two steps from what is configured, or what is configured.
func (s *Service) prior(ctx context.Context) (tune.Params, error) {
	p := tune.DefaultParams()
	p.Sensitivity = s.cfg.Behaviour.Sensitivity
	found, revision, refused, err := s.keptPrior(ctx)
	if refused != "" && s.fleetRefused.Swap(revision+1) != revision+1 {
		s.log.Error("the stored settings of the fleet are not believed", "error", refused)
		s.tell(gk.Event{Kind: gk.EventTuningRefused, Detail: map[string]string{"why": refused}})
	}
	if found == nil || err != nil {
		return p, err
	}
	return tune.Bounded(tune.Bounded(p, *found), *found), nil
}

// keepPrior writes down what new streams start from.
func (s *Service) keepPrior(ctx context.Context, p tune.Params) error {
	_, revision, _, err := s.keptPrior(ctx)
	if err != nil {
		return err
	}
	b, err := pack(p)
	if err != nil {
		return err
	}
	version := uint64(1)
	for {
		rep, err := bus.KMSSeal.Do(ctx, s.conn, bus.SealRequest{Place: fleetPlace(version), Content: b})
		if err != nil {
			return err
		}
		if rep.Newest >= version {
			version = rep.Newest + 1
			continue
		}
		value, err := keepMode.Marshal(envelope{Term: s.protocol.Term, Version: version, Content: rep.Sealed})
		if err != nil {
			return err
		}
		if revision == 0 {
			_, err = s.records.Create(ctx, fleetKey, value)
		} else {
			_, err = s.records.Update(ctx, fleetKey, value, revision)
		}
		if err == nil { // from now on, no older ones open
			_, err = bus.KMSUnseal.Do(ctx, s.conn, bus.UnsealRequest{Place: fleetPlace(version), Sealed: rep.Sealed})
		}
		return err
	}
}
