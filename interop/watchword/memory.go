package watchword

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// guard is the memory of one log, for one run (section 9). It has no start, is neither rebuilt nor handed on, and lets
// nothing go: what is below a floor is stale before it is looked up.
type guard struct {
	logTime      float64
	admitted     map[identity]string // the place of each id
	undetermined map[string]string   // places by the claims' bytes
	latest       map[string]float64  // a principal's highest iat, where append times lie in intervals
	raised       map[string]float64  // floors by principal and key id: the least iat above them
	buckets      map[int]*bucket     // by rule
}

type identity struct {
	principal, id string
	issued        float64
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
		v.guards[log] = &guard{math.Inf(-1), map[identity]string{}, map[string]string{}, map[string]float64{},
			map[string]float64{}, map[int]*bucket{}}
	}
	return v.guards[log]
}

func (j *judged) identity() identity { return identity{j.claims.Issuer, j.id, j.issued} }

func (j *judged) signedBy() string { return j.claims.Issuer + "\x00" + string(j.protected.KeyID) }

// floor returns the higher of the log's floor and a principal's own.
func (v *Verifier) floor(g *guard, principal string) float64 {
	return max(g.logTime, g.latest[principal]) - v.Policy.window()
}

// claim is check 8, in the order of its steps.
func (v *Verifier) claim(j *judged) string {
	principal := j.claims.Issuer
	j.logTime = max(j.logTime, j.earliest)
	known, admitted := j.admitted[j.identity()]
	seen, undetermined := j.undetermined[string(j.rawClaims)]
	j.redelivered = admitted && j.place != "" && known == j.place
	switch {
	case j.issued < v.floor(j.guard, principal):
		return "stale"
	case j.redelivered:
		return ""
	case admitted, undetermined && (j.place == "" || seen != j.place):
		return "replayed"
	}
	if j.bounded() {
		j.guard.latest[principal] = max(j.guard.latest[principal], j.issued)
	}
	held := 0
	for one := range j.admitted {
		if one.principal == principal && one.issued >= v.floor(j.guard, principal) {
			held++
		}
	}
	switch {
	case v.Room > 0 && held >= v.Room:
		j.raised[j.signedBy()] = max(j.raised[j.signedBy()], j.issued+1)
		return "over_quota"
	case j.issued < j.raised[j.signedBy()] && !undetermined:
		return "stale"
	}
	j.admitted[j.identity()] = j.place
	return ""
}

// hold remembers what is undetermined, and where it stood.
func (v *Verifier) hold(j *judged) {
	_, admitted := j.admitted[j.identity()]
	_, undetermined := j.undetermined[string(j.rawClaims)]
	if !admitted && !undetermined && j.issued >= max(v.floor(j.guard, j.claims.Issuer), j.raised[j.signedBy()]) {
		j.undetermined[string(j.rawClaims)] = j.place
	}
}

// Policy is who may speak where, and how old a message may be.
type Policy struct {
	MaxAge    float64 `json:"max_age"`
	MaxSkew   float64 `json:"max_skew"`
	Contained []string
	Allow     []Rule
}

// Rule lets a principal speak on channels, maybe at a rate such as "2/m".
type Rule struct {
	Principal string
	Channels  []string
	Rate      string
}

func (p *Policy) window() float64 { return p.MaxAge + p.MaxSkew }

// permission is check 9. An answer is judged by the request: by whom that was for, or by where it went.
func (v *Verifier) permission(j *judged) string {
	rule := slices.IndexFunc(v.Policy.Allow, func(rule Rule) bool {
		matching := func(pattern string) bool { return matches(pattern, j.where) }
		return rule.Principal == j.claims.Issuer && slices.ContainsFunc(rule.Channels, matching)
	})
	switch {
	case j.recipient != nil && *j.recipient != j.claims.Issuer, j.recipient == nil && rule < 0 && len(v.Policy.Allow) > 0:
		return "not_permitted"
	case rule >= 0 && !j.redelivered && !j.spend(rule, v.Policy.Allow[rule].Rate, j.reference):
		return "rate_limited"
	case slices.Contains(v.Policy.Contained, j.claims.Issuer):
		return "contained"
	}
	return ""
}

// matches compares a channel with a topic, or with a subject that may have wildcards.
func matches(pattern, channel string) bool {
	tokens := func(uri string) []string { return strings.Split(strings.Replace(uri, "/", "/.", 3), ".") }
	wanted, found := tokens(pattern), tokens(channel)
	for index, token := range wanted {
		if wild := strings.HasPrefix(pattern, "nats://"); wild && token == ">" && index == len(wanted)-1 {
			return len(found) > index
		} else if index >= len(found) || token != found[index] && !(wild && token == "*") {
			return false
		}
	}
	return len(wanted) == len(found)
}

// bucket holds what is left of a rate, in tokens times the period, so that nothing is lost to rounding.
type bucket struct{ left, at float64 }

// spend takes one token of a rule's rate, if there is one.
func (g *guard) spend(rule int, rate string, now float64) bool {
	if rate == "" {
		return true
	}
	var count float64
	var unit string
	fmt.Sscanf(rate, "%g/%s", &count, &unit)
	period := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	if g.buckets[rule] == nil {
		g.buckets[rule] = &bucket{count * period, now}
	}
	b := g.buckets[rule]
	b.left = min(count*period, b.left+max(0, now-b.at)*count)
	b.at = max(b.at, now)
	if period == 0 || b.left < period {
		return false
	}
	b.left -= period
	return true
}
