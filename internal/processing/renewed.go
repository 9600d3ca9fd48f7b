package processing

import (
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// A device asks for a new key where its source breaks off (renew), and whoever has the
// device, or stands before it, can make as many breaks as he likes. While detectors look
// back on a break, they judge order and clocks less strictly. So breaks excuse only as
// often as announcements may: what comes beyond has a new key, and excuses nothing.
const (
	renewalBurst = 6
	renewalEvery = 10 * time.Minute
)

// renewals is how many breaks of a stream's source were taken at the device's word.
type renewals struct {
	budget  gkrp.Budget
	refused uint64
	told    time.Time // of a refusal
}

func newRenewals() renewals {
	return renewals{budget: gkrp.Budget{Burst: renewalBurst, Every: renewalEvery}}
}

// broke takes the news that the key is changed for a break in the source.
func (b *behaviour) broke(now time.Time) {
	r := &b.renewals
	if r.budget.Take(now) {
		b.excused = max(b.excused, excusedHops)
		b.margins()
		b.alerts.dirty = true // what is left of the budget is stored with them
		return
	}
	r.refused++
	if !r.told.IsZero() && now.Sub(r.told) < refusedEvery {
		return
	}
	r.told = now
	b.tell(now, gk.EventRenewalRefused, map[string]string{
		"cause":   fmt.Sprintf("the source broke off more than %d times in an hour: a break excuses nothing now", renewalBurst),
		"refused": fmt.Sprint(r.refused),
	})
}
