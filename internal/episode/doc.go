// Package episode turns scores into alarms: the grid on which scores are compared,
// the rule by which one disturbance is one alarm, and the form in which scores are
// kept. The engine decides by it and tuning replays by it, so that what tuning
// predicts is what the engine does.
package episode
