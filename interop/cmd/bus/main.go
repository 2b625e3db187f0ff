// Command bus signs messages and sends them, or reads and judges them, on Kafka and core NATS.
//
//	bus send BROKER SETTINGS < messages    a JSON list: one message is signed by itself, several as one tree
//	bus read BROKER SETTINGS               prints "reading", then each message with its verdict
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kgo"

	"watchword.example/interop/watchword"
)

type settings struct {
	Principal, Private, Keys string  // who this is; files of the private key (PEM) and of the keys believed (JWK Set)
	KeyID                    string  `json:"key_id"`
	Recipient                *string // whom messages are meant for
	Channel                  string  // what is read: a subject, or partition 0 of a topic from its beginning
	Count                    int     // how many messages are read
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("bus send|read BROKER SETTINGS")
	}
	var s settings
	check(json.Unmarshal(must(os.ReadFile(os.Args[3])), &s))
	switch isNATS := strings.HasPrefix(os.Args[2], "nats://"); {
	case os.Args[1] == "send" && isNATS:
		publish(os.Args[2], s.signed())
	case os.Args[1] == "send":
		produce(os.Args[2], s.signed())
	case isNATS:
		subscribe(os.Args[2], s)
	default:
		consume(os.Args[2], s)
	}
}

func (s *settings) signed() []*watchword.Message {
	var messages []*watchword.Message
	check(json.NewDecoder(os.Stdin).Decode(&messages))
	block, _ := pem.Decode(must(os.ReadFile(s.Private)))
	key := must(x509.ParsePKCS8PrivateKey(block.Bytes)).(ed25519.PrivateKey)
	claims := watchword.Claims{Issuer: s.Principal, Issued: uint64(time.Now().Unix()), Recipient: s.Recipient}
	check((&watchword.Signer{KeyID: s.KeyID, Key: key}).Sign(messages, claims))
	return messages
}

// judge returns what judges a message and prints it; nothing is read before it is made.
func (s *settings) judge() func(*watchword.Message) {
	_, realm, _ := watchword.Place(s.Channel)
	verifier := &watchword.Verifier{Realm: realm, Principal: &s.Principal, Policy: watchword.Policy{MaxAge: 300, MaxSkew: 5},
		Keys: must(watchword.ParseKeys(must(os.ReadFile(s.Keys))))}
	fmt.Println("reading")
	return func(m *watchword.Message) {
		verdict := verifier.Judge(m, float64(time.Now().UnixMicro())/1e6)
		fmt.Println(string(must(json.Marshal(map[string]any{"verdict": verdict, "key": m.Key, "value": m.Value}))))
	}
}

func publish(broker string, messages []*watchword.Message) {
	client := must(nats.Connect(broker))
	for _, m := range messages {
		_, _, subject := watchword.Place(m.Channel)
		sent := &nats.Msg{Subject: subject, Data: m.Value, Header: nats.Header{}}
		if m.ReplyTo != nil {
			sent.Reply = *m.ReplyTo
		}
		for _, header := range m.Headers { // the client writes them in the order of their names
			sent.Header[header.Name] = []string{string(header.Value)}
		}
		check(client.PublishMsg(sent))
	}
	check(client.Flush())
}

func subscribe(broker string, s settings) {
	_, realm, subject := watchword.Place(s.Channel)
	client := must(nats.Connect(broker))
	subscription := must(client.SubscribeSync(subject))
	check(client.Flush())
	judge := s.judge()
	for range s.Count {
		got := must(subscription.NextMsg(time.Minute))
		m := &watchword.Message{Channel: "nats://" + realm + "/" + got.Subject, Value: append([]byte{}, got.Data...)}
		if got.Reply != "" {
			m.ReplyTo = &got.Reply
		}
		for _, name := range slices.Sorted(maps.Keys(got.Header)) { // the order in which they came is lost in the client
			for _, value := range got.Header[name] {
				m.Headers = append(m.Headers, watchword.Header{Name: name, Value: []byte(value)})
			}
		}
		judge(m)
	}
}

func produce(broker string, messages []*watchword.Message) {
	client := must(kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner())))
	records := []*kgo.Record{}
	for _, m := range messages {
		_, _, topic := watchword.Place(m.Channel)
		sent := &kgo.Record{Topic: topic, Partition: int32(*m.Partition), Key: m.Key, Value: m.Value}
		for _, header := range m.Headers {
			sent.Headers = append(sent.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		records = append(records, sent)
	}
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

func consume(broker string, s settings) {
	_, realm, topic := watchword.Place(s.Channel)
	start := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
	client := must(kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumePartitions(start)))
	judge := s.judge()
	for read := 0; read < s.Count; {
		for _, got := range client.PollFetches(context.Background()).Records() {
			at, partition, offset := float64(got.Timestamp.UnixMilli())/1e3, uint64(got.Partition), uint64(got.Offset)
			m := &watchword.Message{Channel: "kafka://" + realm + "/" + got.Topic, Partition: &partition, Offset: &offset,
				Key: got.Key, Value: got.Value}
			if got.Attrs.TimestampType() == 1 {
				m.AppendedAt = &at
			} else { // every look is dropped but the latest: that the record is there
				now := float64(time.Now().UnixMicro()) / 1e6
				m.CreatedAt, m.AppendedBetween = &at, []*float64{nil, &now}
			}
			for _, header := range got.Headers {
				m.Headers = append(m.Headers, watchword.Header{Name: header.Key, Value: header.Value})
			}
			judge(m)
			read++
		}
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
