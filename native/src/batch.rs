//! Finds fetched Kafka record batches (version 2) that need no repair: see the adapter's `poison`.

use std::str;

/// Bytes of a batch before its records, and where its fields stand (Kafka protocol guide, "Record Batch").
const HEADER: usize = 61;
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;
const CODEC_MASK: u16 = 0x07;

/// A message has no more headers.
pub const MAX_HEADERS: usize = 1024;

/// Returns where the valid batches of a record set, from `at` on, end; it stops after `most` bytes.
///
/// A valid batch is complete, not compressed, ends at or below `log_end`, and has as many records as it says, which
/// decode and whose offsets ascend within its range. The client checks the checksum: it gets the batch unchanged.
pub fn sound_until(raw: &[u8], at: usize, most: usize, log_end: i64) -> usize {
    let mut end = at;
    while end - at < most {
        match raw.get(end..).and_then(|rest| sound_batch(rest, log_end)) {
            Some(size) => end += size,
            None => break,
        }
    }
    end
}

fn sound_batch(raw: &[u8], log_end: i64) -> Option<usize> {
    let header = raw.get(..HEADER)?;
    let length = usize::try_from(i32::from_be_bytes(field(header, 8)?)).ok()?;
    let batch = raw.get(..LENGTH_END.checked_add(length)?)?;
    let attributes = u16::from_be_bytes(field(header, 21)?);
    if header[MAGIC_AT] != MAGIC || attributes & CODEC_MASK != 0 {
        return None;
    }
    let last_delta = i32::from_be_bytes(field(header, 23)?);
    let end = i64::from_be_bytes(field(header, 0)?).checked_add(i64::from(last_delta))?.checked_add(1)?;
    let count = i32::from_be_bytes(field(header, 57)?);
    (end <= log_end && are_sound(batch.get(HEADER..)?, count, last_delta)).then_some(batch.len())
}

fn field<const N: usize>(header: &[u8], at: usize) -> Option<[u8; N]> {
    header.get(at..at + N)?.try_into().ok()
}

/// Returns true if these bytes are `count` records, at offsets that ascend up to `last_delta`.
pub fn are_sound(records: &[u8], count: i32, last_delta: i32) -> bool {
    let mut rest = records;
    let mut latest = -1;
    for _ in 0..count {
        match record(&mut rest) {
            Some(delta) if latest < delta && delta <= i64::from(last_delta) => latest = delta,
            _ => return false,
        }
    }
    count >= 0 && rest.is_empty()
}

/// Reads one record, and returns its offset within the batch.
fn record(rest: &mut &[u8]) -> Option<i64> {
    let size = number(rest)?;
    let mut body = take(rest, size)?;
    let attributes = take(&mut body, 1)?;
    if attributes[0] >= 0x80 {
        return None; // some decoders read attributes as one byte, others as more
    }
    number(&mut body)?; // its timestamp
    let delta = number(&mut body)?;
    maybe(&mut body)?; // its key
    maybe(&mut body)?; // its value
    let headers = usize::try_from(number(&mut body)?).ok().filter(|count| *count <= MAX_HEADERS)?;
    for _ in 0..headers {
        let size = number(&mut body)?;
        str::from_utf8(take(&mut body, size)?).ok()?;
        maybe(&mut body)?;
    }
    body.is_empty().then_some(delta)
}

/// Reads bytes behind their length, which is -1 where there are none.
fn maybe(rest: &mut &[u8]) -> Option<()> {
    match number(rest)? {
        -1 => Some(()),
        size => take(rest, size).map(|_| ()),
    }
}

fn take<'a>(rest: &mut &'a [u8], size: i64) -> Option<&'a [u8]> {
    let (part, behind) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    *rest = behind;
    Some(part)
}

/// Reads a signed number of variable length; of at most nine bytes, so that no decoder is at its limit.
fn number(rest: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for (place, byte) in rest.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *rest = &rest[place + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
