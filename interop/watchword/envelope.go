// Package watchword verifies and signs messages by docs/spec.md, wire format version 1.
package watchword

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"math/bits"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// The CDDL of sections 4 and 5. What is not of these shapes does not come out of the encoder as it went in.
type (
	envelope struct {
		_       struct{} `cbor:",toarray"`
		Version uint64
		Claims  []byte
		Proof   proof
	}
	proof struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected struct {
			Proofs *proofs `cbor:"396,keyasint,omitempty"`
		}
		Payload   *uint64
		Signature []byte
	}
	proofs struct {
		Inclusion [][]byte `cbor:"-1,keyasint"`
	}
	protected struct {
		Algorithm big.Int `cbor:"1,keyasint"`
		KeyID     []byte  `cbor:"4,keyasint"`
		Tree      *uint64 `cbor:"395,keyasint,omitempty"`
	}
	inclusion struct {
		_           struct{} `cbor:",toarray"`
		Size, Index uint64
		Path        [][]byte
	}
	// Claims are those of a message; what is nil or empty is absent.
	Claims struct {
		Issuer    string   `cbor:"1,keyasint"`
		Recipient *string  `cbor:"3,keyasint,omitempty"`
		Expiry    *uint64  `cbor:"4,keyasint,omitempty"`
		Issued    uint64   `cbor:"6,keyasint"`
		ID        []byte   `cbor:"7,keyasint"`
		Channel   string   `cbor:"c"`
		Names     []string `cbor:"h,omitempty"`
		Digest    []byte   `cbor:"m,omitempty"`
		Partition *uint64  `cbor:"p,omitempty"`
		Request   []byte   `cbor:"q,omitempty"`
		ReplyTo   string   `cbor:"r,omitempty"`
		Value     []byte   `cbor:"v,omitempty"`
	}
)

// parsed is an envelope with its parts read, beside the bytes that were signed.
type parsed struct {
	claims                             Claims
	protected                          protected
	rawClaims, rawProtected, signature []byte
	inclusion                          *inclusion // nil where the envelope is direct
}

const maxTime, maxCharacters, maxCharactersOfAny = 1 << 33, 5462, 9790

// limits returns the most bytes of an envelope and of its signature, by the algorithm that it claims (section 11).
func limits(algorithm *big.Int) (whole, signature int) {
	switch algorithm.String() {
	case "-48":
		return 6453, 2420
	case "-49":
		return 7342, 3309
	}
	return 4096, 128
}

var (
	decodeOptions = cbor.DecOptions{IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxNestedLevels: 6}
	encodeOptions = cbor.EncOptions{Sort: cbor.SortBytewiseLexical, NilContainers: cbor.NilContainerAsEmpty}
	decoder       = must(decodeOptions.DecMode())
	encoder       = must(encodeOptions.EncMode())
	nullEncoder   = must(cbor.EncOptions{}.EncMode()) // for bytes that may be absent
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func encode(value any) []byte { return must(encoder.Marshal(value)) }

// decode reads deterministic CBOR of the target's shape: exactly what the encoder writes for it.
func decode(raw []byte, target any) bool {
	return decoder.Unmarshal(raw, target) == nil && bytes.Equal(encode(target), raw)
}

// parse returns what stands in a header's value, or nil where that is malformed.
func parse(text []byte) *parsed {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	var outer envelope
	if err != nil || len(text) > maxCharactersOfAny || base64.RawURLEncoding.EncodeToString(raw) != string(text) ||
		!decode(raw, &outer) || outer.Version != 1 || outer.Proof.Payload != nil {
		return nil
	}
	p := &parsed{rawClaims: outer.Claims, rawProtected: outer.Proof.Protected, signature: outer.Proof.Signature}
	if !decode(p.rawClaims, &p.claims) || !p.claims.valid() || !decode(p.rawProtected, &p.protected) ||
		len(p.protected.KeyID) < 1 || len(p.protected.KeyID) > 128 {
		return nil
	}
	if whole, signature := limits(&p.protected.Algorithm); len(raw) > whole || len(p.signature) > signature {
		return nil
	}
	tree, found := p.protected.Tree, outer.Proof.Unprotected.Proofs
	if tree == nil && found == nil {
		return p
	}
	p.inclusion = &inclusion{}
	if tree == nil || *tree != 1 || found == nil || len(found.Inclusion) != 1 || !decode(found.Inclusion[0], p.inclusion) ||
		!p.inclusion.valid() {
		return nil
	}
	return p
}

func (c *Claims) valid() bool {
	ascending := slices.IsSortedFunc(c.Names, strings.Compare) && len(slices.Compact(slices.Clone(c.Names))) == len(c.Names)
	absentOr := func(raw []byte, size int) bool { return raw == nil || len(raw) == size }
	return isPrincipal(c.Issuer) && (c.Recipient == nil || isPrincipal(*c.Recipient)) && c.Channel != "" && len(c.ID) == 16 &&
		c.Issued < maxTime && (c.Expiry == nil || *c.Expiry < maxTime) && (c.Partition == nil || *c.Partition < 1<<31) &&
		ascending && len(c.Names) <= 1024 && !slices.ContainsFunc(c.Names, isEnvelope) && (c.Names == nil || c.Digest != nil) &&
		absentOr(c.Digest, 32) && absentOr(c.Request, 16) && absentOr(c.Value, 32)
}

func isEnvelope(name string) bool { return strings.EqualFold(name, "watchword") }

func isPrincipal(name string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, control) && strings.Trim(name, " ") == name
}

func hash(parts ...[]byte) []byte {
	sum := sha256.Sum256(bytes.Join(parts, nil))
	return sum[:]
}

func leaf(entry []byte) []byte { return hash([]byte{0}, entry) }

func node(left, right []byte) []byte { return hash([]byte{1}, left, right) }

// tree returns the root over some leaves, and the path from one of them to it (RFC 9162 section 2.1).
func tree(leaves [][]byte, index int) (root []byte, path [][]byte) {
	if len(leaves) == 1 {
		return leaves[0], nil
	}
	at := 1 << (bits.Len(uint(len(leaves)-1)) - 1)
	if index < at {
		left, path := tree(leaves[:at], index)
		right, _ := tree(leaves[at:], 0)
		return node(left, right), append(path, right)
	}
	left, _ := tree(leaves[:at], 0)
	right, path := tree(leaves[at:], index-at)
	return node(left, right), append(path, left)
}

func (i *inclusion) valid() bool {
	wrong := func(step []byte) bool { return len(step) != 32 }
	return i.Size >= 2 && i.Size <= 4096 && i.Index < i.Size && len(i.Path) >= 1 && len(i.Path) <= 12 &&
		!slices.ContainsFunc(i.Path, wrong)
}

// root returns what follows from the proof for an entry (RFC 9162 section 2.1.3.2), or nil where the proof does not fit.
func (i *inclusion) root(entry []byte) []byte {
	at, last, found := i.Index, i.Size-1, leaf(entry)
	for _, sibling := range i.Path {
		if last == 0 {
			return nil
		}
		if at%2 == 0 && at < last {
			found = node(found, sibling)
		} else {
			found = node(sibling, found)
			for ; at%2 == 0 && at != 0; at, last = at/2, last/2 {
			}
		}
		at, last = at/2, last/2
	}
	if last != 0 {
		return nil
	}
	return found
}
