// Package detect holds a stream's behaviour against its own past.
//
// An [Engine] takes one [feature.Window] a hop. While it learns, the windows
// shape a [Profile]; afterwards every [Detector] scores them against it, and the
// [Decision] turns scores into alarms. A score of 1 is a detector's limit: the
// larger of a floor that holds for every stream and of what the stream's own
// baseline did, with a margin. The engine has no clock and no randomness of its
// own: the same windows give the same alarms, live and from a recording.
package detect
