package processing

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// alertsRecord is the content under [alertsToken], sealed. Who can read the store must
// not learn from it what was noticed and what not, and who can write it must not bring
// alerts that spend the budget of rotations, nor take those away that did.
type alertsRecord struct {
	Number uint64      `cbor:"1,keyasint"`
	Alerts []bus.Alert `cbor:"2,keyasint"`
	// Counted is [alertBook.counted].
	Counted map[string]time.Time `cbor:"3,keyasint,omitempty"`
	Pending pending              `cbor:"4,keyasint,omitzero"`
	// Reels says of which alerts there are windows.
	Reels []reelEntry `cbor:"5,keyasint,omitempty"`
}

func (st *stream) alertsPlace(version uint64) bus.SealPlace {
	return bus.SealPlace{Kind: bus.SealedAlerts, Stream: st.id, Version: version}
}

// keptAlerts reads the alerts. refused says why those that are there are not believed:
// then the numbers go on behind all that were ever given, and nothing else is left.
func (st *stream) keptAlerts() (a alertsRecord, refused string, err error) {
	ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, callTimeout)
	defer cancel()
	e, err := st.alertsFile.read(ctx)
	if err != nil {
		return a, "", err
	}
	if len(e.Content) == 0 {
		newest, refused, err := st.svc.removed(ctx, st.alertsPlace(0))
		return alertsRecord{Number: newest}, refused, err
	}
	rep, err := bus.KMSUnseal.Do(ctx, st.svc.conn, bus.UnsealRequest{Place: st.alertsPlace(e.Version), Sealed: e.Content})
	if err == nil {
		st.alertsVersion = e.Version
		if err = unpack(rep.Content, &a); err == nil {
			return a, "", nil
		}
	} else if bus.CodeOf(err) != bus.CodeUnauthorized {
		return a, "", err
	}
	refused = err.Error()
	if cbor.Unmarshal(e.Content, &alertsRecord{}) == nil {
		refused = "the alerts are not sealed: a version before this one wrote them, or somebody else did"
	}
	// The versions that were opened count from the highest number of an alert up.
	have, err := bus.KMSSeal.Do(ctx, st.svc.conn, bus.SealRequest{Place: st.alertsPlace(0)})
	return alertsRecord{Number: have.Newest}, refused, err
}

// saveAlerts has the alerts sealed and written, and opened again when they are there,
// as a profile is: from then on, no older ones do.
func (st *stream) saveAlerts() {
	r := alertsRecord{
		Number: st.behaviour.alerts.number, Alerts: cloneAlerts(st.behaviour.alerts.all), Counted: maps.Clone(st.behaviour.alerts.counted),
		Pending: st.behaviour.pending(st.svc.now()), Reels: slices.Clone(st.behaviour.tuned.films.book.all),
	}
	st.alertsFile.write(func(ctx context.Context) (envelope, error) {
		b, err := pack(r)
		if err != nil {
			return envelope{}, err
		}
		for len(b) > bus.MaxSealed && len(r.Alerts) > 1 { // far more than there ever is
			r.Alerts = r.Alerts[1:]
			if b, err = pack(r); err != nil {
				return envelope{}, err
			}
		}
		version := max(st.alertsVersion+1, r.Number)
		for {
			rep, err := bus.KMSSeal.Do(ctx, st.svc.conn, bus.SealRequest{Place: st.alertsPlace(version), Content: b})
			if err != nil {
				return envelope{}, err
			}
			if rep.Newest < version {
				st.alertsVersion = version
				return envelope{Version: version, Content: rep.Sealed}, nil
			}
			version = rep.Newest + 1
		}
	}, func(ctx context.Context, e envelope) error {
		_, err := bus.KMSUnseal.Do(ctx, st.svc.conn, bus.UnsealRequest{Place: st.alertsPlace(e.Version), Sealed: e.Content})
		return err
	})
}

// cloneAlerts copies what the stream's goroutine goes on changing.
func cloneAlerts(all []bus.Alert) []bus.Alert {
	out := make([]bus.Alert, len(all))
	copy(out, all)
	for i := range out {
		out[i].Evidence = append([]string(nil), out[i].Evidence...)
	}
	return out
}
