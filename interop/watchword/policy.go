package watchword

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

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

// permission is check 9.
func (v *Verifier) permission(j *judged, first bool) string {
	channel, asked := j.Channel, false
	if j.request != nil {
		channel, asked = j.request.Channel, j.request.Recipient != nil
	}
	rule := slices.IndexFunc(v.Policy.Allow, func(rule Rule) bool {
		matching := func(pattern string) bool { return matches(pattern, channel) }
		return rule.Principal == j.claims.Issuer && slices.ContainsFunc(rule.Channels, matching)
	})
	if asked && *j.request.Recipient != j.claims.Issuer || !asked && rule < 0 && len(v.Policy.Allow) > 0 {
		return "not_permitted"
	}
	if rule >= 0 && first && !j.guard.spend(rule, v.Policy.Allow[rule].Rate, j.reference) {
		return "rate_limited"
	}
	if slices.Contains(v.Policy.Contained, j.claims.Issuer) {
		return "contained"
	}
	return ""
}

// matches compares a channel with a topic, or with a subject that may have wildcards.
func matches(pattern, channel string) bool {
	if strings.HasPrefix(pattern, "kafka://") {
		return pattern == channel
	}
	start := strings.LastIndex(pattern, "/") + 1
	tokens := strings.Split(pattern[start:], ".")
	for index, token := range tokens {
		if tokens[index] = regexp.QuoteMeta(token); token == "*" {
			tokens[index] = "[^.]+"
		} else if token == ">" && index == len(tokens)-1 {
			tokens[index] = ".+"
		}
	}
	return regexp.MustCompile("^" + regexp.QuoteMeta(pattern[:start]) + strings.Join(tokens, `\.`) + "$").MatchString(channel)
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
	if now > b.at {
		b.left, b.at = min(count*period, b.left+(now-b.at)*count), now
	}
	if b.left < period {
		return false
	}
	b.left -= period
	return true
}
