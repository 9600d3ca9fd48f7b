package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dataDir is a locked data directory. One process at a time owns it.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory (0700) where it is missing and locks it. The
// lock ends with the process, however that ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w: choose another with --data", path, plain(err))
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s is not writable: %w: mend its permissions or choose another with --data", path, plain(err))
	}
	if err := lockAlone(lock); err != nil {
		defer lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s cannot be locked: %w: choose one on a local disk with --data", path, err)
		}
		holder := "unknown pid"
		if b, err := os.ReadFile(lock.Name()); err == nil && len(b) > 0 {
			holder = "pid " + strings.TrimSpace(string(b))
		}
		return nil, fmt.Errorf("data directory %s is locked by another gaitkeeper (%s): stop it or choose another directory with --data", path, holder)
	}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s is not writable: %w", path, plain(err))
	}
	return &dataDir{path: path, lock: lock}, nil
}

const (
	lockTries = 200
	lockPause = 10 * time.Millisecond
)

// lockAlone takes the lock, or fails with EWOULDBLOCK where a server has it. One that
// can be shared belongs to a doctor who looks, and is waited for.
func lockAlone(lock *os.File) error {
	fd := int(lock.Fd())
	var err error
	for range lockTries {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if shared := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); shared != nil {
			return shared
		}
		if unlock := unix.Flock(fd, unix.LOCK_UN); unlock != nil { // not shared by two who wait
			return unlock
		}
		time.Sleep(lockPause)
	}
	return err
}

// file gives the path of a name in the directory.
func (d *dataDir) file(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

func (d *dataDir) Close() error { return d.lock.Close() }

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// plain takes the path out of a file error whose message names it already.
func plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
