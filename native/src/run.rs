//! A run of messages: checks 1, 2, 4, 5, 6 and 7 for those that pass them. Python checks the signatures.
//!
//! This engine can only accept. It *releases* a message on the slightest doubt: the Python engine judges that one from
//! the beginning, and says what is wrong, if anything. So rejections, with their reasons and their order, come from one
//! place, and a needless release costs time, but no honest message.

use crate::batch::MAX_HEADERS;
use crate::block::{self, Header};
use crate::bucket::Entry;
use crate::cbor::Span;
use crate::envelope::{self, ED25519, Envelope, write_part};
use crate::hashing::{Secrets, limbs};
use crate::kept::Entries;
use crate::tree::{self, Hash, Place};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyList, PyString, PyTuple};
use std::collections::HashMap;
use std::ops::Range;

const MAX_HEADER_BYTES: usize = 64 * 1024;
const NATS_ID_HEADER: &str = "Nats-Msg-Id";
const LOG_APPEND_TIME: i64 = 1;
const NOTHING: u64 = u64::MAX; // no text is as long
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// The clock (in seconds since the epoch) and the policy's limits (in seconds).
struct Times {
    now: f64,
    max_age: f64,
    max_skew: f64,
    recalled: bool,
}

/// Where a row stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has passed all checks so far.
    Good,
    /// The Python engine judges it.
    Released,
}

/// A message's headers, as its client gave them.
enum Headers {
    /// Pairs of name and value.
    Pairs(Py<PyTuple>),
    /// A NATS header block, and which headers of all blocks are its own.
    Block(Py<PyBytes>, Range<usize>),
}

/// One message.
struct Row {
    state: State,
    sender: usize,
    /// Its envelope's bytes, among those of all.
    raw: Span,
    envelope: Envelope,
    leaf: Hash,
    reference: f64,
    appended_after: Option<f64>,
    stamp: Option<(f64, u64)>,
    offset: Option<u64>,
    created_at: Option<f64>,
    value: Option<Py<PyBytes>>,
    key: Option<Py<PyBytes>>,
    headers: Headers,
    position: Option<Py<PyAny>>,
    visible: Option<Py<PyTuple>>,
}

/// What the messages have in common that one principal signed for one destination, and that were found at one place.
struct Sender {
    first: usize,
    nats: bool,
    /// The key's number, once it is known; two senders may share a key.
    key: Option<usize>,
    covered: Vec<String>,
    /// Covered headers as digested last, and those that a handler may see.
    last: Option<(Vec<u8>, Py<PyTuple>)>,
}

/// A verification key's identity and validity.
struct Key {
    identity: usize,
    not_before: Option<f64>,
    not_after: Option<f64>,
    revoked_at: Option<f64>,
}

/// What the rows of one group have in common: the key, protected bytes, size of the tree, and signature.
type Signed<'a> = (usize, &'a [u8], u64, &'a [u8]);

/// Rows that one signature covers.
struct Group {
    rows: Vec<usize>,
}

#[pyclass(module = "watchword_native")]
pub struct Run {
    times: Times,
    raw: Vec<u8>,
    /// The headers of all blocks.
    headers: Vec<Header>,
    rows: Vec<Option<Row>>,
    end: usize,
    senders: Vec<Sender>,
    keys: Vec<Key>,
    groups: Vec<Group>,
    /// Released since the last `taken_back`, with what is known of their signatures.
    released: Vec<(usize, Option<bool>)>,
}

#[pymethods]
impl Run {
    /// Reads a list of messages: checks 1 and 2, the times of check 4, and their senders.
    #[new]
    fn new(messages: &Bound<'_, PyList>, now: f64, max_age: f64, max_skew: f64, recalled: bool) -> PyResult<Self> {
        let mut run = Run::empty(messages.len(), Times { now, max_age, max_skew, recalled });
        let mut known = Known::default();
        for message in messages {
            let row = run.read(&message, &mut known);
            run.rows.push(row);
        }
        Ok(run)
    }

    /// Reads a client's records of one partition. `place` is what they have in common: (URI, partition, reader, log,
    /// exclusive). `bounds` are (offset, low, high), ascending: records from that offset up to the next one were
    /// appended between these times, where the broker did not stamp them.
    #[staticmethod]
    #[pyo3(signature = (records, place, bounds, now, max_age, max_skew, recalled))]
    #[allow(clippy::too_many_arguments, reason = "one caller, by position")]
    fn of_records(
        records: &Bound<'_, PyList>,
        place: (String, i64, String, String, bool),
        bounds: Vec<(i64, f64, f64)>,
        now: f64,
        max_age: f64,
        max_skew: f64,
        recalled: bool,
    ) -> PyResult<Self> {
        let mut run = Run::empty(records.len(), Times { now, max_age, max_skew, recalled });
        let mut known = Known::default();
        let (uri, partition, reader, log, exclusive) = place;
        let mut found = Vec::new();
        write_part(&mut found, uri.as_bytes());
        found.extend(partition.to_le_bytes());
        found.extend(NOTHING.to_le_bytes());
        write_part(&mut found, reader.as_bytes());
        write_part(&mut found, log.as_bytes());
        found.push(u8::from(exclusive));
        for record in records {
            known.buffer.clear();
            known.buffer.extend_from_slice(&found);
            let row = run.read_record(&record, &bounds, &mut known);
            run.rows.push(row);
        }
        Ok(run)
    }

    /// Reads a NATS client's messages of one reader. `place` is what they have in common: (URI prefix, reader,
    /// exclusive). `deliveries` has each one's place in its stream, as ((stream, consumer), sequence, stamp in
    /// nanoseconds, ...), or None.
    #[staticmethod]
    fn of_deliveries(
        messages: &Bound<'_, PyList>,
        place: (String, String, bool),
        deliveries: &Bound<'_, PyList>,
        now: f64,
        max_age: f64,
        max_skew: f64,
        recalled: bool,
    ) -> PyResult<Self> {
        let mut run = Run::empty(messages.len(), Times { now, max_age, max_skew, recalled });
        let mut known = Known::default();
        for (message, delivery) in messages.iter().zip(deliveries) {
            let row = run.read_delivery(&message, &delivery, &place, &mut known);
            run.rows.push(row);
        }
        Ok(run)
    }

    /// Returns, in order, (index, sender) for the first message of each sender, and (index, -1) for each message that
    /// the Python engine must judge.
    fn firsts(&self) -> Vec<(usize, isize)> {
        let mut found = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            match row {
                None => found.push((at, -1)),
                Some(row) if self.senders[row.sender].first == at => found.push((at, row.sender as isize)),
                Some(_) => {}
            }
        }
        found
    }

    /// Releases a sender's messages to the Python engine, and returns the indexes of all but the first.
    fn release(&mut self, sender: usize) -> PyResult<Vec<usize>> {
        let first = self.sender(sender)?.first;
        let mut later = Vec::new();
        for (at, row) in self.rows.iter_mut().enumerate() {
            if row.as_ref().is_some_and(|row| row.sender == sender) {
                *row = None;
                if at > first {
                    later.push(at);
                }
            }
        }
        Ok(later)
    }

    /// Ignores the messages from here on.
    fn cut(&mut self, at: usize) {
        self.end = self.end.min(at);
    }

    /// Sets the key of a sender. `identity` is a number that is the same for the same key; times as in VerificationKey.
    fn key(
        &mut self,
        sender: usize,
        identity: usize,
        not_before: Option<f64>,
        not_after: Option<f64>,
        revoked_at: Option<f64>,
    ) -> PyResult<()> {
        self.sender(sender)?;
        self.senders[sender].key = Some(self.keys.len());
        self.keys.push(Key { identity, not_before, not_after, revoked_at });
        Ok(())
    }

    /// Makes check 5 with the keys that were set, and returns a job for each signature to check:
    /// (sender, protected bytes, size, signature, root); for a direct signature the root is the claims.
    fn jobs<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.in_force();
        self.group();
        let mut jobs = Vec::with_capacity(self.groups.len());
        let groups = std::mem::take(&mut self.groups);
        for (root, group) in groups.into_iter().flat_map(|group| self.by_root(group)).collect::<Vec<_>>() {
            let Some(root) = root else {
                for at in group.rows {
                    self.let_go(at, None);
                }
                continue;
            };
            let row = self.row(group.rows[0])?;
            let raw = row.raw.of(&self.raw);
            let one = &row.envelope;
            let job = (
                row.sender,
                PyBytes::new(py, one.protected.of(raw)),
                one.size,
                PyBytes::new(py, one.signature.of(raw)),
                PyBytes::new(py, &root),
            );
            jobs.push(job.into_pyobject(py)?);
            self.groups.push(group);
        }
        Ok(jobs)
    }

    /// Takes the results of the jobs, and makes check 7 where the signature is valid.
    fn settle(&mut self, py: Python<'_>, holds: Vec<bool>) -> PyResult<()> {
        let groups = std::mem::take(&mut self.groups);
        if holds.len() != groups.len() {
            return Err(pyo3::exceptions::PyValueError::new_err("an answer for each job"));
        }
        for (group, holds) in groups.iter().zip(holds) {
            for at in &group.rows {
                if !holds {
                    self.let_go(*at, Some(false));
                } else if !self.unaltered(py, *at)? {
                    self.let_go(*at, Some(true));
                }
            }
        }
        Ok(())
    }

    /// Returns the messages released since the last call, in order: (index, true if the signature is valid, None if that
    /// is not known).
    fn taken_back(&mut self) -> Vec<(usize, Option<bool>)> {
        let mut released = std::mem::take(&mut self.released);
        released.sort_unstable_by_key(|one| one.0);
        released
    }

    /// Returns (begin, end, sender) of consecutive messages of one sender that passed all checks.
    fn stretches(&self) -> Vec<(usize, usize, usize)> {
        let mut found: Vec<(usize, usize, usize)> = Vec::new();
        for (at, row) in self.rows[..self.end].iter().enumerate() {
            let Some(row) = row.as_ref().filter(|row| row.state == State::Good) else {
                continue;
            };
            match found.last_mut() {
                Some((_, end, sender)) if *end == at && *sender == row.sender => *end = at + 1,
                _ => found.push((at, at + 1, row.sender)),
            }
        }
        found
    }

    /// Returns the first and last issue time of messages, the log time that passed, and how many have no stamp.
    fn bounds(&self, begin: usize, end: usize) -> PyResult<(u64, u64, f64, usize)> {
        let (mut least, mut most, mut passed, mut unstamped) = (u64::MAX, 0, f64::NEG_INFINITY, 0);
        for at in begin..end {
            let row = self.row(at)?;
            least = least.min(row.envelope.issued_at);
            most = most.max(row.envelope.issued_at);
            passed = passed.max(row.appended_after.unwrap_or(row.reference));
            unstamped += usize::from(row.appended_after.is_some());
        }
        Ok((least, most, passed, unstamped))
    }

    /// Returns the entries of messages for the guard.
    fn entries(&self, begin: usize, end: usize, hasher: &Hasher, principal: u128, log: u128) -> PyResult<Entries> {
        let (principal, log) = (limbs(principal), limbs(log));
        let rows = (begin..end).map(|at| {
            let row = self.row(at)?;
            let one = &row.envelope;
            let key = hasher.secrets.key(&one.id, one.issued_at, principal);
            let mut half = [0; 16];
            half.copy_from_slice(&row.leaf[..16]);
            let place = row.offset.map(|offset| (offset, row.stamp.map_or(0, |stamp| 1 + stamp.1), log));
            let mark = hasher.secrets.mark(&half, place);
            Ok(Entry { issued_at: one.issued_at, key, mark, offset: row.offset })
        });
        Ok(Entries { rows: rows.collect::<PyResult<_>>()? })
    }

    /// Returns the ids of messages.
    fn ids<'py>(&self, py: Python<'py>, begin: usize, end: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        (begin..end).map(|at| Ok(PyBytes::new(py, &self.row(at)?.envelope.id))).collect()
    }

    /// Returns the digests of the claims of messages.
    fn digests<'py>(&self, py: Python<'py>, begin: usize, end: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        (begin..end).map(|at| Ok(PyBytes::new(py, &self.row(at)?.leaf))).collect()
    }

    /// Returns what is delivered of each message: id in hex, value, key, headers, issue time, position, or the offset
    /// of a record.
    fn delivered<'py>(&self, py: Python<'py>, begin: usize, end: usize) -> PyResult<Bound<'py, PyTuple>> {
        let rows = (begin..end).map(|at| self.row(at)).collect::<PyResult<Vec<&Row>>>()?;
        let ids = PyList::new(py, rows.iter().map(|row| hex(&row.envelope.id)))?;
        let values = PyList::new(py, rows.iter().map(|row| &row.value))?;
        let keys = PyList::new(py, rows.iter().map(|row| &row.key))?;
        let headers = PyList::new(py, rows.iter().map(|row| &row.visible))?;
        let times = PyList::new(py, rows.iter().map(|row| row.envelope.issued_at))?;
        let positions = PyList::new(py, rows.iter().map(|row| &row.position))?;
        let offsets = PyList::new(py, rows.iter().map(|row| row.offset))?;
        (ids, values, keys, headers, times, positions, offsets).into_pyobject(py)
    }

    /// Returns one message's id, issue time, digest of its claims, reference time and headers.
    fn found<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyTuple>> {
        let row = self.row(at)?;
        (
            PyBytes::new(py, &row.envelope.id),
            row.envelope.issued_at,
            PyBytes::new(py, &row.leaf),
            row.reference,
            &row.visible,
        )
            .into_pyobject(py)
    }
}

/// A message as it was found, beside its envelope and its place.
struct Found {
    headers: Headers,
    value: Option<Py<PyBytes>>,
    key: Option<Py<PyBytes>>,
    offset: Option<u64>,
    stamp: Option<(f64, u64)>,
    bounds: Option<(f64, f64)>,
    created_at: Option<f64>,
    position: Option<Py<PyAny>>,
    nats: bool,
}

/// The senders so far, while a run is read.
#[derive(Default)]
struct Known {
    senders: HashMap<Vec<u8>, usize>,
    last: Option<(Vec<u8>, usize)>,
    buffer: Vec<u8>,
}

impl Run {
    fn empty(count: usize, times: Times) -> Self {
        Run {
            times,
            raw: Vec::with_capacity(count * 640),
            headers: Vec::new(),
            rows: Vec::with_capacity(count),
            end: count,
            senders: Vec::new(),
            keys: Vec::new(),
            groups: Vec::new(),
            released: Vec::new(),
        }
    }

    fn row(&self, at: usize) -> PyResult<&Row> {
        let row = self.rows.get(at).and_then(Option::as_ref);
        row.ok_or_else(|| pyo3::exceptions::PyIndexError::new_err("no such message"))
    }

    fn sender(&self, number: usize) -> PyResult<&Sender> {
        self.senders.get(number).ok_or_else(|| pyo3::exceptions::PyIndexError::new_err("no such sender"))
    }

    fn let_go(&mut self, at: usize, signed: Option<bool>) {
        if let Some(row) = self.rows.get_mut(at).and_then(Option::as_mut) {
            row.state = State::Released;
            self.released.push((at, signed));
        }
    }

    /// Makes check 1, reads the envelope, and makes check 4; `None` releases the message.
    fn read(&mut self, message: &Bound<'_, PyAny>, known: &mut Known) -> Option<Row> {
        let py = message.py();
        let get = |name| message.getattr(name).ok();
        if !get(intern!(py, "fault"))?.is_none() {
            return None;
        }
        let position = get(intern!(py, "position"))?;
        let (mut offset, mut log) = (None, None);
        if !position.is_none() {
            offset = Some(position.getattr(intern!(py, "offset")).ok()?.extract::<u64>().ok()?);
            log = Some(position.getattr(intern!(py, "log")).ok()?);
        }
        let appended_at = get(intern!(py, "appended_at"))?;
        let between = get(intern!(py, "appended_between"))?;
        known.buffer.clear();
        let nats = write_place(&mut known.buffer, message, log.as_ref())?;
        let headers = get(intern!(py, "headers"))?.cast_into_exact::<PyTuple>().ok()?;
        let text = the_envelope(&headers)?;
        let found = Found {
            headers: Headers::Pairs(headers.unbind()),
            value: bytes(get(intern!(py, "value"))?)?,
            key: bytes(get(intern!(py, "key"))?)?,
            offset,
            stamp: if appended_at.is_none() { None } else { Some(stamp_of(appended_at.cast::<PyFloat>().ok()?)?) },
            bounds: if between.is_none() { None } else { Some(between.extract::<(f64, f64)>().ok()?) },
            created_at: maybe(get(intern!(py, "created_at"))?)?,
            position: if position.is_none() { None } else { Some(position.unbind()) },
            nats,
        };
        self.take(found, text.as_bytes(), known)
    }

    /// Reads a record of a Kafka client; `None` releases it.
    fn read_record(&mut self, record: &Bound<'_, PyAny>, bounds: &[(i64, f64, f64)], known: &mut Known) -> Option<Row> {
        let py = record.py();
        let get = |name| record.getattr(name).ok();
        let offset = get(intern!(py, "offset"))?.extract::<i64>().ok().filter(|offset| *offset >= 0)?;
        let stamped = get(intern!(py, "timestamp_type"))?.extract::<i64>().ok()? == LOG_APPEND_TIME;
        let timestamp = get(intern!(py, "timestamp"))?;
        let seconds = if timestamp.is_none() { None } else { Some(timestamp.extract::<i64>().ok()? as f64 / 1000.0) };
        let between = match bounds.partition_point(|bound| bound.0 <= offset) {
            0 => None,
            behind => Some((bounds[behind - 1].1, bounds[behind - 1].2)),
        };
        if !stamped && between.is_none() {
            return None;
        }
        let headers = get(intern!(py, "headers"))?.cast_into_exact::<PyTuple>().ok()?;
        let text = the_envelope(&headers)?;
        let found = Found {
            headers: Headers::Pairs(headers.unbind()),
            value: bytes(get(intern!(py, "value"))?)?,
            key: bytes(get(intern!(py, "key"))?)?,
            offset: u64::try_from(offset).ok(),
            stamp: if stamped { Some(stamp_of(&PyFloat::new(py, seconds?))?) } else { None },
            bounds: if stamped { None } else { between },
            created_at: if stamped { None } else { seconds },
            position: None,
            nats: false,
        };
        self.take(found, text.as_bytes(), known)
    }

    /// Reads a message of a NATS client, whose header block has not been parsed yet; `None` releases it.
    fn read_delivery(
        &mut self,
        message: &Bound<'_, PyAny>,
        delivery: &Bound<'_, PyAny>,
        place: &(String, String, bool),
        known: &mut Known,
    ) -> Option<Row> {
        let py = message.py();
        let get = |name| message.getattr(name).ok();
        let (prefix, reader, exclusive) = place;
        let subject = get(intern!(py, "subject"))?.cast_into_exact::<PyString>().ok()?;
        let reply = get(intern!(py, "reply"))?.cast_into_exact::<PyString>().ok()?;
        let block = get(intern!(py, "headers"))?.getattr(intern!(py, "raw")).ok()?.cast_into_exact::<PyBytes>().ok()?;
        let value = bytes(get(intern!(py, "data"))?)?;
        let stored = if delivery.is_none() { None } else { Some(delivery.cast::<PyTuple>().ok()?) };
        let identity = &mut known.buffer;
        identity.clear();
        let subject = subject.to_str().ok()?.as_bytes();
        identity.extend(((prefix.len() + subject.len()) as u64).to_le_bytes());
        identity.extend_from_slice(prefix.as_bytes());
        identity.extend_from_slice(subject);
        identity.extend((-1_i64).to_le_bytes());
        let reply = reply.to_str().ok()?;
        write_maybe(identity, Some(reply).filter(|reply| stored.is_none() && !reply.is_empty()));
        write_part(identity, reader.as_bytes());
        let (mut offset, mut stamp) = (None, None);
        match stored {
            None => {
                write_maybe(identity, None);
                identity.push(u8::from(*exclusive));
            }
            Some(stored) => {
                let by = stored.get_item(0).ok()?.cast_into_exact::<PyTuple>().ok()?;
                write_text(identity, Some(&by.get_item(0).ok()?))?;
                identity.push(u8::from(*exclusive));
                write_text(identity, Some(&by.get_item(0).ok()?))?;
                write_text(identity, Some(&by.get_item(1).ok()?))?;
                offset = Some(stored.get_item(1).ok()?.extract::<u64>().ok()?);
                let seconds = stored.get_item(2).ok()?.extract::<u64>().ok()? as f64 / 1e9;
                stamp = Some(stamp_of(&PyFloat::new(py, seconds))?);
            }
        }
        let begin = self.headers.len();
        let raw = block.as_bytes();
        let row = block::read(raw, &mut self.headers).and_then(|()| {
            let text = envelope_in(raw, &self.headers[begin..])?;
            let found = Found {
                headers: Headers::Block(block.clone().unbind(), begin..self.headers.len()),
                value,
                key: None,
                offset,
                stamp,
                bounds: None,
                created_at: None,
                position: None,
                nats: prefix.starts_with("nats:"),
            };
            self.take(found, text, known)
        });
        if row.is_none() {
            self.headers.truncate(begin);
        }
        row
    }

    fn take(&mut self, found: Found, text: &[u8], known: &mut Known) -> Option<Row> {
        let before = self.raw.len();
        let row = envelope::unarmor(text, &mut self.raw).and_then(|raw| {
            let one = envelope::parse(raw.of(&self.raw))?;
            self.row_of(found, raw, one, known)
        });
        if row.is_none() {
            self.raw.truncate(before);
        }
        row
    }

    fn row_of(&mut self, found: Found, raw: Span, one: Envelope, known: &mut Known) -> Option<Row> {
        if one.algorithm == ED25519 && one.signature.end - one.signature.start != 64 {
            return None;
        }
        let reference = self.reference_time(&one, found.stamp.map(|stamp| stamp.0), found.bounds)?;
        let sender = self.sender_of(&one, raw, found.nats, known)?;
        Some(Row {
            state: State::Good,
            sender,
            raw,
            leaf: tree::leaf_of(one.claims.of(raw.of(&self.raw))),
            envelope: one,
            reference,
            appended_after: if found.stamp.is_none() { found.bounds.map(|bounds| bounds.0) } else { None },
            stamp: found.stamp,
            offset: found.offset,
            created_at: found.created_at,
            value: found.value,
            key: found.key,
            headers: found.headers,
            position: found.position,
            visible: None,
        })
    }

    /// Check 4: neither stale nor from the future when it was appended, nor expired now.
    ///
    /// The arithmetic is that of `checks.reference_time`, in the same order.
    fn reference_time(&self, one: &Envelope, stamp: Option<f64>, between: Option<(f64, f64)>) -> Option<f64> {
        let times = &self.times;
        let issued_at = one.issued_at as f64;
        let (low, high) = match (stamp, between) {
            (Some(stamp), _) => (stamp, stamp),
            (None, Some(bounds)) => bounds,
            (None, None) if times.recalled => {
                let read = times.now + times.max_skew;
                let time = if issued_at < read { issued_at } else { read };
                (time, time)
            }
            (None, None) => (times.now, times.now),
        };
        let is_known = times.recalled && stamp.is_none();
        let is_fresh = low - issued_at <= times.max_age + times.max_skew || is_known;
        let is_there = issued_at - high <= times.max_skew;
        let is_over = !times.recalled && one.expires_at.is_some_and(|end| times.now >= end as f64);
        if !is_fresh || !is_there || is_over {
            return None;
        }
        let late = if low > issued_at { low } else { issued_at };
        Some(if high < late { high } else { late })
    }

    /// Returns the number of a message's sender; the buffer already has the place where the message was found.
    fn sender_of(&mut self, one: &Envelope, raw: Span, nats: bool, known: &mut Known) -> Option<usize> {
        let bytes = raw.of(&self.raw);
        let identity = &mut known.buffer;
        for part in one.common.iter().chain([&one.protected]) {
            write_part(identity, part.of(bytes));
        }
        if let Some((_, number)) = known.last.as_ref().filter(|last| last.0 == *identity) {
            return Some(*number);
        }
        let number = match known.senders.get(identity) {
            Some(number) => *number,
            None => {
                let covered = match one.covered {
                    None => Vec::new(),
                    Some(list) => envelope::names(list.of(bytes))?.into_iter().map(String::from).collect(),
                };
                let number = self.senders.len();
                let first = self.rows.len();
                self.senders.push(Sender { first, nats, key: None, covered, last: None });
                known.senders.insert(identity.clone(), number);
                number
            }
        };
        known.last = Some((identity.clone(), number));
        Some(number)
    }

    /// Check 5, once keys are known: releases rows whose sender has no key, or whose key is not valid at their time.
    fn in_force(&mut self) {
        for at in 0..self.end {
            let Some(row) = self.rows[at].as_ref() else {
                continue;
            };
            let key = self.senders[row.sender].key.map(|number| &self.keys[number]);
            let holds = key.is_some_and(|key| {
                !key.not_before.is_some_and(|begin| row.reference < begin)
                    && !key.not_after.is_some_and(|end| row.reference >= end)
                    && !key.revoked_at.is_some_and(|end| self.times.now >= end)
            });
            if !holds {
                self.let_go(at, None);
            }
        }
    }

    /// Groups rows that share a signature; leaves of one tree are usually adjacent.
    fn group(&mut self) {
        let mut known: HashMap<Signed, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut last: Option<(Signed, usize)> = None;
        for (at, row) in self.rows[..self.end].iter().enumerate() {
            let Some(row) = row.as_ref().filter(|row| row.state == State::Good) else {
                continue;
            };
            let Some(key) = self.senders[row.sender].key else {
                continue;
            };
            let raw = row.raw.of(&self.raw);
            let one = &row.envelope;
            let tree = (self.keys[key].identity, one.protected.of(raw), one.size, one.signature.of(raw));
            let number = match last {
                Some((same, number)) if same == tree => number,
                _ => *known.entry(tree).or_insert_with(|| {
                    groups.push(Group { rows: Vec::new() });
                    groups.len() - 1
                }),
            };
            last = Some((tree, number));
            groups[number].rows.push(at);
        }
        self.groups = groups;
    }

    /// Splits a group by what its signature must cover; `None` for rows that the Python engine must judge.
    ///
    /// Nearly always they are all leaves of one tree. If not, each climbs separately. A leaf that was altered or copied
    /// then has a different root, or its index twice, and is split off; the others stay together.
    fn by_root(&self, group: Group) -> Vec<(Option<Vec<u8>>, Group)> {
        if let Some(root) = self.root_of(&group.rows) {
            return vec![(Some(root), group)];
        }
        let mut places: HashMap<(Vec<u8>, u64), Vec<usize>> = HashMap::new();
        let mut left = Vec::new();
        for at in group.rows {
            match (self.root_of(&[at]), &self.rows[at]) {
                (Some(root), Some(row)) => places.entry((root, row.envelope.index)).or_default().push(at),
                _ => left.push(at),
            }
        }
        let mut parts: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for ((root, _), mut rows) in places {
            // If a leaf was copied, only its first copy counts; the Python engine decides which one that is.
            let to = if rows.len() > 1 { &mut left } else { parts.entry(root).or_default() };
            to.append(&mut rows);
        }
        let mut found: Vec<(Option<Vec<u8>>, Group)> =
            parts.into_iter().map(|(root, rows)| (Some(root), Group { rows })).collect();
        found.push((None, Group { rows: left }));
        for (_, part) in &mut found {
            part.rows.sort_unstable();
        }
        found.sort_unstable_by_key(|(_, part)| part.rows.first().copied());
        found
    }

    /// Returns what a signature covers; `None` unless the rows are distinct leaves of one tree.
    fn root_of(&self, rows: &[usize]) -> Option<Vec<u8>> {
        let first = self.rows[*rows.first()?].as_ref()?;
        let size = first.envelope.size;
        if size == 0 {
            let claims = |row: &Row| row.envelope.claims.of(row.raw.of(&self.raw)).to_vec();
            let signed = claims(first);
            let is_same = |at: &usize| self.rows[*at].as_ref().is_some_and(|row| claims(row) == signed);
            return rows.iter().all(is_same).then_some(signed);
        }
        let mut paths: Vec<Hash> = Vec::with_capacity(rows.len() * 6);
        let mut spans = Vec::with_capacity(rows.len());
        for at in rows {
            let row = self.rows[*at].as_ref()?;
            let begin = paths.len();
            paths.extend(envelope::path_of(row.envelope.path.of(row.raw.of(&self.raw))));
            spans.push((row.envelope.index, row.leaf, begin, paths.len()));
        }
        spans.sort_unstable_by_key(|one| one.0);
        if spans.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let places = spans.iter().map(|(index, hash, begin, end)| Place {
            index: *index,
            hash: *hash,
            path: &paths[*begin..*end],
        });
        tree::shared_root(places.collect(), size).map(Vec::from)
    }

    /// Check 7: value, key and headers as signed; notes the headers that may reach a handler.
    fn unaltered(&mut self, py: Python<'_>, at: usize) -> PyResult<bool> {
        let Some(row) = self.rows[at].as_mut() else {
            return Ok(false);
        };
        let one = &row.envelope;
        let value = row.value.as_ref().map(|value| tree::sha256(&[value.as_bytes(py)]));
        if one.value != value {
            return Ok(false);
        }
        if let Some(created) = row.created_at {
            let apart = (created - one.issued_at as f64).abs();
            // NaN is not within the skew; the Python engine rejects it, too.
            if apart.is_nan() || apart > self.times.max_skew {
                return Ok(false);
            }
        }
        let sender = &mut self.senders[row.sender];
        let mut sight = Sight::new(sender, &one.id);
        match &row.headers {
            Headers::Pairs(headers) => {
                for (number, header) in headers.bind(py).iter_borrowed().enumerate() {
                    let Ok(pair) = header.cast_exact::<PyTuple>() else {
                        return Ok(false);
                    };
                    let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
                    let Ok(name) = name.cast_exact::<PyString>() else {
                        return Ok(false);
                    };
                    let Ok(name) = name.to_str() else {
                        return Ok(false);
                    };
                    let value = value.cast_exact::<PyBytes>().ok();
                    if !sight.passes(number, name, value.as_ref().map(|value| value.as_bytes())) {
                        return Ok(false);
                    }
                }
            }
            Headers::Block(block, own) => {
                let block = block.as_bytes(py);
                for (number, (name, value)) in self.headers[own.clone()].iter().enumerate() {
                    let Ok(name) = std::str::from_utf8(name.of(block)) else {
                        return Ok(false);
                    };
                    if !sight.passes(number, name, Some(value.of(block))) {
                        return Ok(false);
                    }
                }
            }
        }
        let Sight { pairs, count, visible, has_others, .. } = sight;
        let metadata = if sender.covered.is_empty() && row.key.is_none() {
            None
        } else {
            let mut whole = Vec::with_capacity(pairs.len() + 64);
            envelope::write_metadata(&mut whole, row.key.as_ref().map(|key| key.as_bytes(py)), count);
            whole.extend_from_slice(&pairs);
            Some(tree::sha256(&[&whole]))
        };
        if one.metadata != metadata {
            return Ok(false);
        }
        let same = sender.last.as_ref().filter(|last| !has_others && last.0 == pairs && last.1.bind(py).len() == count);
        row.visible = Some(match same {
            Some((_, tuple)) => tuple.clone_ref(py),
            None => {
                let tuple = match &row.headers {
                    Headers::Pairs(headers) => {
                        let headers = headers.bind(py);
                        let seen = visible.iter().map(|number| headers.get_item(*number));
                        PyTuple::new(py, seen.collect::<PyResult<Vec<_>>>()?)?.unbind()
                    }
                    Headers::Block(block, own) => {
                        let (block, own) = (block.as_bytes(py), &self.headers[own.clone()]);
                        let seen = visible.iter().map(|number| {
                            let (name, value) = &own[*number];
                            (String::from_utf8_lossy(name.of(block)), PyBytes::new(py, value.of(block)))
                                .into_pyobject(py)
                        });
                        PyTuple::new(py, seen.collect::<PyResult<Vec<_>>>()?)?.unbind()
                    }
                };
                if !has_others {
                    sender.last = Some((pairs, tuple.clone_ref(py)));
                }
                tuple
            }
        });
        Ok(true)
    }
}

/// A message's headers in check 7: the numbers of those that a handler may see, and those that are digested.
struct Sight<'a> {
    covered: &'a [String],
    nats_id: Option<&'a [u8; 16]>,
    pairs: Vec<u8>,
    count: usize,
    visible: Vec<usize>,
    has_others: bool,
}

impl<'a> Sight<'a> {
    fn new(sender: &'a Sender, id: &'a [u8; 16]) -> Self {
        let covers_id = sender.covered.iter().any(|name| name == NATS_ID_HEADER);
        Sight {
            covered: &sender.covered,
            nats_id: if sender.nats && !covers_id { Some(id) } else { None },
            pairs: Vec::with_capacity(128),
            count: 0,
            visible: Vec::with_capacity(8),
            has_others: false,
        }
    }

    /// Adds the next header; returns false if it shows that the message was altered.
    fn passes(&mut self, number: usize, name: &str, value: Option<&[u8]>) -> bool {
        if envelope::is_envelope_name(name.as_bytes()) {
            return true;
        }
        if self.covered.iter().any(|covered| covered == name) {
            envelope::write_pair(&mut self.pairs, name, value);
            self.count += 1;
            self.visible.push(number);
        } else if TRACE_HEADERS.contains(&name) {
            self.has_others = true;
            self.visible.push(number);
        } else if let Some(id) = self.nats_id.filter(|_| name == NATS_ID_HEADER) {
            return value == Some(hex(id).as_bytes());
        }
        true
    }
}

/// Writes the place where a message was found, with which its signed destination is compared; returns true if that is
/// on NATS, or `None` to release the message.
fn write_place(out: &mut Vec<u8>, message: &Bound<'_, PyAny>, log: Option<&Bound<'_, PyAny>>) -> Option<bool> {
    let py = message.py();
    let get = |name| message.getattr(name).ok();
    let channel = get(intern!(py, "channel"))?;
    let uri = channel.getattr(intern!(py, "uri")).ok()?;
    write_text(out, Some(&uri))?;
    let partition = get(intern!(py, "partition"))?;
    let number =
        if partition.is_none() { -1 } else { partition.extract::<i64>().ok().filter(|number| *number >= 0)? };
    out.extend(number.to_le_bytes());
    write_text(out, Some(&get(intern!(py, "reply_to"))?).filter(|one| !one.is_none()))?;
    write_text(out, Some(&get(intern!(py, "reader"))?))?;
    write_text(out, log)?;
    out.push(u8::from(get(intern!(py, "exclusive"))?.cast_into_exact::<PyBool>().ok()?.is_true()));
    let consumer = get(intern!(py, "delivered_by"))?;
    if !consumer.is_none() {
        let pair = consumer.cast_into_exact::<PyTuple>().ok()?;
        write_text(out, Some(&pair.get_item(0).ok()?))?;
        write_text(out, Some(&pair.get_item(1).ok()?))?;
    }
    Some(uri.cast_exact::<PyString>().ok()?.to_str().ok()?.starts_with("nats:"))
}

/// Writes text with its length, so that it is unambiguous; no text is written differently from any text.
fn write_text(out: &mut Vec<u8>, text: Option<&Bound<'_, PyAny>>) -> Option<()> {
    match text {
        None => out.extend(NOTHING.to_le_bytes()),
        Some(text) => write_part(out, text.cast_exact::<PyString>().ok()?.to_str().ok()?.as_bytes()),
    }
    Some(())
}

fn write_maybe(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.extend(NOTHING.to_le_bytes()),
        Some(text) => write_part(out, text.as_bytes()),
    }
}

/// The secrets of the guard's hashes.
#[pyclass(module = "watchword_native", frozen)]
pub struct Hasher {
    secrets: Secrets,
}

#[pymethods]
impl Hasher {
    #[new]
    fn new(a: [u8; 24], b: [u8; 24], c: [u8; 24]) -> Self {
        let limbs = |raw: [u8; 24]| -> [u64; 3] {
            std::array::from_fn(|limb| (0..8).fold(0, |sum, byte| sum | u64::from(raw[8 * limb + byte]) << (8 * byte)))
        };
        Hasher { secrets: Secrets { a: limbs(a), b: limbs(b), c: limbs(c) } }
    }
}

/// Check 1: returns the only envelope of a message whose headers are within the limits; `None` releases the message.
fn the_envelope<'py>(headers: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyBytes>> {
    if headers.len() > MAX_HEADERS {
        return None;
    }
    let mut found = None;
    let mut size = 0;
    for header in headers.iter_borrowed() {
        let pair = header.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
        let name = pair.get_borrowed_item(0).ok()?;
        let name = name.cast_exact::<PyString>().ok()?;
        let name = name.to_str().ok()?;
        let value = pair.get_borrowed_item(1).ok()?;
        size += name.len();
        let is_ours = envelope::is_envelope_name(name.as_bytes());
        if !value.is_none() {
            let value = value.cast_exact::<PyBytes>().ok()?;
            size += value.as_bytes().len();
            if is_ours {
                if found.is_some() {
                    return None;
                }
                found = Some(value.to_owned());
            }
        } else if is_ours {
            return None;
        }
    }
    found.filter(|_| size <= MAX_HEADER_BYTES)
}

/// Check 1 for the headers of a block: see `the_envelope`.
fn envelope_in<'a>(block: &'a [u8], headers: &[Header]) -> Option<&'a [u8]> {
    let mut ours = headers.iter().filter(|(name, _)| envelope::is_envelope_name(name.of(block)));
    let (_, found) = ours.next()?;
    let size: usize = headers.iter().map(|(name, value)| name.of(block).len() + value.of(block).len()).sum();
    let fits = headers.len() <= MAX_HEADERS && size <= MAX_HEADER_BYTES && ours.next().is_none();
    fits.then(|| found.of(block))
}

/// Returns the broker's stamp and Python's hash of it, which is part of a mark; `None` releases the message.
fn stamp_of(stamp: &Bound<'_, PyFloat>) -> Option<(f64, u64)> {
    Some((stamp.value(), u64::try_from(stamp.hash().ok()?).ok().filter(|hash| *hash < u64::MAX)?))
}

/// Returns bytes, or `Some(None)` for Python's None; `None` for anything else.
fn bytes(value: Bound<'_, PyAny>) -> Option<Option<Py<PyBytes>>> {
    if value.is_none() {
        return Some(None);
    }
    Some(Some(value.cast_into_exact::<PyBytes>().ok()?.unbind()))
}

/// Returns a number, or `Some(None)` for Python's None; `None` for anything else.
fn maybe(value: Bound<'_, PyAny>) -> Option<Option<f64>> {
    if value.is_none() { Some(None) } else { Some(Some(value.extract().ok()?)) }
}

fn hex(raw: &[u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    raw.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
