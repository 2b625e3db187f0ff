//! The native engine of Watchword: the work that each message costs, for whole runs of messages.
//!
//! It judges nothing that a person or a plug-in has a say in, and never says no: see `run`.

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

/// Whether an Ed25519 signature holds: the one of RFC 8032 section 5.1.7 without the cofactor, as OpenSSL checks it.
///
/// Keys of small order are for the caller to refuse, once, when a key is loaded.
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
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::kept::{Bucket, Entries};
    #[pymodule_export]
    use super::run::{Hasher, Run};
    #[pymodule_export]
    use super::sign::{Layout, Tree};

    /// Number of the interface that `watchword.engine` describes.
    #[pymodule_export]
    const INTERFACE: u32 = 3;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Whether an Ed25519 signature holds; other threads run meanwhile.
    #[pyfunction]
    fn verifies(py: Python<'_>, public: &[u8], signature: &[u8], data: &[u8]) -> bool {
        py.detach(|| super::verifies(public, signature, data))
    }

    /// Where the sound batches of a fetched record set end that begins at `at`; see `batch`.
    #[pyfunction]
    fn sound_until(raw: &[u8], at: usize, most: usize, log_end: i64) -> usize {
        super::batch::sound_until(raw, at, most, log_end)
    }

    /// Whether these are so many sound records, at offsets that ascend up to `last_delta`.
    #[pyfunction]
    fn are_sound(records: &[u8], count: i32, last_delta: i32) -> bool {
        super::batch::are_sound(records, count, last_delta)
    }
}
