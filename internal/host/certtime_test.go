package host

import (
	"testing"
	"testing/synctest"
	"time"
)

// An encoder wakes up long before its software was built; a clock that goes is taken.
func TestCertTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins in the year 2000
		if at := CertTime(); at.Before(Earliest) {
			t.Errorf("certificates are judged by %v", at)
		}
		time.Sleep(time.Until(Earliest.AddDate(40, 0, 0)))
		if at := CertTime(); !at.Equal(time.Now()) {
			t.Errorf("%v, the clock says %v", at, time.Now())
		}
	})
}
