package gaitkeeper

// Kinds of events of tuning; they are in the audit trail like all others.
const (
	EventLabel           EventKind = "label"            // somebody said what an alert was, or reported a miss; Detail has what and who
	EventLabelContested  EventKind = "label-contested"  // somebody called false what is proven
	EventSettingProposed EventKind = "setting-proposed" // a setting is in the shadow; Detail has it, with reason, data and expected effect
	EventSettingLive     EventKind = "setting-live"     // it decides
	EventSettingRejected EventKind = "setting-rejected" // it alarmed more in the shadow than was expected
	EventSettingReverted EventKind = "setting-reverted" // an earlier one decides again
	EventTuningRefused   EventKind = "tuning-refused"   // stored settings and labels were changed by somebody, or do not read; Detail has why
	EventAlertsRefused   EventKind = "alerts-refused"   // stored alerts were changed by somebody, put back, or are not sealed; Detail has why
	EventTuningAuto      EventKind = "tuning-auto"      // proposals of the system itself are taken, or no more
)
