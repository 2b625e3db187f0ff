//! Builds what to sign for many messages, and the header of each: digests, claims, the tree over them, and its proofs.
//!
//! It only checks that messages have the same form as one that Python has checked. It has no private keys: Python signs
//! `Tree.data` with the signing back-end.

use crate::cbor::{ARRAY, MAP, NULL, UINT, write_bytes, write_head};
use crate::envelope::{self, INCLUSION};
use crate::tree::{self, Hash};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// The common parts of the claims of messages to one destination; see `watchword.encoding.Layout`.
#[pyclass(module = "watchword_native", frozen)]
pub struct Layout {
    count: u64,
    sender: Vec<u8>,
    channel: Vec<u8>,
    partition: Vec<u8>,
}

#[pymethods]
impl Layout {
    #[new]
    fn new(count: u64, sender: Vec<u8>, channel: Vec<u8>, partition: Vec<u8>) -> Self {
        Layout { count, sender, channel, partition }
    }

    /// Returns the claims of each message; `pairs` are the covered headers as digested, empty if there are none.
    fn each<'py>(
        &self,
        py: Python<'py>,
        values: Vec<Option<Bound<'py, PyBytes>>>,
        keys: Vec<Option<Bound<'py, PyBytes>>>,
        times: Vec<u64>,
        ids: &[u8],
        pairs: &[u8],
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let parts = values.iter().zip(&keys).zip(times.iter().zip(ids.chunks_exact(16)));
        parts
            .map(|((value, key), (issued_at, id))| {
                let id: &[u8; 16] = id.try_into().map_err(|_| PyValueError::new_err("an id of 16 bytes"))?;
                let value = value.as_ref().map(|value| value.as_bytes());
                let key = key.as_ref().map(|key| key.as_bytes());
                Ok(PyBytes::new(py, &self.claims(id, value, key, pairs, *issued_at)))
            })
            .collect()
    }

    /// Returns the claims of each message from `begin` on, up to one that is not like the first in all that was
    /// checked of it: channel, partition, headers, and types. Ids are of 16 bytes each.
    fn drafts<'py>(
        &self,
        messages: &Bound<'py, PyList>,
        begin: usize,
        ids: &[u8],
        pairs: &[u8],
        issued_at: u64,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let py = messages.py();
        let mut found = Vec::with_capacity(ids.len() / 16);
        let Some(before) = begin.checked_sub(1) else {
            return Ok(found);
        };
        let first = messages.get_item(before)?;
        let like = Like::of(&first)?;
        for (message, id) in messages.iter().skip(begin).zip(ids.chunks_exact(16)) {
            let Some((value, key)) = like.parts(&message)? else {
                break;
            };
            let id: &[u8; 16] = id.try_into().map_err(|_| PyValueError::new_err("an id of 16 bytes"))?;
            let value = value.as_ref().map(|value| value.as_bytes());
            let key = key.as_ref().map(|key| key.as_bytes());
            found.push(PyBytes::new(py, &self.claims(id, value, key, pairs, issued_at)));
        }
        Ok(found)
    }
}

impl Layout {
    fn claims(&self, id: &[u8; 16], value: Option<&[u8]>, key: Option<&[u8]>, pairs: &[u8], issued_at: u64) -> Vec<u8> {
        let has_metadata = key.is_some() || !pairs.is_empty();
        let count = self.count + u64::from(has_metadata) + u64::from(value.is_some());
        let mut out = Vec::with_capacity(self.sender.len() + self.channel.len() + self.partition.len() + 128);
        write_head(&mut out, MAP, count);
        out.extend_from_slice(&self.sender);
        out.push(6);
        write_head(&mut out, UINT, issued_at);
        out.push(7);
        write_bytes(&mut out, id);
        out.extend_from_slice(&self.channel);
        if has_metadata {
            let mut begin = Vec::with_capacity(64);
            write_head(&mut begin, ARRAY, 2);
            match key {
                Some(key) => write_bytes(&mut begin, key),
                None => begin.push(NULL),
            }
            let pairs = if pairs.is_empty() { &[ARRAY][..] } else { pairs };
            out.extend_from_slice(b"\x61m");
            write_bytes(&mut out, &tree::sha256(&[&begin, pairs]));
        }
        out.extend_from_slice(&self.partition);
        if let Some(value) = value {
            out.extend_from_slice(b"\x61v");
            write_bytes(&mut out, &tree::sha256(&[value]));
        }
        out
    }
}

/// What other messages must have in common with one that was checked.
struct Like<'py> {
    channel: Bound<'py, PyAny>,
    partition: Bound<'py, PyAny>,
    headers: Bound<'py, PyAny>,
}

impl<'py> Like<'py> {
    fn of(message: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = message.py();
        Ok(Like {
            channel: message.getattr(intern!(py, "channel"))?,
            partition: message.getattr(intern!(py, "partition"))?,
            headers: message.getattr(intern!(py, "headers"))?,
        })
    }

    /// Returns value and key of a message that is like that one; `None` if it is not.
    #[allow(clippy::type_complexity, reason = "two things that may be absent")]
    fn parts(
        &self,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Option<Bound<'py, PyBytes>>, Option<Bound<'py, PyBytes>>)>> {
        let py = message.py();
        let is_same = |name, one: &Bound<'py, PyAny>| -> PyResult<bool> {
            let other = message.getattr(name)?;
            Ok(other.is(one) || (other.get_type().is(one.get_type()) && other.eq(one)?))
        };
        if !is_same(intern!(py, "channel"), &self.channel)?
            || !is_same(intern!(py, "partition"), &self.partition)?
            || !message.getattr(intern!(py, "reply_to"))?.is_none()
        {
            return Ok(None);
        }
        let headers = message.getattr(intern!(py, "headers"))?;
        let is_tuple = headers.is_exact_instance_of::<PyTuple>(); // a list could change
        if !headers.is(&self.headers) && (!is_tuple || headers.ne(&self.headers)?) {
            return Ok(None);
        }
        let bytes = |name| -> PyResult<Result<Option<Bound<'py, PyBytes>>, ()>> {
            let value = message.getattr(name)?;
            if value.is_none() {
                return Ok(Ok(None));
            }
            Ok(value.cast_into_exact::<PyBytes>().map(Some).map_err(|_| ()))
        };
        let (Ok(value), Ok(key)) = (bytes(intern!(py, "value"))?, bytes(intern!(py, "key"))?) else {
            return Ok(None);
        };
        Ok(Some((value, key)))
    }
}

/// Claims under one signature; a single one is signed directly.
#[pyclass(module = "watchword_native", frozen)]
pub struct Tree {
    claims: Vec<Py<PyBytes>>,
    levels: Vec<Vec<Hash>>,
    protected: Vec<u8>,
}

#[pymethods]
impl Tree {
    /// `protected` is that of a batch, or for a single one that of a direct signature.
    #[new]
    fn new(py: Python<'_>, claims: Vec<Py<PyBytes>>, protected: Vec<u8>) -> Self {
        let is_tree = claims.len() > 1;
        let leaves = claims.iter().filter(|_| is_tree).map(|one| tree::leaf_of(one.as_bytes(py))).collect();
        Tree { levels: tree::levels_of(leaves), claims, protected }
    }

    /// The bytes to sign.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (size, payload) = match self.claims.as_slice() {
            [] => return Err(PyValueError::new_err("nothing to sign")),
            [single] => (0, single.as_bytes(py)),
            _ => (self.claims.len() as u64, self.root()?.as_slice()),
        };
        Ok(PyBytes::new(py, &envelope::to_be_signed(&self.protected, size, payload)))
    }

    /// Returns the header value of each, in order (base64url without padding).
    fn values<'py>(&self, py: Python<'py>, signature: &[u8]) -> Vec<Bound<'py, PyBytes>> {
        let mut before = vec![ARRAY | 4];
        write_bytes(&mut before, &self.protected);
        let is_tree = self.claims.len() > 1;
        before.extend_from_slice(if is_tree { &INCLUSION } else { &[MAP] });
        let (mut raw, mut proof, mut text) = (Vec::new(), Vec::new(), String::new());
        let value = |(index, claims): (usize, &Py<PyBytes>)| {
            raw.clear();
            raw.extend_from_slice(&[ARRAY | 3, 1]);
            write_bytes(&mut raw, claims.as_bytes(py));
            raw.extend_from_slice(&before);
            if is_tree {
                proof.clear();
                write_head(&mut proof, ARRAY, 3);
                write_head(&mut proof, UINT, self.claims.len() as u64);
                write_head(&mut proof, UINT, index as u64);
                let path = tree::path_of(&self.levels, index);
                write_head(&mut proof, ARRAY, path.len() as u64);
                for node in &path {
                    write_bytes(&mut proof, node);
                }
                write_bytes(&mut raw, &proof);
            }
            raw.push(NULL);
            write_bytes(&mut raw, signature);
            text.clear();
            URL_SAFE_NO_PAD.encode_string(&raw, &mut text);
            PyBytes::new(py, text.as_bytes())
        };
        self.claims.iter().enumerate().map(value).collect()
    }
}

impl Tree {
    fn root(&self) -> PyResult<&Hash> {
        let root = self.levels.last().and_then(|nodes| nodes.first());
        root.ok_or_else(|| PyValueError::new_err("a tree without leaves"))
    }
}
