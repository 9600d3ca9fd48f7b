package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// look locks the data directory as a doctor does.
func look(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestServerStartsWhileADoctorLooks: the doctor changes nothing, and so keeps no server
// from starting.
func TestServerStartsWhileADoctorLooks(t *testing.T) {
	dir := t.TempDir()
	doctor := look(t, dir)
	time.AfterFunc(5*lockPause, func() { doctor.Close() })
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatalf("beside a doctor: %v", err)
	}
	defer d.Close()
	if other, err := openDataDir(dir); err == nil {
		other.Close()
		t.Error("two servers have the directory")
	}
}

// TestDoctorsAreNoServers: neither a doctor nor what it left tells of a server.
func TestDoctorsAreNoServers(t *testing.T) {
	cfg := testConfig(t)
	if err := os.WriteFile(filepath.Join(cfg.Data, "lock"), []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	look(t, cfg.Data)
	d := doctor{cfg: cfg}
	if d.dataDirectory(); d.running != "" {
		t.Errorf("pid %s is taken for a server", d.running)
	}
}
