package app

import (
	"reflect"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/processing"
)

func TestBehaviourSettingsHaveTheServicesDefaults(t *testing.T) {
	cfg, err := DefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.behaviour(), processing.DefaultBehaviour(); !reflect.DeepEqual(got, want) {
		t.Errorf("settings give %+v, the service's defaults are %+v", got, want)
	}
}
