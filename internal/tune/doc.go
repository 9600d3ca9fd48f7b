// Package tune finds thresholds from what operators say and from what streams did.
// It is pure: it owns no clock, lock, goroutine or store, and everything random comes
// from a seed.
//
//	trace.go     what is kept of a stream: levels of its detectors, hop by hop
//	label.go     what is known of stretches of it, from whom, and how far it is believed
//	replay.go    settings → alarms, by the same rule as the engine's
//	judge.go     alarms and labels → false alarms, misses, cost
//	controller.go  the default: the smallest cut-off that keeps the budget
//	gp.go, search.go  Bayesian optimisation, and what it is compared with
//	compare.go   which of the two goes live: whole episodes held out, in time
//	guard.go     a stream's setting: steps, shadow, revert, history
//	tally.go     what a setting does in its shadow and while it is young
//	answer.go    what follows from one answer at once
//	budget.go    how often evidence may change the key, whatever the settings are
//	anomaly.go   anomalies made in recorded windows
//
// Its figures are in docs/tuning.md.
package tune
