//! Runs the test vectors of the specification without Python: parsing of envelopes, signatures and digests.
//!
//! Python judges the claimed key, the place and the time. So here every envelope that passed check 2 has to be read, and
//! every one that is `malformed` by itself has to be refused. Signature and digests have to match if the message
//! verifies; if it is `altered`, the digests must not match.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use std::path::Path;
use watchword_native::cbor::{MAP, Span};
use watchword_native::envelope::{self, ED25519, Envelope};
use watchword_native::tree::{self, Place};
use watchword_native::verifies;

fn cases() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/v1");
    let files = std::fs::read_dir(&directory).expect("the vectors are in ../tests/vectors");
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let cases: Value = serde_json::from_str(&text).expect("JSON");
        found.extend(cases.as_array().expect("a list").iter().cloned());
    }
    assert!(found.len() > 280, "{} cases", found.len());
    found
}

/// Returns the values of a message's headers that have the envelope's name.
fn envelopes(message: &Value) -> Vec<Option<Vec<u8>>> {
    let headers = message["headers"].as_array().cloned().unwrap_or_default();
    let ours = |pair: &&Value| envelope::is_envelope_name(pair[0].as_str().expect("a name").as_bytes());
    let value = |pair: &Value| pair[1].as_str().map(|text| STANDARD.decode(text).expect("base64"));
    headers.iter().filter(ours).map(value).collect()
}

fn parsed(text: &[u8]) -> Option<(Vec<u8>, Envelope)> {
    let mut raw = Vec::new();
    let span = envelope::unarmor(text, &mut raw)?;
    assert_eq!(span, Span { start: 0, end: raw.len() });
    let one = envelope::parse(&raw)?;
    Some((raw, one))
}

fn root_of(raw: &[u8], one: &Envelope) -> Option<Vec<u8>> {
    let claims = one.claims.of(raw);
    if one.size == 0 {
        return Some(claims.to_vec());
    }
    let path: Vec<_> = envelope::path_of(one.path.of(raw)).copied().collect();
    let place = Place { index: one.index, hash: tree::leaf_of(claims), path: &path };
    tree::shared_root(vec![place], one.size).map(Vec::from)
}

/// Returns true if the Ed25519 key that the envelope names has signed it; `None` if there is no such key.
fn holds(case: &Value, raw: &[u8], one: &Envelope) -> Option<bool> {
    let keys = case["keys"]["keys"].as_array()?;
    let named = |key: &&Value| {
        key["kid"].as_str().map(str::as_bytes) == Some(one.key_id.of(raw))
            && key["principal"].as_str().map(str::as_bytes) == Some(one.issuer.of(raw))
    };
    let key = keys.iter().find(named).filter(|key| key["crv"] == "Ed25519")?;
    let public = URL_SAFE_NO_PAD.decode(key["x"].as_str()?).ok()?;
    let Some(root) = root_of(raw, one) else { return Some(false) };
    let data = envelope::to_be_signed(one.protected.of(raw), one.size, &root);
    Some(one.algorithm == ED25519 && verifies(&public, one.signature.of(raw), &data))
}

#[test]
fn a_message_that_verifies_is_read_and_its_signature_is_valid() {
    let (mut read, mut checked) = (0, 0);
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if verdict["verdict"] != "verified" {
                continue;
            }
            let found = envelopes(message);
            let text = found[0].as_ref().expect("an envelope");
            let (raw, one) = parsed(text).unwrap_or_else(|| panic!("{}: not read", case["name"]));
            assert_eq!(verdict["id"].as_str(), Some(hex(&one.id).as_str()), "{}", case["name"]);
            assert_eq!(verdict["principal"].as_str().map(str::as_bytes), Some(one.issuer.of(&raw)));
            read += 1;
            if let Some(holds) = holds(&case, &raw, &one) {
                assert!(holds, "{}: its signature is invalid", case["name"]);
                checked += 1;
            }
        }
    }
    assert!(read > 100 && checked > 80, "{read} read, {checked} checked");
}

#[test]
fn a_malformed_envelope_is_not_read() {
    let mut refused = 0;
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            let found = envelopes(message);
            if verdict["reason"] == "malformed" && found.len() == 1 {
                let is_read = found[0].as_ref().is_some_and(|text| parsed(text).is_some());
                // If only the other headers are too many or too large, the envelope itself is valid.
                let by_headers = case["name"].as_str().is_some_and(|name| name.contains("headers"));
                assert!(!is_read || by_headers, "{}: read", case["name"]);
                refused += 1;
            }
        }
    }
    assert!(refused > 80, "{refused}");
}

#[test]
fn every_envelope_that_passed_check_2_is_read() {
    let mut read = 0;
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if let Some("unsigned" | "malformed") = verdict["reason"].as_str() {
                continue;
            }
            let found = envelopes(message);
            assert_eq!(found.len(), 1, "{}", case["name"]);
            assert!(parsed(found[0].as_ref().expect("an envelope")).is_some(), "{}: not read", case["name"]);
            read += 1;
        }
    }
    assert!(read > 250, "{read}");
}

#[test]
fn an_unsigned_message_has_no_envelope() {
    let mut seen = 0;
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if verdict["reason"] == "unsigned" {
                assert!(envelopes(message).is_empty(), "{}: an envelope is found", case["name"]);
                seen += 1;
            }
        }
    }
    assert!(seen > 0);
}

/// Returns true if value, key and covered headers match the signed digests.
fn matches_digests(message: &Value, raw: &[u8], one: &Envelope) -> bool {
    let bytes = |value: &Value| value.as_str().map(|text| STANDARD.decode(text).expect("base64"));
    let value = bytes(&message["value"]).map(|value| tree::sha256(&[&value]));
    let covered = one.covered.map_or(Vec::new(), |list| envelope::names(list.of(raw)).expect("names"));
    let headers = message["headers"].as_array().expect("headers");
    let pairs: Vec<_> = headers.iter().filter(|pair| covered.contains(&pair[0].as_str().expect("a name"))).collect();
    let key = bytes(&message["key"]);
    let mut digested = Vec::new();
    envelope::write_metadata(&mut digested, key.as_deref(), pairs.len());
    for pair in pairs {
        envelope::write_pair(&mut digested, pair[0].as_str().expect("a name"), bytes(&pair[1]).as_deref());
    }
    let has_metadata = key.is_some() || !covered.is_empty();
    value == one.value && one.metadata == has_metadata.then(|| tree::sha256(&[&digested]))
}

#[test]
fn digests_match_if_a_message_verifies_and_not_if_it_is_altered() {
    let (mut same, mut others) = (0, 0);
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            let is_altered = verdict["reason"] == "altered";
            if verdict["verdict"] != "verified" && !is_altered {
                continue;
            }
            let (raw, one) = parsed(envelopes(message)[0].as_ref().expect("an envelope")).expect("it is read");
            // A record's timestamp and a stream's message id are compared with claims, not digested.
            let name = case["name"].as_str().expect("a name");
            if is_altered && (name.contains("timestamp") || name.contains("Nats-Msg-Id")) {
                continue;
            }
            assert_eq!(matches_digests(message, &raw, &one), !is_altered, "{name}");
            if is_altered { others += 1 } else { same += 1 }
        }
    }
    assert!(same > 100 && others > 15, "{same} match, {others} altered");
}

#[test]
fn a_bad_signature_is_refused() {
    let mut refused = 0;
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if verdict["reason"] != "bad_signature" {
                continue;
            }
            let found = envelopes(message);
            let (raw, one) = parsed(found[0].as_ref().expect("an envelope")).expect("it is read");
            if let Some(holds) = holds(&case, &raw, &one) {
                assert!(!holds, "{}: its signature is valid", case["name"]);
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn an_envelope_with_a_byte_more_or_less_is_not_read() {
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if verdict["verdict"] != "verified" {
                continue;
            }
            let (raw, _) = parsed(envelopes(message)[0].as_ref().expect("an envelope")).expect("it is read");
            for end in 0..raw.len() {
                assert!(envelope::parse(&raw[..end]).is_none(), "{}: read up to {end}", case["name"]);
            }
            let longer = [&raw[..], &[0]].concat();
            assert!(envelope::parse(&longer).is_none());
        }
    }
}

#[test]
fn an_envelope_with_another_number_of_fields_is_not_read() {
    for case in cases() {
        for (message, verdict) in pairs(&case) {
            if verdict["verdict"] != "verified" {
                continue;
            }
            let (raw, one) = parsed(envelopes(message)[0].as_ref().expect("an envelope")).expect("it is read");
            for at in [one.claims.start, one.protected.start] {
                for head in (0..24).map(|count| MAP | count).filter(|head| *head != raw[at]) {
                    let mut other = raw.clone();
                    other[at] = head;
                    assert!(envelope::parse(&other).is_none(), "{}: read with the head {head:#x}", case["name"]);
                }
            }
        }
    }
}

fn pairs(case: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let (messages, verdicts) = (case["messages"].as_array(), case["verdicts"].as_array());
    messages.expect("messages").iter().zip(verdicts.expect("verdicts"))
}

fn hex(raw: &[u8]) -> String {
    raw.iter().map(|byte| format!("{byte:02x}")).collect()
}
