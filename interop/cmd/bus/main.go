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
	"time"

	"github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kgo"

	"watchword.example/interop/watchword"
)

type settings struct {
	Channel                  string  // one subject, or partition 0 of a topic, which is read from its beginning
	Principal, Private, Keys string  // who this is; files of the private key (PEM) and of the keys believed (JWK Set)
	KeyID                    string  `json:"key_id"`
	Recipient                *string // whom messages are meant for
	Count                    int     // how many messages are read
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("bus send|read BROKER SETTINGS")
	}
	var s settings
	check(json.Unmarshal(must(os.ReadFile(os.Args[3])), &s))
	bus, realm, name := watchword.Place(s.Channel)
	send, receive := map[string]func(string, string) (func(*watchword.Message), func() *watchword.Message){
		"kafka": kafka, "nats": core}[bus](os.Args[2], name)
	if os.Args[1] == "send" {
		for _, message := range s.signed() {
			send(message)
		}
		return
	}
	verifier := &watchword.Verifier{Realm: realm, Principal: &s.Principal, Policy: watchword.Policy{MaxAge: 300, MaxSkew: 5},
		Keys: must(watchword.ParseKeys(must(os.ReadFile(s.Keys))))}
	fmt.Println("reading")
	for range s.Count {
		m := receive()
		m.Channel = s.Channel
		verdict := verifier.Judge(m, now())
		fmt.Println(string(must(json.Marshal(map[string]any{"verdict": verdict, "key": m.Key, "value": m.Value}))))
	}
}

func (s *settings) signed() (messages []*watchword.Message) {
	check(json.NewDecoder(os.Stdin).Decode(&messages))
	block, _ := pem.Decode(must(os.ReadFile(s.Private)))
	key := must(x509.ParsePKCS8PrivateKey(block.Bytes)).(ed25519.PrivateKey)
	claims := watchword.Claims{Issuer: s.Principal, Issued: uint64(now()), Recipient: s.Recipient}
	check((&watchword.Signer{KeyID: s.KeyID, Key: key}).Sign(messages, claims))
	return messages
}

func core(broker, subject string) (func(*watchword.Message), func() *watchword.Message) {
	client := must(nats.Connect(broker))
	subscription := must(client.SubscribeSync(subject))
	check(client.Flush())
	send := func(m *watchword.Message) {
		sent := &nats.Msg{Subject: subject, Data: m.Value, Header: nats.Header{}}
		if m.ReplyTo != nil {
			sent.Reply = *m.ReplyTo
		}
		for _, header := range m.Headers { // the client writes them in the order of their names
			sent.Header[header.Name] = []string{string(header.Value)}
		}
		check(client.PublishMsg(sent))
		check(client.Flush())
	}
	return send, func() *watchword.Message {
		got := must(subscription.NextMsg(time.Minute))
		m := &watchword.Message{Value: append([]byte{}, got.Data...)}
		if got.Reply != "" {
			m.ReplyTo = &got.Reply
		}
		for _, name := range slices.Sorted(maps.Keys(got.Header)) { // the order in which they came is lost in the client
			for _, value := range got.Header[name] {
				m.Headers = append(m.Headers, watchword.Header{Name: name, Value: []byte(value)})
			}
		}
		return m
	}
}

func kafka(broker, topic string) (func(*watchword.Message), func() *watchword.Message) {
	client := must(kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}})))
	send := func(m *watchword.Message) {
		sent := &kgo.Record{Topic: topic, Partition: int32(*m.Partition), Key: m.Key, Value: m.Value}
		for _, header := range m.Headers {
			sent.Headers = append(sent.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		check(client.ProduceSync(context.Background(), sent).FirstErr())
	}
	return send, func() *watchword.Message {
		fetched := client.PollRecords(context.Background(), 1)
		check(fetched.Err())
		got, present := fetched.Records()[0], now()
		at, partition, offset := float64(got.Timestamp.UnixMilli())/1e3, uint64(got.Partition), uint64(got.Offset)
		m := &watchword.Message{Partition: &partition, Offset: &offset, Key: got.Key, Value: got.Value}
		if got.Attrs.TimestampType() == 1 {
			m.AppendedAt = &at
		} else { // every look is dropped but the latest, which shows that the record is there
			m.CreatedAt, m.AppendedBetween = &at, []*float64{nil, &present}
		}
		for _, header := range got.Headers {
			m.Headers = append(m.Headers, watchword.Header{Name: header.Key, Value: header.Value})
		}
		return m
	}
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
