//! The guard's entries and buckets as Python classes; `watchword.packed` gives the same results.

use crate::bucket::{self, Entry};
use pyo3::prelude::*;
use std::collections::{HashMap, HashSet};

/// The entries of consecutive messages.
#[pyclass(module = "watchword_native", frozen)]
pub struct Entries {
    pub rows: Vec<Entry>,
}

#[pymethods]
impl Entries {
    #[new]
    fn new(rows: Vec<(u64, u64, u64, Option<u64>)>) -> Self {
        let entry = |(issued_at, key, mark, offset)| Entry { issued_at, key, mark, offset };
        Entries { rows: rows.into_iter().map(entry).collect() }
    }

    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// True if two entries have the same key.
    #[getter]
    fn has_twins(&self) -> bool {
        bucket::has_twins(&self.rows)
    }

    /// Returns (issue time, key, mark, offset) of each.
    fn rows(&self) -> Vec<(u64, u64, u64, Option<u64>)> {
        self.rows.iter().map(|row| (row.issued_at, row.key, row.mark, row.offset)).collect()
    }

    /// Returns the key of each.
    fn keys(&self) -> Vec<u64> {
        self.rows.iter().map(|row| row.key).collect()
    }
}

/// Ids of one slice of time.
#[pyclass(module = "watchword_native")]
pub struct Bucket {
    ids: bucket::Bucket,
    /// The lowest offset of a record whose id is here; infinity if there is none.
    #[pyo3(get, set)]
    lowest: f64,
}

#[pymethods]
impl Bucket {
    #[new]
    fn new() -> Self {
        Bucket { ids: bucket::Bucket::default(), lowest: f64::INFINITY }
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        Bucket { ids: self.ids.clone(), lowest: self.lowest }
    }

    fn find(&self, key: u64) -> Option<u64> {
        self.ids.find(key)
    }

    fn put(&mut self, key: u64, mark: u64, owner: u32) -> bool {
        self.ids.put(key, mark, owner)
    }

    fn owners(&self) -> HashMap<u32, u64> {
        self.ids.owners()
    }

    #[pyo3(name = "drop")]
    fn forget(&mut self, owners: HashSet<u32>) {
        self.ids.forget(&owners);
    }

    fn seal(&mut self) {
        self.ids.seal();
    }

    /// Returns true if any of the entries' keys is here.
    fn holds_any(&self, entries: &Entries) -> bool {
        entries.rows.iter().any(|row| self.ids.find(row.key).is_some())
    }

    /// Adds entries whose keys are new; returns true if they are the only unpacked ones.
    fn put_all(&mut self, entries: &Entries, owner: u32) -> bool {
        let mut is_first = false;
        for row in &entries.rows {
            is_first |= self.ids.put(row.key, row.mark, owner);
            if let Some(offset) = row.offset {
                self.lowest = self.lowest.min(offset as f64);
            }
        }
        is_first
    }
}
