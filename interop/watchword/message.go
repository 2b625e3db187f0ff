package watchword

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

const maxHeaders = 1024

// Header is one header of a message; its value is nil where it is null.
type Header struct {
	Name  string
	Value []byte
}

// Message is one in the JSON of section 12. What is nil is absent.
type Message struct {
	Channel     string     `json:"channel"`
	Partition   *uint64    `json:"partition"`
	Offset      *uint64    `json:"offset"`
	AppendedAt  *float64   `json:"appended_at"`
	Between     []*float64 `json:"appended_between"`
	CreatedAt   *float64   `json:"created_at"`
	DeliveredBy *[2]string `json:"delivered_by"`
	Key         []byte     `json:"key"`
	Value       []byte     `json:"value"`
	Headers     []Header   `json:"headers"`
	ReplyTo     *string    `json:"reply_to"`
}

// UnmarshalJSON reads [name, value or null].
func (h *Header) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&h.Name, &h.Value})
}

// MarshalJSON writes it so.
func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

// place returns what the parts of the channel's URI are.
func (m *Message) place() (bus, realm, name string) {
	bus, rest, _ := strings.Cut(m.Channel, "://")
	realm, name, _ = strings.Cut(rest, "/")
	return bus, realm, name
}

func (m *Message) isKafka() bool { return strings.HasPrefix(m.Channel, "kafka://") }

// bounded tells whether the append time is known by the reader's looks only.
func (m *Message) bounded() bool { return m.AppendedAt == nil && len(m.Between) == 2 }

// appended returns the interval in which the bus took the message.
func (m *Message) appended(now float64) (earliest, latest float64) {
	switch {
	case m.AppendedAt != nil:
		return *m.AppendedAt, *m.AppendedAt
	case m.bounded() && m.Between[0] == nil:
		return math.Inf(-1), *m.Between[1]
	case m.bounded():
		return *m.Between[0], *m.Between[1]
	}
	return now, now
}

// size counts the bytes of names and values of all headers.
func (m *Message) size() (size int) {
	for _, header := range m.Headers {
		size += len(header.Name) + len(header.Value)
	}
	return size
}

// digests returns the claims v and m for a message whose covered names are given.
func (m *Message) digests(names []string) (value, digest []byte) {
	if m.Value != nil {
		value = hash(m.Value)
	}
	if m.Key == nil && len(names) == 0 {
		return value, nil
	}
	pairs := [][2]any{}
	for _, header := range m.Headers {
		if slices.Contains(names, header.Name) {
			pairs = append(pairs, [2]any{header.Name, orNull(header.Value)})
		}
	}
	return value, hash(encode([]any{orNull(m.Key), pairs}))
}

func orNull(raw []byte) any {
	if raw == nil {
		return nil
	}
	return raw
}

// isTracing tells the headers that may be added on the way.
func isTracing(name string) bool { return name == "traceparent" || name == "tracestate" }
