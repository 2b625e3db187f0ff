package watchword

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	errSigning = errors.New("the bus would not carry this message as it is, or nobody could read it")
	topic      = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	printable  = regexp.MustCompile(`^[!-~]+$`)
	natsName   = regexp.MustCompile(`^[!-9;-~]+$`)
	natsValue  = regexp.MustCompile(`^([!-~]([ -~]*[!-~])?)?$`)
)

// Signer signs with an Ed25519 key, under the id that it is published by.
type Signer struct {
	KeyID string
	Key   ed25519.PrivateKey
}

// Sign gives each message its envelope: a lone one is signed directly, several as one tree. Issuer, Issued and what the
// messages do not show (Recipient, Expiry, Request) are taken from the claims given.
func (s *Signer) Sign(messages []*Message, given Claims) error {
	entries, leaves := [][]byte{}, [][]byte{}
	for _, message := range messages {
		claims := message.claimed(given)
		if !message.sendable() || !claims.valid() {
			return errSigning
		}
		entry := encode(claims)
		entries, leaves = append(entries, entry), append(leaves, leaf(entry))
	}
	head := protected{KeyID: []byte(s.KeyID), Algorithm: *big.NewInt(edwards)}
	size, payload := 0, entries[0]
	if len(messages) > 1 {
		size, head.Tree = len(messages), new(uint64)
		*head.Tree = 1
		payload, _ = tree(leaves, 0)
	}
	signature := ed25519.Sign(s.Key, structure(encode(&head), uint64(size), payload))
	for index, message := range messages {
		found := envelope{Version: 1, Claims: entries[index], Proof: proof{Protected: encode(&head), Signature: signature}}
		if size > 0 {
			_, path := tree(leaves, index)
			step := encode(inclusion{Size: uint64(size), Index: uint64(index), Path: path})
			found.Proof.Unprotected.Proofs = &proofs{[][]byte{step}}
		}
		raw := encode(found)
		if len(raw) > 4096 {
			return errSigning
		}
		message.Headers = append(message.Headers, Header{Name: "watchword", Value: []byte(base64.RawURLEncoding.EncodeToString(raw))})
	}
	return nil
}

func (m *Message) claimed(given Claims) *Claims {
	c := &given
	c.ID, c.Channel, c.Partition = make([]byte, 16), m.Channel, m.Partition
	rand.Read(c.ID)
	if !m.isKafka() { // names come once there, and some clients keep no order but this
		slices.SortFunc(m.Headers, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, header := range m.Headers {
		if header.Name != "traceparent" && header.Name != "tracestate" {
			c.Names = append(c.Names, header.Name)
		}
	}
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
	c.Value, c.Digest = m.digests(c.Names)
	if m.ReplyTo != nil {
		c.ReplyTo = *m.ReplyTo
	}
	return c
}

// sendable tells whether the bus carries the message as it is (section 7).
func (m *Message) sendable() bool {
	names := map[string]bool{}
	for _, header := range m.Headers {
		carried := m.isKafka() || !names[header.Name] && natsName.MatchString(header.Name) && header.Value != nil &&
			natsValue.Match(header.Value)
		if names[header.Name] = true; !carried || isEnvelope(header.Name) || !utf8.ValidString(header.Name) {
			return false
		}
	}
	if len(m.Headers) > 1000 || m.size() > 65536-maxCharacters || utf8.RuneCountInString(m.Channel) > 1024 {
		return false
	}
	_, _, name := Place(m.Channel)
	if m.isKafka() {
		return topic.MatchString(name) && name != "." && name != ".." && m.Partition != nil && m.ReplyTo == nil
	}
	return isSubject(name) && m.Key == nil && m.Partition == nil &&
		(m.ReplyTo == nil || isSubject(*m.ReplyTo) && !strings.HasPrefix(*m.ReplyTo, "$"))
}

func isSubject(name string) bool {
	wrong := func(token string) bool { return token == "*" || token == ">" || !printable.MatchString(token) }
	return !slices.ContainsFunc(strings.Split(name, "."), wrong)
}
