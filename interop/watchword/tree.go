package watchword

import (
	"crypto/sha256"
	"math/bits"
)

func leaf(entry []byte) []byte { return hash([]byte{0}, entry) }

func node(left, right []byte) []byte { return hash([]byte{1}, left, right) }

func hash(parts ...[]byte) []byte {
	sum := sha256.New()
	for _, part := range parts {
		sum.Write(part)
	}
	return sum.Sum(nil)
}

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
	for _, step := range i.Path {
		if len(step) != 32 {
			return false
		}
	}
	return i.Size >= 2 && i.Size <= 4096 && i.Index < i.Size && len(i.Path) >= 1 && len(i.Path) <= 12
}

// root returns what follows from the proof for an entry (RFC 9162 section 2.1.3.2), or nil where the proof does not fit.
func (i *inclusion) root(entry []byte) []byte {
	at, last, found := i.Index, i.Size-1, leaf(entry)
	for _, sibling := range i.Path {
		if last == 0 {
			return nil
		}
		if at&1 == 1 || at == last {
			found = node(sibling, found)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			found = node(found, sibling)
		}
		at, last = at>>1, last>>1
	}
	if last != 0 {
		return nil
	}
	return found
}
