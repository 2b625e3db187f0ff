package watchword

import (
	"crypto"
	"crypto/ecdsa"
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

// Signer signs with an Ed25519 or P-256 key, under the id that it is published by.
type Signer struct {
	KeyID string
	Key   crypto.Signer
}

// Sign gives each message its envelope: a lone one is signed directly, several as one tree. Issuer, Issued and what the
// messages do not show (Recipient, Expiry, Request) are taken from the claims given. It returns the claims of each.
func (s *Signer) Sign(messages []*Message, given Claims) ([]*Claims, error) {
	all, entries, leaves := []*Claims{}, [][]byte{}, [][]byte{}
	for _, message := range messages {
		claims := message.claimed(given)
		if !message.sendable() || !claims.valid() {
			return nil, errSigning
		}
		entry := encode(claims)
		all, entries, leaves = append(all, claims), append(entries, entry), append(leaves, leaf(entry))
	}
	head := protected{KeyID: []byte(s.KeyID), Algorithm: *big.NewInt(edwards)}
	if _, here := s.Key.(*ecdsa.PrivateKey); here {
		head.Algorithm = *big.NewInt(elliptical)
	}
	size, payload := 0, entries[0]
	if len(messages) > 1 {
		size, head.Tree = len(messages), new(uint64)
		*head.Tree = 1
		payload, _ = tree(leaves, 0)
	}
	signature, err := s.signature(structure(encode(&head), uint64(size), payload))
	for index, message := range messages {
		found := envelope{Version: 1, Claims: entries[index], Proof: proof{Protected: encode(&head), Signature: signature}}
		if size > 0 {
			_, path := tree(leaves, index)
			step := encode(inclusion{Size: uint64(size), Index: uint64(index), Path: path})
			found.Proof.Unprotected.Proofs = &proofs{[][]byte{step}}
		}
		raw := encode(found)
		if len(raw) > maxEnvelope {
			return nil, errSigning
		}
		message.Headers = append(message.Headers, Header{"watchword", []byte(base64.RawURLEncoding.EncodeToString(raw))})
	}
	return all, err
}

func (m *Message) claimed(given Claims) *Claims {
	c := &given
	c.ID, c.Channel, c.Partition = make([]byte, 16), m.Channel, m.Partition
	rand.Read(c.ID)
	for _, header := range m.Headers {
		if !isTracing(header.Name) {
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
	_, _, name := m.place()
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

func (s *Signer) signature(data []byte) ([]byte, error) {
	key, here := s.Key.(*ecdsa.PrivateKey)
	if !here {
		return s.Key.Sign(rand.Reader, data, crypto.Hash(0))
	}
	r, low, err := ecdsa.Sign(rand.Reader, key, hash(data))
	if err != nil {
		return nil, err
	}
	if low.Cmp(halfOrder) > 0 {
		low.Sub(order, low)
	}
	return append(r.FillBytes(make([]byte, 32)), low.FillBytes(make([]byte, 32))...), nil
}
