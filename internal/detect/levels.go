package detect

import "github.com/gaitkeeper/gaitkeeper/internal/episode"

// Levels appends the levels of what accuses, in the detectors' order.
func Levels(b []episode.Level, all []Evidence) []episode.Level {
	for i := range all {
		if !all[i].Advisory {
			b = append(b, all[i].Level)
		}
	}
	return b
}

// Accusing names what accuses, in the detectors' order, and tells which is about the
// path.
func Accusing(all []Evidence) (kinds []string, path []bool) {
	for i := range all {
		if !all[i].Advisory {
			kinds, path = append(kinds, all[i].Kind), append(path, all[i].Class == Path)
		}
	}
	return kinds, path
}
