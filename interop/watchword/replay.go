package watchword

import (
	"fmt"
	"math"
)

// guard is the memory of one log, for one run (section 9). It has no start, is neither rebuilt nor handed on, and lets
// nothing go: what is below a floor is stale before it is looked up.
type guard struct {
	logTime      float64
	admitted     map[id]position
	undetermined map[string]position   // by the claims' bytes
	latest       map[string]float64    // a principal's highest iat, where append times lie in intervals
	raised       map[[2]string]float64 // floors by principal and key id: the least iat above them
	buckets      map[int]*bucket
}

type id struct {
	principal, cti string
	issued         float64
}

// position is where a broker put which claims, if it said so.
type position struct {
	claims     string
	known      bool
	offset     uint64
	appendedAt float64
}

func (v *Verifier) guardOf(message *Message) *guard {
	log := message.Channel
	if message.isKafka() && message.Partition != nil {
		log += fmt.Sprintf(" %d", *message.Partition)
	}
	if v.guards == nil {
		v.guards = map[string]*guard{}
	}
	if v.guards[log] == nil {
		v.guards[log] = &guard{math.Inf(-1), map[id]position{}, map[string]position{}, map[string]float64{},
			map[[2]string]float64{}, map[int]*bucket{}}
	}
	return v.guards[log]
}

func (j *judged) id() id { return id{j.claims.Issuer, string(j.claims.ID), j.issued} }

func (j *judged) signedBy() [2]string { return [2]string{j.claims.Issuer, string(j.protected.KeyID)} }

func (j *judged) position() position {
	found := position{claims: string(j.rawClaims)}
	if j.Offset != nil {
		found.known, found.offset = true, *j.Offset
	}
	if j.AppendedAt != nil {
		found.appendedAt = *j.AppendedAt
	}
	return found
}

// floor returns the higher of the log's floor and a principal's own.
func (v *Verifier) floor(g *guard, principal string) float64 {
	return max(g.logTime, g.latest[principal]) - v.Policy.window()
}

// claim is check 8, in the order of its steps; it tells a redelivery, or gives the reason.
func (v *Verifier) claim(j *judged) (redelivered bool, reason string) {
	g, here := j.guard, j.position()
	g.logTime = max(g.logTime, j.earliest)
	if j.issued < v.floor(g, j.claims.Issuer) {
		return false, "stale"
	}
	if before, known := g.admitted[j.id()]; known && here.known && before == here {
		return true, ""
	} else if known {
		return false, "replayed"
	}
	before, undetermined := g.undetermined[here.claims]
	if undetermined && (!here.known || before != here) {
		return false, "replayed"
	}
	if j.bounded() {
		g.latest[j.claims.Issuer] = max(g.latest[j.claims.Issuer], j.issued)
	}
	held := 0
	for known := range g.admitted {
		if known.principal == j.claims.Issuer && known.issued >= v.floor(g, known.principal) {
			held++
		}
	}
	if v.Room > 0 && held >= v.Room {
		g.raised[j.signedBy()] = max(g.raised[j.signedBy()], j.issued+1)
		return false, "over_quota"
	}
	if j.issued < g.raised[j.signedBy()] && !undetermined {
		return false, "stale"
	}
	g.admitted[j.id()] = here
	return false, ""
}

// hold remembers what is undetermined, and where it stood.
func (v *Verifier) hold(j *judged) {
	here := j.position()
	_, known := j.guard.admitted[j.id()]
	_, undetermined := j.guard.undetermined[here.claims]
	if !known && !undetermined && j.issued >= max(v.floor(j.guard, j.claims.Issuer), j.guard.raised[j.signedBy()]) {
		j.guard.undetermined[here.claims] = here
	}
}
