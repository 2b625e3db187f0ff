//! The native engine of Watchword: the per-message work, for whole runs of messages.
//!
//! It decides nothing that depends on settings or plug-ins, and it never rejects a message: see `run`.

pub mod batch;
pub mod block;
pub mod bucket;
pub mod cbor;
pub mod envelope;
pub mod hashing;
pub mod tree;

#[cfg(feature = "python")]
mod kept;
#[cfg(feature = "python")]
mod run;
#[cfg(feature = "python")]
mod sign;

use ed25519_dalek::{Signature, Verifier, VerifyingKey};

/// Returns true if an Ed25519 signature is valid: RFC 8032 section 5.1.7 without the cofactor, as OpenSSL checks it.
///
/// The caller must refuse keys of small order, once, when a key is loaded.
pub fn verifies(public: &[u8], signature: &[u8], data: &[u8]) -> bool {
    let Ok(public) = public.try_into() else {
        return false;
    };
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(public), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify(data, &signature).is_ok()
}

#[cfg(feature = "python")]
#[pyo3::pymodule]
mod watchword_native {
    use crate::envelope;
    use crate::tree;
    use pyo3::prelude::*;
    use pyo3::types::{PyBytes, PyTuple};

    #[pymodule_export]
    use super::kept::{Bucket, Entries};
    #[pymodule_export]
    use super::run::{Hasher, Run};
    #[pymodule_export]
    use super::sign::{Layout, Tree};

    /// The length from which on it pays to release the GIL for hashing, in bytes.
    const LONG: usize = 2048;

    /// Version of the interface that `watchword.engine` describes.
    #[pymodule_export]
    const INTERFACE: u32 = 5;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Returns true if an Ed25519 signature is valid; releases the GIL.
    #[pyfunction]
    fn verifies(py: Python<'_>, public: &[u8], signature: &[u8], data: &[u8]) -> bool {
        py.detach(|| super::verifies(public, signature, data))
    }

    /// SHA-256; releases the GIL for long data.
    #[pyfunction]
    fn sha256<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
        let digest = if data.len() > LONG { py.detach(|| tree::sha256(&[data])) } else { tree::sha256(&[data]) };
        PyBytes::new(py, &digest)
    }

    /// Reads one envelope, `None` if it is invalid: what envelopes of one sender have in common, id, issue time,
    /// digests of metadata and value, claims, their leaf, signature, size, index and path.
    #[pyfunction]
    fn read_envelope<'py>(py: Python<'py>, header: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let mut raw = Vec::with_capacity(header.len());
        let Some(one) = envelope::unarmor(header, &mut raw).and_then(|span| envelope::parse(span.of(&raw))) else {
            return Ok(None);
        };
        let bytes = |part: &[u8]| PyBytes::new(py, part);
        let claims = one.claims.of(&raw);
        let found = (
            bytes(&one.identity(&raw)),
            bytes(&one.id),
            one.issued_at,
            one.metadata.map(|digest| bytes(&digest)),
            one.value.map(|digest| bytes(&digest)),
            bytes(claims),
            bytes(&tree::leaf_of(claims)),
            bytes(one.signature.of(&raw)),
            one.size,
            one.index,
            PyTuple::new(py, envelope::path_of(one.path.of(&raw)).map(|hash| bytes(hash)).collect::<Vec<_>>())?,
        );
        found.into_pyobject(py).map(Some)
    }

    /// Reads a NATS header block without a status line into pairs of name and value; `None` if it is invalid.
    #[pyfunction]
    fn read_block<'py>(py: Python<'py>, block: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let mut headers = Vec::new();
        if super::block::read(block, &mut headers).is_none() {
            return Ok(None);
        }
        let pairs = headers.iter().map(|(name, value)| {
            (String::from_utf8_lossy(name.of(block)), PyBytes::new(py, value.of(block))).into_pyobject(py)
        });
        PyTuple::new(py, pairs.collect::<PyResult<Vec<_>>>()?).map(Some)
    }

    /// Where the valid batches of a fetched record set, from `at` on, end; see `batch`.
    #[pyfunction]
    fn sound_until(raw: &[u8], at: usize, most: usize, log_end: i64) -> usize {
        super::batch::sound_until(raw, at, most, log_end)
    }

    /// Returns true if these are `count` valid records, at offsets that ascend up to `last_delta`.
    #[pyfunction]
    fn are_sound(records: &[u8], count: i32, last_delta: i32) -> bool {
        super::batch::are_sound(records, count, last_delta)
    }
}
