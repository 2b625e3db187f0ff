package watchword

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// vector is one of tests/vectors/v1 (the README there says what the members mean).
type vector struct {
	Verifier
	Name         string
	Now          float64
	JWKs         json.RawMessage `json:"keys"`
	Messages     []*Message
	Verdicts     []Verdict
	EmptyHeaders int `json:"empty_headers"`
	Visible      [][]Header
}

func TestVectors(t *testing.T) {
	files, _ := filepath.Glob("../../tests/vectors/v1/*.json")
	count := 0
	for _, file := range files {
		var vectors []json.RawMessage
		if raw, err := os.ReadFile(file); err != nil || json.Unmarshal(raw, &vectors) != nil {
			t.Fatal(file, err)
		}
		for _, raw := range vectors {
			found := vector{Verifier: Verifier{Policy: Policy{MaxAge: 300, MaxSkew: 5}}}
			if err := json.Unmarshal(raw, &found); err != nil {
				t.Fatal(file, err)
			}
			count++
			t.Run(filepath.Base(file)+"/"+found.Name, found.run)
		}
	}
	if t.Logf("%d vectors", count); count == 0 {
		t.Fatal("no vectors")
	}
}

func TestKeySets(t *testing.T) {
	var sets []struct {
		Name, Text string
		Good       bool
	}
	count := 0
	for _, name := range []string{"keysets.json", "keysets_ml_dsa.json"} {
		if raw, err := os.ReadFile("../../tests/vectors/" + name); err != nil || json.Unmarshal(raw, &sets) != nil || len(sets) == 0 {
			t.Fatal(err)
		}
		for _, set := range sets {
			if _, err := ParseKeys([]byte(set.Text)); (err == nil) != set.Good {
				t.Errorf("%s: %v", set.Name, err)
			}
		}
		count += len(sets)
	}
	t.Logf("%d key sets", count)
}

func (v *vector) run(t *testing.T) {
	var err error
	if v.Keys, err = ParseKeys(v.JWKs); err != nil || len(v.Messages) != len(v.Verdicts) {
		t.Fatal(len(v.Messages), len(v.Verdicts), err)
	}
	var visible [][]Header
	for index, message := range v.Messages {
		message.Headers = append(slices.Repeat([]Header{{Value: []byte{}}}, v.EmptyHeaders), message.Headers...)
		found := v.Judge(message, v.Now)
		if found.Verdict == "verified" {
			visible = append(visible, found.Headers)
		}
		if found.Headers, found.ReplyTo = nil, ""; !reflect.DeepEqual(found, v.Verdicts[index]) {
			t.Errorf("message %d is %+v, not %+v", index, found, v.Verdicts[index])
		}
	}
	if v.Visible != nil && !reflect.DeepEqual(visible, v.Visible) {
		t.Errorf("visible are %v, not %v", visible, v.Visible)
	}
}
