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
	buckets      map[spender]*bucket
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
			map[string]float64{}, map[spender]*bucket{}}
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
	rule := v.Policy.holding(j.claims.Issuer, j.where)
	rated := func() bool {
		return rule >= 0 && !j.redelivered && v.Policy.Allow[rule].Rate != ""
	}
	switch {
	case j.recipient != nil && *j.recipient != j.claims.Issuer, j.recipient == nil && rule < 0 && len(v.Policy.Allow) > 0:
		return "not_permitted"
	case rated() && !j.spend(spender{rule, j.claims.Issuer}, v.Policy.Allow[rule].Rate, j.reference):
		return "rate_limited"
	case slices.ContainsFunc(v.Policy.Contained, func(pattern string) bool { return names(pattern, j.claims.Issuer) }):
		return "contained"
	}
	return ""
}

// holding returns the index of the rule that holds: of those that match the one that says most, or else stands first.
func (p *Policy) holding(principal, channel string) int {
	best, least := -1, []int(nil)
	for index, rule := range p.Allow {
		if !names(rule.Principal, principal) {
			continue
		}
		for _, uri := range rule.Channels {
			said := append(append(vague(strings.Split(rule.Principal, "/"), "**"), -1), vagueness(uri)...)
			if matches(uri, channel) && (best < 0 || slices.Compare(said, least) < 0) {
				best, least = index, said
			}
		}
	}
	return best
}

// vague says for each token how little it says: a name 0, one token 1, the rest 2.
func vague(tokens []string, rest string) []int {
	var found []int
	for _, token := range tokens {
		switch token {
		case "*":
			found = append(found, 1)
		case rest:
			found = append(found, 2)
		default:
			found = append(found, 0)
		}
	}
	return found
}

// vagueness orders patterns that match one channel, the one that says most first.
func vagueness(uri string) []int {
	if strings.HasPrefix(uri, "nats://") {
		return vague(strings.Split(strings.SplitN(uri, "/", 4)[3], "."), ">")
	}
	if strings.HasSuffix(uri, "*") {
		return []int{1, -len(uri)}
	}
	return []int{0}
}

// names compares a principal with one that may have wildcards.
func names(pattern, principal string) bool {
	return match(strings.Split(pattern, "/"), strings.Split(principal, "/"), "**")
}

// matches compares a channel with a topic or its beginning, or with a subject that may have wildcards.
func matches(pattern, channel string) bool {
	if !strings.HasPrefix(pattern, "nats://") {
		begin, wild := strings.CutSuffix(pattern, "*")
		return pattern == channel || wild && strings.HasPrefix(channel, begin)
	}
	tokens := func(uri string) []string { return strings.Split(strings.Replace(uri, "/", "/.", 3), ".") }
	return match(tokens(pattern), tokens(channel), ">")
}

// match compares tokens: "*" stands for one, and the last one may stand for the rest.
func match(wanted, found []string, rest string) bool {
	for index, token := range wanted {
		if token == rest && index == len(wanted)-1 {
			return len(found) > index
		} else if index >= len(found) || token != found[index] && token != "*" {
			return false
		}
	}
	return len(wanted) == len(found)
}

// spender has a bucket in each log: a principal, under one rule.
type spender struct {
	rule      int
	principal string
}

// bucket holds what is left of a rate, in tokens times the period, so that nothing is lost to rounding.
type bucket struct{ left, at float64 }

// spend takes one token of a rate, if there is one.
func (g *guard) spend(who spender, rate string, now float64) bool {
	var count float64
	var unit string
	fmt.Sscanf(rate, "%g/%s", &count, &unit)
	period := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	if g.buckets[who] == nil {
		g.buckets[who] = &bucket{count * period, now}
	}
	b := g.buckets[who]
	b.left = min(count*period, b.left+max(0, now-b.at)*count)
	b.at = max(b.at, now)
	if period == 0 || b.left < period {
		return false
	}
	b.left -= period
	return true
}
