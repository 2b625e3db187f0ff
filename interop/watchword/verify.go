package watchword

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Header is one header of a message, [name, value] in JSON; its value is nil where it is null.
type Header struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Value []byte
}

// Message is one in the JSON of section 12. What is nil is absent.
type Message struct {
	Channel           string
	Partition, Offset *uint64
	AppendedAt        *float64   `json:"appended_at"`
	AppendedBetween   []*float64 `json:"appended_between"`
	CreatedAt         *float64   `json:"created_at"`
	DeliveredBy       *[2]string `json:"delivered_by"`
	Key, Value        []byte
	Headers           []Header
	ReplyTo           *string `json:"reply_to"`
}

// Verdict says what became of a message. Headers and ReplyTo are what a handler may see.
type Verdict struct {
	Verdict, Reason, Principal, ID string
	KeyID                          string `json:"key_id"`
	Redelivered                    bool
	Headers                        []Header
	ReplyTo                        string
}

// Expected is what the reader knows of what it reads: requests of its own whose answers are awaited, and the stream and
// consumer that are bound.
type Expected struct {
	Requests []struct {
		ID, Channel string
		Recipient   *string
	}
	OnlyReplies bool `json:"only_replies"`
	Consumer    *[2]string
}

// Verifier judges the messages of one realm, one after the other. Without a Principal it is nobody; Shared says that all
// readers share the replay memory; Room is how many ids a principal may hold in a log's memory, 0 for any number.
type Verifier struct {
	Realm     string
	Principal *string
	Keys      []*Key `json:"-"`
	Policy    Policy
	Shared    bool     `json:"shared_replay"`
	Expected  Expected `json:"expected_context"`
	Room      int      `json:"ids_per_principal"`
	guards    map[string]*guard
}

// judged is one message on its way through the checks. The bus took it between earliest and latest; where and recipient say
// by what policy judges it.
type judged struct {
	*parsed
	*Message
	*guard
	now, earliest, latest, reference, issued float64
	id, where                                string
	place                                    string // where the broker put which claims, if it said so
	recipient                                *string
	signer                                   *Key
	answer, redelivered                      bool
}

// UnmarshalJSON reads [name, value or null].
func (h *Header) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&h.Name, &h.Value})
}

// MarshalJSON writes it so.
func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

// Place returns the parts of a channel's URI.
func Place(channel string) (bus, realm, name string) {
	bus, rest, _ := strings.Cut(channel, "://")
	realm, name, _ = strings.Cut(rest, "/")
	return bus, realm, name
}

func (m *Message) isKafka() bool { return strings.HasPrefix(m.Channel, "kafka://") }

// bounded tells whether the append time is known by the reader's looks only.
func (m *Message) bounded() bool { return m.AppendedAt == nil && len(m.AppendedBetween) == 2 }

// Judge puts a message through the nine checks.
func (v *Verifier) Judge(message *Message, now float64) Verdict {
	j := &judged{Message: message, guard: v.guardOf(message), now: now, earliest: now, latest: now, where: message.Channel}
	if message.AppendedAt != nil {
		j.earliest, j.latest = *message.AppendedAt, *message.AppendedAt
	} else if j.bounded() {
		j.earliest, j.latest = math.Inf(-1), *message.AppendedBetween[1]
		if message.AppendedBetween[0] != nil {
			j.earliest = *message.AppendedBetween[0]
		}
		j.logTime = max(j.logTime, j.earliest) // whatever the message is worth: looks are the reader's own
	}
	checks := []func(*judged) string{v.envelope, v.destination, v.time, v.key, v.signature, v.content, v.claim, v.permission}
	for _, check := range checks {
		if reason := check(j); reason != "" {
			return Verdict{Verdict: "rejected", Reason: reason}
		}
	}
	return Verdict{Verdict: "verified", Principal: j.claims.Issuer, KeyID: *j.signer.Kid, ID: j.id, ReplyTo: j.claims.ReplyTo,
		Redelivered: j.redelivered, Headers: j.named(append(j.claims.Names, "traceparent", "tracestate"))}
}

// named returns the headers that have one of these names.
func (m *Message) named(names []string) (found []Header) {
	other := func(header Header) bool { return !slices.Contains(names, header.Name) }
	return slices.DeleteFunc(append([]Header{}, m.Headers...), other)
}

// digests returns the claims v and m for a message whose covered names are given.
func (m *Message) digests(names []string) (value, digest []byte) {
	if m.Value != nil {
		value = hash(m.Value)
	}
	if m.Key != nil || len(names) > 0 {
		digest = hash(must(nullEncoder.Marshal([]any{m.Key, m.named(names)})))
	}
	return value, digest
}

// size counts the bytes of names and values of all headers.
func (m *Message) size() (size int) {
	for _, header := range m.Headers {
		size += len(header.Name) + len(header.Value)
	}
	return size
}

// envelope is checks 1 and 2.
func (v *Verifier) envelope(j *judged) string {
	found := slices.DeleteFunc(slices.Clone(j.Headers), func(h Header) bool { return !isEnvelope(h.Name) })
	if len(j.Headers) <= 1024 && len(found) == 0 {
		return "unsigned"
	}
	if len(j.Headers) > 1024 || len(found) > 1 || j.size() > 65536 {
		return "malformed"
	}
	if j.parsed = parse(found[0].Value); j.parsed == nil {
		return "malformed"
	}
	j.id, j.issued = hex.EncodeToString(j.claims.ID), float64(j.claims.Issued)
	j.reference = max(j.earliest, min(j.issued, j.latest))
	if j.Offset != nil && j.AppendedAt != nil {
		j.place = fmt.Sprintf("%d at %v: %x", *j.Offset, *j.AppendedAt, j.rawClaims)
	} else if j.Offset != nil {
		j.place = fmt.Sprintf("%d: %x", *j.Offset, j.rawClaims)
	}
	return ""
}

// destination is check 3.
func (v *Verifier) destination(j *judged) string {
	_, realm, _ := Place(j.Channel)
	c, kafka, bound := &j.claims, j.isKafka(), v.Expected.Consumer
	for _, request := range v.Expected.Requests {
		if request.ID == hex.EncodeToString(c.Request) {
			j.answer, j.where, j.recipient = true, request.Channel, request.Recipient
		}
	}
	switch atStream := !kafka && j.Offset != nil; {
	case c.Channel != j.Channel || realm != v.Realm:
		return "wrong_channel"
	case c.Partition == nil && kafka && !v.Shared,
		c.Partition != nil && (!kafka || j.Partition == nil || *j.Partition != *c.Partition):
		return "wrong_partition"
	case c.ReplyTo != "" && !atStream && (j.ReplyTo == nil || *j.ReplyTo != c.ReplyTo), strings.HasPrefix(c.ReplyTo, "$"):
		return "wrong_reply_to"
	case c.Recipient != nil && (v.Principal == nil || *v.Principal != *c.Recipient):
		return "wrong_recipient"
	case !j.answer && (c.Request != nil || v.Expected.OnlyReplies):
		return "wrong_request"
	case bound != nil && (j.DeliveredBy == nil || *j.DeliveredBy != *bound):
		return "wrong_delivery"
	}
	return ""
}

// time is check 4. What is from the future by looks goes through checks 5 to 7, so that a copy of it can be recognised.
func (v *Verifier) time(j *judged) string {
	ahead := j.issued - j.latest
	switch {
	case j.issued < j.earliest-v.Policy.window():
		return "stale"
	case ahead > v.Policy.MaxSkew:
		if j.bounded() && ahead <= v.Policy.window()+v.Policy.MaxSkew && v.key(j)+v.signature(j)+v.content(j) == "" {
			v.hold(j)
		}
		return "from_future"
	case j.claims.Expiry != nil && j.now >= float64(*j.claims.Expiry):
		return "expired"
	}
	return ""
}

// key is check 5. What ends here is undetermined: its key may yet become known.
func (v *Verifier) key(j *judged) (reason string) {
	if j.signer, reason = find(v.Keys, j.claims.Issuer, j.protected.KeyID); j.signer != nil {
		reason = j.signer.valid(j.reference, j.now)
	}
	if reason != "" {
		v.hold(j)
	}
	return reason
}

// signature is check 6.
func (v *Verifier) signature(j *judged) string {
	size, payload := uint64(0), j.rawClaims
	if j.inclusion != nil {
		size, payload = j.inclusion.Size, j.inclusion.root(j.rawClaims)
	}
	data := structure(j.rawProtected, size, payload)
	if payload == nil || j.signer == nil || !j.signer.verify(&j.protected.Algorithm, data, j.parsed.signature) {
		return "bad_signature"
	}
	return ""
}

// structure is what a signature covers (section 6).
func structure(protected []byte, size uint64, payload []byte) []byte {
	return encode([]any{"Signature1", protected, encode([]any{"watchword/1", size}), payload})
}

// content is check 7.
func (v *Verifier) content(j *judged) string {
	another := func(h Header) bool { return h.Name == "Nats-Msg-Id" && string(h.Value) != j.id }
	value, digest := j.digests(j.claims.Names)
	if !bytes.Equal(value, j.claims.Value) || !bytes.Equal(digest, j.claims.Digest) ||
		j.CreatedAt != nil && math.Abs(*j.CreatedAt-j.issued) > v.Policy.MaxSkew ||
		!j.isKafka() && !slices.Contains(j.claims.Names, "Nats-Msg-Id") && slices.ContainsFunc(j.Headers, another) {
		return "altered"
	}
	return ""
}
