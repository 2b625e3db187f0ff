package watchword

import (
	"encoding/hex"
	"math"
	"slices"
	"strings"
)

// Verdict says what became of a message (section 12). Headers and ReplyTo are what a handler may see.
type Verdict struct {
	Verdict     string   `json:"verdict"`
	Reason      string   `json:"reason,omitempty"`
	Principal   string   `json:"principal,omitempty"`
	KeyID       string   `json:"key_id,omitempty"`
	ID          string   `json:"id,omitempty"`
	Redelivered bool     `json:"redelivered"`
	Headers     []Header `json:"headers,omitempty"`
	ReplyTo     string   `json:"reply_to,omitempty"`
}

// Request is one of this client's own, whose answer is awaited.
type Request struct {
	ID        string
	Channel   string
	Recipient *string
}

// Expected is what the reader knows of what it reads.
type Expected struct {
	Requests    []Request
	OnlyReplies bool `json:"only_replies"`
	Consumer    *[2]string
}

// Verifier judges the messages of one realm, one after the other; without a Principal it is nobody.
type Verifier struct {
	Realm     string
	Principal *string
	Keys      []*Key
	Policy    Policy
	Shared    bool // whether all readers share the replay memory
	Expected  Expected
	Room      int // ids that one principal may hold in a log's memory; 0 for any number
	guards    map[string]*guard
}

// judged is one message on its way through the checks.
type judged struct {
	*parsed
	*Message
	now, earliest, latest, reference, issued float64
	signer                                   *Key
	request                                  *Request
	guard                                    *guard
}

// Judge puts a message through the nine checks.
func (v *Verifier) Judge(message *Message, now float64) Verdict {
	j := &judged{Message: message, now: now, guard: v.guardOf(message)}
	j.earliest, j.latest = message.appended(now)
	if j.bounded() { // looks are the reader's own, so they count whatever the message is worth
		j.guard.logTime = max(j.guard.logTime, j.earliest)
	}
	for _, check := range []func(*judged) string{v.envelope, v.destination, v.time, v.key, v.signature, v.content} {
		if reason := check(j); reason != "" {
			return Verdict{Verdict: "rejected", Reason: reason}
		}
	}
	redelivered, reason := v.claim(j)
	if reason == "" {
		reason = v.permission(j, !redelivered)
	}
	if reason != "" {
		return Verdict{Verdict: "rejected", Reason: reason}
	}
	hidden := func(h Header) bool { return !slices.Contains(j.claims.Names, h.Name) && !isTracing(h.Name) }
	return Verdict{Verdict: "verified", Principal: j.claims.Issuer, KeyID: j.signer.Kid, ID: hex.EncodeToString(j.claims.ID),
		Redelivered: redelivered, Headers: slices.DeleteFunc(slices.Clone(j.Headers), hidden), ReplyTo: j.claims.ReplyTo}
}

// envelope is checks 1 and 2.
func (v *Verifier) envelope(j *judged) string {
	if len(j.Headers) > maxHeaders {
		return "malformed"
	}
	found := slices.DeleteFunc(slices.Clone(j.Headers), func(h Header) bool { return !isEnvelope(h.Name) })
	if len(found) == 0 {
		return "unsigned"
	}
	var err error
	if j.parsed, err = parse(found[0].Value); err != nil || len(found) > 1 || j.size() > 65536 {
		return "malformed"
	}
	j.issued = float64(j.claims.Issued)
	j.reference = max(j.earliest, min(j.issued, j.latest))
	return ""
}

// destination is check 3.
func (v *Verifier) destination(j *judged) string {
	c := &j.claims
	if _, realm, _ := j.place(); c.Channel != j.Channel || realm != v.Realm {
		return "wrong_channel"
	}
	if c.Partition == nil && j.isKafka() && !v.Shared ||
		c.Partition != nil && (!j.isKafka() || j.Partition == nil || *j.Partition != *c.Partition) {
		return "wrong_partition"
	}
	atStream := !j.isKafka() && j.Offset != nil
	if c.ReplyTo != "" && (!atStream && (j.ReplyTo == nil || *j.ReplyTo != c.ReplyTo) || strings.HasPrefix(c.ReplyTo, "$")) {
		return "wrong_reply_to"
	}
	if c.Recipient != nil && (v.Principal == nil || *v.Principal != *c.Recipient) {
		return "wrong_recipient"
	}
	for index, request := range v.Expected.Requests {
		if c.Request != nil && request.ID == hex.EncodeToString(c.Request) {
			j.request = &v.Expected.Requests[index]
		}
	}
	if j.request == nil && (c.Request != nil || v.Expected.OnlyReplies) {
		return "wrong_request"
	}
	if bound := v.Expected.Consumer; bound != nil && (j.DeliveredBy == nil || *j.DeliveredBy != *bound) {
		return "wrong_delivery"
	}
	return ""
}

// time is check 4. What is from the future by looks goes through checks 5 to 7, so that a copy of it can be told.
func (v *Verifier) time(j *judged) string {
	if j.issued < j.earliest-v.Policy.window() {
		return "stale"
	}
	if ahead := j.issued - j.latest; ahead > v.Policy.MaxSkew {
		if j.bounded() && ahead <= v.Policy.MaxAge+2*v.Policy.MaxSkew &&
			v.key(j) == "" && v.signature(j) == "" && v.content(j) == "" {
			v.hold(j)
		}
		return "from_future"
	}
	if j.claims.Expiry != nil && j.now >= float64(*j.claims.Expiry) {
		return "expired"
	}
	return ""
}

// key is check 5. What ends here is undetermined: its key may yet become known.
func (v *Verifier) key(j *judged) (reason string) {
	key, reason := find(v.Keys, j.claims.Issuer, j.protected.KeyID)
	if key != nil {
		if key.NotBefore != nil && j.reference < float64(*key.NotBefore) || key.Expiry != nil && j.reference >= float64(*key.Expiry) {
			reason = "key_not_valid"
		} else if key.Revoked != nil && j.now >= float64(*key.Revoked) {
			reason = "key_revoked"
		}
	}
	if j.signer = key; reason != "" {
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
	if payload == nil || !j.signer.verify(&j.protected.Algorithm, structure(j.rawProtected, size, payload), j.parsed.signature) {
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
	value, digest := j.digests(j.claims.Names)
	if !same(value, j.claims.Value) || !same(digest, j.claims.Digest) ||
		j.CreatedAt != nil && math.Abs(*j.CreatedAt-j.issued) > v.Policy.MaxSkew {
		return "altered"
	}
	for _, header := range j.Headers {
		if !j.isKafka() && header.Name == "Nats-Msg-Id" && !slices.Contains(j.claims.Names, header.Name) &&
			string(header.Value) != hex.EncodeToString(j.claims.ID) {
			return "altered"
		}
	}
	return ""
}
