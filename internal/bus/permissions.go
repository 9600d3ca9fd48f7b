package bus

import gk "github.com/gaitkeeper/gaitkeeper"

// Role names a service for what it may do on the bus.
type Role string

// The roles of the service bus. Broker is the door of the devices' broker, which
// asks whether a device may come in.
const (
	RoleKMS        Role = "kms"
	RoleTransport  Role = "transport"
	RoleProcessing Role = "processing"
	RoleAPI        Role = "api"
	RoleAudit      Role = "audit"
	RoleBroker     Role = "broker"
)

// Permissions lists the NATS subjects that a role may publish to and subscribe
// to. JetStream's own subjects for a role's key-value buckets stand in Buckets.
type Permissions struct {
	Publish   []string
	Subscribe []string
	Buckets   []string // key-value buckets that the role reads and writes
}

// The key-value buckets, each of one role.
const (
	BucketKMS        = "gk-kms"        // root, CA, devices, tokens, media key envelopes
	BucketProcessing = "gk-processing" // rotation records
)

// inbox is where a role's replies arrive: its own, so that no role can listen to
// the answers that another gets.
func inbox(r Role) string { return "_INBOX." + string(r) }

func certifies(role string, id gk.TransportID) string {
	return string(KMSCertify) + "." + As(role, string(id))
}

// PermissionsOf is the least that each role needs, as the instance id. Nothing
// else is allowed.
func PermissionsOf(r Role, id gk.TransportID) Permissions {
	var p Permissions
	switch r {
	case RoleKMS:
		p.Subscribe = []string{"gk.kms.>"}
		p.Publish = []string{string(Events)}
		p.Buckets = []string{BucketKMS}
	case RoleTransport:
		me := "." + string(id)
		p.Subscribe = []string{string(TransportAssign) + me, string(TransportArm) + me, string(TransportSwitch) + me, string(TransportRelease) + me, string(TransportLease) + me, string(TransportDisarm) + me, string(TransportReport) + me, string(TransportHold) + me}
		p.Publish = []string{"gk.transport-news.*" + me, string(Events), string(KMSInfo), certifies("transport", id)}
	case RoleProcessing:
		p.Subscribe = []string{"gk.processing.>", "gk.processing-news.>", "gk.transport-news.>"}
		p.Publish = []string{"gk.transport.>", "gk.processing-news.>", string(Events), string(KMSInfo), string(KMSOpen), string(KMSRelease), string(KMSSetState), string(KMSDevice), string(KMSStanding), string(KMSSeal), string(KMSUnseal), certifies("processing", id)}
		p.Buckets = []string{BucketProcessing}
	case RoleAPI:
		p.Subscribe = []string{string(Events), "gk.transport-news.>", string(ProcessingScores)}
		p.Publish = []string{string(ProcessingRotate), string(ProcessingStreams), string(ProcessingStop), string(KMSInfo), string(KMSKeys), string(KMSEnroll), string(KMSJoin), string(KMSDevices), string(KMSRevoke), string(ProcessingDisarm), string(BrokerCut), string(Events),
			string(ProcessingAlerts), string(ProcessingEpisode), string(ProcessingExplain), string(ProcessingProfile), string(ProcessingPlanned),
			string(ProcessingFeedback), string(ProcessingTuning), string(ProcessingFleet), certifies("server", id)}
	case RoleAudit:
		p.Subscribe = []string{string(Events)}
		p.Publish = []string{string(KMSSignHead)}
	case RoleBroker:
		p.Subscribe = []string{string(BrokerCut)}
		p.Publish = []string{string(KMSDevice), string(KMSInfo), certifies("server", id)}
	}
	p.Subscribe = append(p.Subscribe, inbox(r)+".>")
	for _, b := range p.Buckets {
		p.Publish = append(p.Publish, "$KV."+b+".>", "$JS.API.*.*.KV_"+b, "$JS.API.*.*.KV_"+b+".>", "$JS.API.*.*.*.KV_"+b, "$JS.API.*.*.*.KV_"+b+".>", "$JS.API.DIRECT.GET.KV_"+b, "$JS.API.DIRECT.GET.KV_"+b+".>", "$JS.API.INFO", "$JS.FC.>")
	}
	return p
}
