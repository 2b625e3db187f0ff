//! The envelope, version 1 (`docs/spec.md`, sections 2 to 6): a strict reader, and the bytes to sign.
//!
//! `None` means that these bytes are not an envelope; the Python engine says why.

use crate::cbor::{ARRAY, MAP, NULL, Reader, Span, TEXT, UINT, write_bytes, write_head, write_text};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub const MAX_CHARACTERS: usize = (limits(ML_DSA_65).0 * 4).div_ceil(3); // of any algorithm
pub const ED25519: i128 = -19;
pub const ML_DSA_44: i128 = -48;
pub const ML_DSA_65: i128 = -49;
pub const HEADER: &str = "watchword";

const MAX_HEADERS: u64 = 1024;
const MAX_SHORT: usize = 128; // bytes of a key id, and of most signatures
const BESIDE_SIGNATURE: usize = 4030;
const MAX_PRINCIPAL: usize = 255;
const MAX_PATH: usize = 12;
const NODE: usize = 34;
const TREE_SIZES: std::ops::RangeInclusive<u64> = 2..=4096;
const TIME_LIMIT: u64 = 1 << 33;
const PARTITION_LIMIT: u64 = 1 << 31;

const HASH: [u8; 2] = [0x58, 32];
const ID: [u8; 1] = [0x50];
const TREE: [u8; 4] = [0x19, 0x01, 0x8b, 0x01];
pub const INCLUSION: [u8; 7] = [0xa1, 0x19, 0x01, 0x8c, 0xa1, 0x20, 0x81];
const CONTEXT: &str = "watchword/1";

/// A parsed envelope; spans are ranges of its bytes.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub claims: Span,
    pub issuer: Span,
    pub recipient: Option<Span>,
    pub expires_at: Option<u64>,
    pub issued_at: u64,
    pub id: [u8; 16],
    pub channel: Span,
    /// The encoded list of covered header names in the claims.
    pub covered: Option<Span>,
    pub metadata: Option<[u8; 32]>,
    pub partition: Option<u64>,
    pub request: Option<[u8; 16]>,
    pub reply_to: Option<Span>,
    pub value: Option<[u8; 32]>,
    pub protected: Span,
    pub algorithm: i128,
    pub key_id: Span,
    /// Leaves of the tree; 0 for a direct signature.
    pub size: u64,
    pub index: u64,
    /// The nodes of the path, each after a two-byte CBOR head.
    pub path: Span,
    pub signature: Span,
    /// Three parts of the claims that are the same in all messages of one sender on one channel.
    pub common: [Span; 3],
}

impl Envelope {
    /// Returns bytes that are the same for all envelopes of one sender on one channel, and differ for all others.
    pub fn identity(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        for part in self.common.iter().chain([&self.protected]) {
            write_part(&mut out, part.of(raw));
        }
        out
    }
}

/// Writes a part with its length, so that parts cannot be mistaken for one another.
pub fn write_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

/// Appends decoded base64url without padding (RFC 4648 section 5) to `out`; each byte sequence has only one text.
pub fn unarmor(text: &[u8], out: &mut Vec<u8>) -> Option<Span> {
    if text.len() > MAX_CHARACTERS {
        return None;
    }
    let start = out.len();
    URL_SAFE_NO_PAD.decode_vec(text, out).ok()?;
    Some(Span { start, end: out.len() })
}

/// Returns the maximum sizes, in bytes, of an envelope and of its signature, by the algorithm that it claims.
const fn limits(algorithm: i128) -> (usize, usize) {
    match algorithm {
        ML_DSA_44 => (BESIDE_SIGNATURE + 3 + 2420, 2420),
        ML_DSA_65 => (BESIDE_SIGNATURE + 3 + 3309, 3309),
        _ => (BESIDE_SIGNATURE + 2 + 64, MAX_SHORT),
    }
}

/// Parses one envelope, which must be all of `raw`; `None` if it is invalid.
pub fn parse(raw: &[u8]) -> Option<Envelope> {
    let mut reader = Reader::new(raw, 0);
    reader.expect(&[ARRAY | 3, 1])?;
    let claims = reader.bytes()?;
    reader.expect(&[ARRAY | 4])?;
    let protected = reader.bytes()?;
    let (algorithm, key_id, batched) = parse_protected(raw, protected)?;
    let (most, longest) = limits(algorithm);
    if raw.len() > most {
        return None;
    }
    let (mut size, mut index, mut path) = (0, 0, Span { start: 0, end: 0 });
    if batched {
        reader.expect(&INCLUSION)?;
        let proof = reader.bytes()?;
        (size, index, path) = parse_inclusion(raw, proof)?;
    } else {
        reader.expect(&[MAP])?;
    }
    reader.expect(&[NULL])?;
    let signature = reader.bytes()?;
    if !reader.is_done() || signature.end - signature.start > longest {
        return None;
    }
    let mut envelope = parse_claims(raw, claims)?;
    envelope.protected = protected;
    envelope.algorithm = algorithm;
    envelope.key_id = key_id;
    envelope.size = size;
    envelope.index = index;
    envelope.path = path;
    envelope.signature = signature;
    Some(envelope)
}

/// Parses the claims; their order is fixed, so a repeated or unknown claim is refused.
fn parse_claims(raw: &[u8], claims: Span) -> Option<Envelope> {
    let data = &raw[..claims.end];
    let mut reader = Reader::new(data, claims.start);
    let count = reader.head(MAP)?;
    let mut found = 4;
    let first = reader.at;
    reader.expect(&[1])?;
    let issuer = reader.text()?;
    if !is_principal(issuer.of(raw)) {
        return None;
    }
    let mut recipient = None;
    if reader.sees(&[3]) {
        found += 1;
        reader.at += 1;
        recipient = Some(reader.text()?).filter(|span| is_principal(span.of(raw)));
        recipient?;
    }
    let mut expires_at = None;
    if reader.sees(&[4]) {
        found += 1;
        reader.at += 1;
        expires_at = Some(reader.below(TIME_LIMIT)?);
    }
    let before_time = reader.at;
    reader.expect(&[6])?;
    let issued_at = reader.below(TIME_LIMIT)?;
    reader.expect(&[7])?;
    reader.expect(&ID)?;
    let id = reader.array()?;
    let behind_id = reader.at;
    reader.expect(b"\x61c")?;
    let channel = reader.text().filter(|span| span.start < span.end)?;
    let mut covered = None;
    if reader.sees(b"\x61h") {
        found += 1;
        reader.at += 2;
        covered = Some(parse_names(data, &mut reader)?);
    }
    let before_metadata = reader.at;
    let mut metadata = None;
    if reader.sees(b"\x61m\x58\x20") {
        found += 1;
        reader.at += 4;
        metadata = Some(reader.array()?);
    } else if covered.is_some() {
        return None;
    }
    let behind_metadata = reader.at;
    let mut partition = None;
    if reader.sees(b"\x61p") {
        found += 1;
        reader.at += 2;
        partition = Some(reader.below(PARTITION_LIMIT)?);
    }
    let mut request = None;
    if reader.sees(b"\x61q\x50") {
        found += 1;
        reader.at += 3;
        request = Some(reader.array()?);
    }
    let mut reply_to = None;
    if reader.sees(b"\x61r") {
        found += 1;
        reader.at += 2;
        reply_to = Some(reader.text().filter(|span| span.start < span.end)?);
    }
    let before_value = reader.at;
    let mut value = None;
    if reader.sees(b"\x61v\x58\x20") {
        found += 1;
        reader.at += 4;
        value = Some(reader.array()?);
    }
    if !reader.is_done() || found != count {
        return None;
    }
    let nothing = Span { start: 0, end: 0 };
    let span = |start, end| Span { start, end };
    Some(Envelope {
        claims,
        issuer,
        recipient,
        expires_at,
        issued_at,
        id,
        channel,
        covered,
        metadata,
        partition,
        request,
        reply_to,
        value,
        protected: nothing,
        algorithm: 0,
        key_id: nothing,
        size: 0,
        index: 0,
        path: nothing,
        signature: nothing,
        common: [span(first, before_time), span(behind_id, before_metadata), span(behind_metadata, before_value)],
    })
}

/// Parses the covered header names, which must be a sorted, non-empty set.
fn parse_names(data: &[u8], reader: &mut Reader) -> Option<Span> {
    let start = reader.at;
    let count = reader.head(ARRAY).filter(|count| (1..=MAX_HEADERS).contains(count))?;
    let mut last: Option<&[u8]> = None;
    for _ in 0..count {
        let name = reader.text()?.of(data);
        if is_envelope_name(name) || last.is_some_and(|before| before >= name) {
            return None;
        }
        last = Some(name);
    }
    Some(Span { start, end: reader.at })
}

/// Returns the covered header names of a parsed list.
pub fn names(list: &[u8]) -> Option<Vec<&str>> {
    let mut reader = Reader::new(list, 0);
    let count = reader.head(ARRAY)?;
    (0..count).map(|_| reader.text().and_then(|span| std::str::from_utf8(span.of(list)).ok())).collect()
}

fn parse_protected(raw: &[u8], span: Span) -> Option<(i128, Span, bool)> {
    let mut reader = Reader::new(&raw[..span.end], span.start);
    let fields = reader.head(MAP)?;
    reader.expect(&[1])?;
    let algorithm = reader.int()?;
    reader.expect(&[4])?;
    let key_id = reader.bytes()?;
    let batched = reader.expect(&TREE).is_some();
    let size = key_id.end - key_id.start;
    let fits = reader.is_done() && fields == 2 + u64::from(batched) && (1..=MAX_SHORT).contains(&size);
    fits.then_some((algorithm, key_id, batched))
}

fn parse_inclusion(raw: &[u8], proof: Span) -> Option<(u64, u64, Span)> {
    let mut reader = Reader::new(&raw[..proof.end], proof.start);
    reader.expect(&[ARRAY | 3])?;
    let size = reader.head(UINT).filter(|size| TREE_SIZES.contains(size))?;
    let index = reader.head(UINT).filter(|index| *index < size)?;
    let nodes = usize::try_from(reader.head(ARRAY)?).ok().filter(|nodes| (1..=MAX_PATH).contains(nodes))?;
    let path = reader.take(nodes * NODE)?;
    let framed = path.of(raw).chunks_exact(NODE).all(|node| node.starts_with(&HASH));
    (framed && reader.is_done()).then_some((size, index, path))
}

/// Returns the hashes of a parsed path.
pub fn path_of(nodes: &[u8]) -> impl Iterator<Item = &[u8; 32]> {
    nodes.chunks_exact(NODE).filter_map(|node| node[HASH.len()..].try_into().ok())
}

/// Returns true if this is the name of Watchword's own header, in any letter case.
pub fn is_envelope_name(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(HEADER.as_bytes())
}

/// Returns true if UTF-8 text may name an agent: 1 to 255 bytes, no control character, no space at either end.
fn is_principal(text: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte == Some(&b' ');
    (1..=MAX_PRINCIPAL).contains(&text.len())
        && text.iter().all(|byte| *byte >= b' ' && *byte != 0x7f)
        && !blank(text.first())
        && !blank(text.last())
}

/// Returns COSE's Sig_structure (RFC 9052 section 4.4); `size` is 0 for a direct signature.
pub fn to_be_signed(protected: &[u8], size: u64, payload: &[u8]) -> Vec<u8> {
    let mut external = Vec::with_capacity(24);
    write_head(&mut external, ARRAY, 2);
    write_text(&mut external, CONTEXT);
    write_head(&mut external, UINT, size);
    let mut out = Vec::with_capacity(64 + protected.len() + payload.len());
    write_head(&mut out, ARRAY, 4);
    write_text(&mut out, "Signature1");
    write_bytes(&mut out, protected);
    write_bytes(&mut out, &external);
    write_bytes(&mut out, payload);
    out
}

/// Begins the array whose digest covers the key and the covered headers; `write_pair` adds each header.
pub fn write_metadata(out: &mut Vec<u8>, key: Option<&[u8]>, pairs: usize) {
    write_head(out, ARRAY, 2);
    match key {
        Some(key) => write_bytes(out, key),
        None => out.push(NULL),
    }
    write_head(out, ARRAY, pairs as u64);
}

/// Writes a covered header for that digest.
pub fn write_pair(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    write_head(out, ARRAY, 2);
    write_head(out, TEXT, name.len() as u64);
    out.extend(name.as_bytes());
    match value {
        Some(value) => write_bytes(out, value),
        None => out.push(NULL),
    }
}
