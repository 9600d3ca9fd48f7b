//go:build !linux

package app

import "time"

// clock tells whether this machine's clock can be right; who keeps it is not
// told here.
func (d *doctor) clock() {
	now := time.Now()
	if now.Before(earliest) {
		d.fail("clock", "it says "+now.Format(time.DateOnly)+": no certificate is valid then", "set it")
		return
	}
	d.fine("clock", now.UTC().Format(time.DateTime)+" UTC")
}
