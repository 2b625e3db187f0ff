// Package watchword verifies and signs messages by docs/spec.md, wire format version 1.
package watchword

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

const (
	maxEnvelope   = 4096
	maxCharacters = 5462
	maxTime       = 1 << 33
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
		Unprotected unprotected
		Payload     *uint64
		Signature   []byte
	}
	protected struct {
		Algorithm big.Int `cbor:"1,keyasint"`
		KeyID     []byte  `cbor:"4,keyasint"`
		Tree      *uint64 `cbor:"395,keyasint,omitempty"`
	}
	unprotected struct {
		Proofs *proofs `cbor:"396,keyasint,omitempty"`
	}
	proofs struct {
		Inclusion [][]byte `cbor:"-1,keyasint"`
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

var (
	errMalformed  = errors.New("malformed")
	decodeOptions = cbor.DecOptions{IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxNestedLevels: 6}
	encodeOptions = cbor.EncOptions{Sort: cbor.SortBytewiseLexical, NilContainers: cbor.NilContainerAsEmpty}
	decoder, _    = decodeOptions.DecMode()
	encoder, _    = encodeOptions.EncMode()
)

func encode(value any) []byte {
	raw, err := encoder.Marshal(value)
	if err != nil {
		panic(err) // no value of ours is beyond CBOR
	}
	return raw
}

// decode reads deterministic CBOR of the target's shape: exactly what the encoder writes for it.
func decode(raw []byte, target any) error {
	if decoder.Unmarshal(raw, target) != nil || !bytes.Equal(encode(target), raw) {
		return errMalformed
	}
	return nil
}

// parsed is an envelope with its parts read, beside the bytes that were signed.
type parsed struct {
	claims                             Claims
	protected                          protected
	rawClaims, rawProtected, signature []byte
	inclusion                          *inclusion // nil where the envelope is direct
}

func parse(text []byte) (*parsed, error) {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(text) > maxCharacters || base64.RawURLEncoding.EncodeToString(raw) != string(text) {
		return nil, errMalformed
	}
	var outer envelope
	if decode(raw, &outer) != nil || outer.Version != 1 || outer.Proof.Payload != nil || len(outer.Proof.Signature) > 128 {
		return nil, errMalformed
	}
	p := &parsed{rawClaims: outer.Claims, rawProtected: outer.Proof.Protected, signature: outer.Proof.Signature}
	if decode(p.rawClaims, &p.claims) != nil || decode(p.rawProtected, &p.protected) != nil || !p.claims.valid() ||
		!sized(p.protected.KeyID, 1, 128) {
		return nil, errMalformed
	}
	found := outer.Proof.Unprotected.Proofs
	if (found == nil) != (p.protected.Tree == nil) {
		return nil, errMalformed
	}
	if found != nil {
		p.inclusion = &inclusion{}
		if *p.protected.Tree != 1 || len(found.Inclusion) != 1 || decode(found.Inclusion[0], p.inclusion) != nil ||
			!p.inclusion.valid() {
			return nil, errMalformed
		}
	}
	return p, nil
}

func (c *Claims) valid() bool {
	for index, name := range c.Names {
		if isEnvelope(name) || index > 0 && c.Names[index-1] >= name {
			return false
		}
	}
	return isPrincipal(c.Issuer) && (c.Recipient == nil || isPrincipal(*c.Recipient)) && c.Channel != "" &&
		c.Issued < maxTime && (c.Expiry == nil || *c.Expiry < maxTime) && (c.Partition == nil || *c.Partition < 1<<31) &&
		len(c.Names) <= maxHeaders && (c.Names == nil || c.Digest != nil) && len(c.ID) == 16 &&
		absentOr(c.Digest, 32) && absentOr(c.Request, 16) && absentOr(c.Value, 32)
}

func absentOr(raw []byte, size int) bool { return raw == nil || len(raw) == size }

func sized(raw []byte, least, most int) bool { return len(raw) >= least && len(raw) <= most }

func isEnvelope(name string) bool { return strings.EqualFold(name, "watchword") }

func isPrincipal(name string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return sized([]byte(name), 1, 255) && !strings.ContainsFunc(name, control) && strings.Trim(name, " ") == name
}
