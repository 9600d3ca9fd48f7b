package app

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock tells whether something keeps this machine's clock right. No decision
// about keys depends on it; certificates, tokens and the audit trail do.
func (d *doctor) clock() {
	const check, mend = "clock", "apt install systemd-timesyncd, or chrony; in a container it is the host's business"
	now := time.Now()
	if now.Before(earliest) {
		d.fail(check, "it says "+now.Format(time.DateOnly)+": no certificate is valid then", mend)
		return
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err == nil && (state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0) {
		d.warn(check, "nothing keeps it right: tokens and certificates end early or late", mend)
		return
	}
	d.fine(check, now.UTC().Format(time.DateTime)+" UTC")
}
