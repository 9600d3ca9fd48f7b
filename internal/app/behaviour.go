package app

import (
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
)

// behaviour gives the settings about learning and judging to processing.
func (c Config) behaviour() processing.Behaviour {
	b := processing.DefaultBehaviour()
	b.Learn, b.Provisional, b.Probation = c.LearnFor, c.ProvisionalAfter, c.Probation
	b.Sensitivity = c.Sensitivity
	b.Tuning = processing.Tuning{
		FalseEvery: c.FalseRotationEvery, MissCost: c.MissCost, Auto: c.AutoTune, Every: c.TuneEvery,
		Shadow: c.ShadowFor, Watch: c.WatchFor, History: c.ScoreHistory,
		Around: c.EpisodeContext, Episodes: c.EpisodesKept, EpisodeBytes: int64(c.EpisodeStore),
	}
	b.PathAfter, b.AskAfter = c.PathAlertAfter, c.AskAfter
	b.HoldUnresolved = c.HoldUnresolved
	b.Announced = processing.Announcements(c.AnnouncedChanges)
	for class, r := range map[bus.Class]string{
		bus.ClassProof: c.RespondProof, bus.ClassSource: c.RespondSource, bus.ClassPath: c.RespondPath, bus.ClassNoise: c.RespondNoise,
	} {
		b.Responses[class] = bus.Response(r)
	}
	return b
}
