package bus

import gk "github.com/gaitkeeper/gaitkeeper"

// TransportOutsiders tells, once a second while there is any, what reaches a
// transport and belongs to no stream.
const TransportOutsiders NewsOf[Outsiders] = "gk.transport-news.outsiders"

// Outsiders counts packets of about a second that belong to no stream.
type Outsiders struct {
	Transport gk.TransportID    `cbor:"1,keyasint"`
	Dropped   map[string]uint64 `cbor:"2,keyasint"` // by cause
}

// From names the transport that announces it: see [NewsOf].
func (o Outsiders) From() gk.TransportID { return o.Transport }

// SiteAlerts is in the place of a stream's name in alerts about the whole site. No
// stream can have it.
const SiteAlerts gk.StreamID = "_site"
