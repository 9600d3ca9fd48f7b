package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"
)

// mosquitto starts a foreign MQTT 3.1.1 broker on a loopback port, and gives a
// function that stops it.
func mosquitto(t *testing.T, port int) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // Debian keeps it off most users' path
	}
	cmd := exec.Command(path, "-p", fmt.Sprint(port))
	if err := cmd.Start(); err != nil {
		t.Fatalf("mosquitto: %v: make test installs it", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return stop
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

// TestForeignBroker: the couriers work over a broker that is not ours, and take
// their subscriptions up again when it was restarted.
func TestForeignBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	stop := mosquitto(t, port)
	defer func() { stop() }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dial := func(id string) Courier {
		c, err := DialMQTT(ctx, MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", port), ClientID: id, Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	service, device := dial("service"), dial("cam-1")
	defer service.Close()
	defer device.Close()
	got := make(chan string, 1000)
	if err := service.Listen("gkrp/1/+/+/up", func(topic string, p []byte) { got <- topic + " " + string(p) }); err != nil {
		t.Fatal(err)
	}
	// arrives sends until something comes: QoS 0 promises nothing across a restart.
	arrives := func(payload string) {
		t.Helper()
		for {
			if err := device.Send("gkrp/1/cam-1/cam-1/up", []byte(payload)); err != nil && !errors.Is(err, ErrNotConnected) {
				t.Fatal(err)
			}
			select {
			case m := <-got:
				if m == "gkrp/1/cam-1/cam-1/up "+payload {
					return
				}
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%q did not arrive", payload)
			}
		}
	}
	arrives("before")
	stop()
	stop = mosquitto(t, port)
	arrives("after the restart")
}

func TestAbsentBrokerIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	if _, err := DialMQTT(context.Background(), MQTTConfig{Address: address, ClientID: "cam-1", Plain: true}); !errors.Is(err, ErrBroker) {
		t.Errorf("%v, want ErrBroker", err)
	}
}
