package watchword

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"filippo.io/mldsa"
)

const edwards, elliptical = -19, -9

var lattices = map[string]int64{"ML-DSA-44": -48, "ML-DSA-65": -49}

var errKey = errors.New("a key set that must not be used")

// Key is a principal's public key; times are nil where the set names none.
type Key struct {
	Kty, Crv, X, Y, Alg, Pub, Principal string
	Kid                                 *string
	Use                                 json.RawMessage
	Operations                          json.RawMessage `json:"key_ops"`
	NotBefore                           *uint64         `json:"nbf"`
	Expiry                              *uint64         `json:"exp"`
	Revoked                             *uint64
	D, P, Q, DP, DQ, QI, Oth, K, Priv   json.RawMessage // private ones
	public                              interface{ Equal(crypto.PublicKey) bool }
}

// ParseKeys reads a JWK Set, or refuses it whole (section 10).
func ParseKeys(raw []byte) ([]*Key, error) {
	var set struct{ Keys []*Key }
	if json.Unmarshal(raw, &set) != nil || set.Keys == nil || !unique(json.NewDecoder(bytes.NewReader(raw))) {
		return nil, errKey
	}
	for index, key := range set.Keys {
		if err := key.load(); err != nil {
			return nil, err
		}
		for _, other := range set.Keys[:index] {
			owner := other.Principal == key.Principal
			if owner && *other.Kid == *key.Kid || !owner && other.public.Equal(key.public) {
				return nil, errKey
			}
		}
	}
	return set.Keys, nil
}

// unique reads one JSON value; it tells whether no name comes twice in an object.
func unique(values *json.Decoder) bool {
	start, _ := values.Token()
	if _, inside := start.(json.Delim); !inside {
		return true
	}
	for seen := map[json.Token]bool{}; values.More(); {
		if start == json.Delim('{') {
			name, _ := values.Token()
			if seen[name] {
				return false
			}
			seen[name] = true
		}
		if !unique(values) {
			return false
		}
	}
	_, err := values.Token()
	return err == nil
}

func (k *Key) load() (err error) {
	thumbprint := fmt.Sprintf(`{"crv":"%s","kty":"%s","x":"%s"}`, k.Crv, k.Kty, k.X)
	curve := k.Crv
	if k.Kty == "AKP" {
		curve, thumbprint = "", fmt.Sprintf(`{"alg":"%s","kty":"AKP","pub":"%s"}`, k.Alg, k.Pub)
	}
	switch k.Kty + " " + curve + " " + k.Alg {
	case "AKP  ML-DSA-44":
		k.public, err = latticeKey(mldsa.MLDSA44(), k.Pub)
	case "AKP  ML-DSA-65":
		k.public, err = latticeKey(mldsa.MLDSA65(), k.Pub)
	case "OKP Ed25519 ", "OKP Ed25519 Ed25519", "OKP Ed25519 EdDSA":
		k.public, err = edwardsKey(coordinate(k.X, 32))
	case "EC P-256 ", "EC P-256 ES256", "EC P-256 ESP256":
		k.public, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, coordinate(k.X, 32), coordinate(k.Y, 32)))
		thumbprint = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, k.X, k.Y)
	default:
		return errKey
	}
	if k.Kid == nil {
		id := base64.RawURLEncoding.EncodeToString(hash([]byte(thumbprint)))[:16]
		k.Kid = &id
	}
	var operations []string
	private := slices.Concat(k.D, k.P, k.Q, k.DP, k.DQ, k.QI, k.Oth, k.K, k.Priv)
	beyond := func(time *uint64) bool { return time != nil && *time >= maxTime }
	if private != nil || !isPrincipal(k.Principal) || len(*k.Kid) < 1 || len(*k.Kid) > 128 || beyond(k.NotBefore) ||
		beyond(k.Expiry) || beyond(k.Revoked) || k.Use != nil && string(k.Use) != `"sig"` ||
		k.Operations != nil && (json.Unmarshal(k.Operations, &operations) != nil || !slices.Contains(operations, "verify")) {
		return errKey
	}
	return err
}

// coordinate reads so many bytes of base64url, or returns nil, which is no coordinate.
func coordinate(text string, size int) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != size || base64.RawURLEncoding.EncodeToString(raw) != text {
		return nil
	}
	return raw
}

// edwardsKey refuses what is not the canonical encoding of a point, and points of order 1, 2, 4 and 8.
func edwardsKey(raw []byte) (ed25519.PublicKey, error) {
	number := slices.Clone(raw)
	slices.Reverse(number)
	if len(number) != 32 {
		return nil, errKey
	}
	number[0] &= 0x7f
	one, y := big.NewInt(1), new(big.Int).SetBytes(number)
	prime := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	times := func(a, b *big.Int) *big.Int { return new(big.Int).Mod(new(big.Int).Mul(a, b), prime) }
	d := times(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), prime))
	// The curve is -x^2 + y^2 = 1 + d x^2 y^2, so that x^2 = (y^2 - 1) / (d y^2 + 1); -1/d is no square.
	above, below := new(big.Int).Sub(times(y, y), one), new(big.Int).Add(times(d, times(y, y)), one)
	square := times(above, new(big.Int).ModInverse(below, prime))
	// The double of a point has y = 0, and so order 4, where x^2 + y^2 = 0.
	eighth := new(big.Int).Mod(new(big.Int).Add(square, times(y, y)), prime)
	if y.Cmp(prime) >= 0 || big.Jacobi(square, prime) < 0 || square.Sign() == 0 || y.Sign() == 0 || eighth.Sign() == 0 {
		return nil, errKey
	}
	return ed25519.PublicKey(raw), nil
}

// latticeKey refuses a key one of whose polynomials is close to 0, for then anyone could sign (section 10).
func latticeKey(set mldsa.Parameters, text string) (*mldsa.PublicKey, error) {
	raw := coordinate(text, set.PublicKeySize())
	for at := 32; at < len(raw); at += 320 {
		far := 0
		for bit := 0; bit < 2560; bit += 10 {
			number := (uint(raw[at+bit/8]) | uint(raw[at+bit/8+1])<<8) >> (bit % 8) & 1023
			if number >= 128 && number <= 895 {
				far++
			}
		}
		if far < 96 {
			return nil, errKey
		}
	}
	return mldsa.NewPublicKey(set, raw)
}

// find returns the key of a principal and id, or the reason why there is none.
func find(keys []*Key, principal string, id []byte) (*Key, string) {
	reason := "unknown_key"
	for _, key := range keys {
		if key.Principal == principal && *key.Kid == string(id) {
			return key, ""
		}
		if *key.Kid == string(id) {
			reason = "wrong_principal"
		}
	}
	return nil, reason
}

// valid returns the reason why the key does not hold at these times, if any.
func (k *Key) valid(reference, now float64) string {
	if k.NotBefore != nil && reference < float64(*k.NotBefore) || k.Expiry != nil && reference >= float64(*k.Expiry) {
		return "key_not_valid"
	}
	if k.Revoked != nil && now >= float64(*k.Revoked) {
		return "key_revoked"
	}
	return ""
}

// verify judges a signature by the key's own algorithm.
func (k *Key) verify(algorithm *big.Int, data, signature []byte) bool {
	if public, here := k.public.(*mldsa.PublicKey); here {
		return algorithm.Cmp(big.NewInt(lattices[k.Alg])) == 0 && mldsa.Verify(public, data, signature, nil) == nil
	}
	if len(signature) != 64 {
		return false
	}
	if public, here := k.public.(ed25519.PublicKey); here {
		// Without the cofactor: s is below L, and s B - k A has exactly the encoding R.
		return algorithm.Cmp(big.NewInt(edwards)) == 0 && ed25519.Verify(public, data, signature)
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	low := new(big.Int).Lsh(s, 1).Cmp(elliptic.P256().Params().N) <= 0
	return algorithm.Cmp(big.NewInt(elliptical)) == 0 && low && ecdsa.Verify(k.public.(*ecdsa.PublicKey), hash(data), r, s)
}
