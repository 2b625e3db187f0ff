//! The ids of one time slice, stored compactly: new ones in a hash table, the others in sorted arrays.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Ids in one run; sorting that many takes about a millisecond.
const LARGEST: usize = 1 << 15;

/// What a guard stores of a message.
#[derive(Clone, Copy)]
pub struct Entry {
    pub issued_at: u64,
    pub key: u64,
    pub mark: u64,
    pub offset: Option<u64>,
}

/// Keys are already hashes with secret coefficients, so an attacker cannot make them collide.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Builder = BuildHasherDefault<Hashed>;

/// Returns true if two entries have the same key.
pub fn has_twins(entries: &[Entry]) -> bool {
    let mut keys: HashSet<u64, Builder> = HashSet::with_capacity_and_hasher(entries.len(), Builder::default());
    !entries.iter().all(|one| keys.insert(one.key))
}

/// Under each key a mark, and the number of its owner.
#[derive(Clone, Default)]
pub struct Bucket {
    open: HashMap<u64, (u64, u32), Builder>,
    runs: Vec<Run>,
}

/// Three columns, in the order of the keys.
#[derive(Clone)]
struct Run {
    keys: Vec<u64>,
    marks: Vec<u64>,
    owners: Vec<u32>,
}

type Row = (u64, u64, u32);

impl Run {
    fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_unstable_by_key(|row| row.0);
        Run {
            keys: rows.iter().map(|row| row.0).collect(),
            marks: rows.iter().map(|row| row.1).collect(),
            owners: rows.iter().map(|row| row.2).collect(),
        }
    }

    fn rows(self) -> impl Iterator<Item = Row> {
        self.keys.into_iter().zip(self.marks).zip(self.owners).map(|((key, mark), owner)| (key, mark, owner))
    }
}

impl Bucket {
    /// Returns the mark under a key.
    pub fn find(&self, key: u64) -> Option<u64> {
        if let Some((mark, _)) = self.open.get(&key) {
            return Some(*mark);
        }
        self.runs.iter().find_map(|run| run.keys.binary_search(&key).ok().map(|at| run.marks[at]))
    }

    /// Adds a new key; returns true if it is the only unpacked one.
    pub fn put(&mut self, key: u64, mark: u64, owner: u32) -> bool {
        let is_first = self.open.is_empty();
        self.open.insert(key, (mark, owner));
        is_first
    }

    /// Returns how many ids each owner has.
    pub fn owners(&self) -> HashMap<u32, u64> {
        let mut found = HashMap::new();
        let open = self.open.values().map(|(_, owner)| owner);
        for owner in open.chain(self.runs.iter().flat_map(|run| &run.owners)) {
            *found.entry(*owner).or_default() += 1;
        }
        found
    }

    /// Drops all ids of these owners.
    pub fn forget(&mut self, owners: &HashSet<u32>) {
        self.seal();
        for run in std::mem::take(&mut self.runs) {
            let left: Vec<Row> = run.rows().filter(|row| !owners.contains(&row.2)).collect();
            if !left.is_empty() {
                self.runs.push(Run::new(left));
            }
        }
    }

    /// Packs the open ids into a run; runs of similar size are merged, so that lookups search only a few.
    pub fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let open = std::mem::take(&mut self.open);
        self.runs.push(Run::new(open.into_iter().map(|(key, (mark, owner))| (key, mark, owner)).collect()));
        while let [.., one, other] = self.runs.as_slice() {
            let (larger, smaller) = (one.keys.len(), other.keys.len());
            if larger > 2 * smaller || larger + smaller > LARGEST {
                break;
            }
            let merged = self.runs.pop().into_iter().chain(self.runs.pop()).flat_map(Run::rows).collect();
            self.runs.push(Run::new(merged));
        }
    }

    /// Returns the size in bytes, and the number of runs.
    pub fn size(&self) -> (usize, usize) {
        let runs =
            self.runs.iter().map(|run| 8 * (run.keys.capacity() + run.marks.capacity()) + 4 * run.owners.capacity());
        (self.open.capacity() * size_of::<(u64, (u64, u32))>() + runs.sum::<usize>(), self.runs.len())
    }
}
