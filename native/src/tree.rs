//! Trees and inclusion proofs of RFC 9162 section 2.1 (SHA-256).

use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Returns the hash of a leaf (section 2.1.1).
pub fn leaf_of(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

fn node_of(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// A node of a tree, with the path from it to the root; at first, a leaf with its inclusion proof.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub index: u64,
    pub hash: Hash,
    pub path: &'a [Hash],
}

/// Returns the root of the tree of `size` leaves that contains all of these; `None` if any path does not fit.
///
/// The leaves are sorted by index; each index is below `size`, and no two are equal. The root is the one that each
/// leaf's own path leads to (section 2.1.3.2), but a node above several leaves is hashed only once.
pub fn shared_root(mut nodes: Vec<Place>, size: u64) -> Option<Hash> {
    let mut last = size.checked_sub(1)?;
    while last > 0 {
        let mut above: Vec<Place> = Vec::with_capacity(nodes.len());
        let mut left: Option<Place> = None;
        for node in &nodes {
            let at = node.index;
            if at == last && at & 1 == 0 {
                above.push(Place { index: at >> 1, ..*node }); // it has no sibling here
                continue;
            }
            let (sibling, rest) = node.path.split_first()?;
            match left {
                Some(beside) if at & 1 == 1 && beside.index == at - 1 => {
                    // The node above both has been added already.
                    let (other, same) = beside.path.split_first()?;
                    if *other != node.hash || *sibling != beside.hash || rest != same {
                        return None;
                    }
                }
                _ => {
                    let hash = if at & 1 == 1 { node_of(sibling, &node.hash) } else { node_of(&node.hash, sibling) };
                    above.push(Place { index: at >> 1, hash, path: rest });
                    left = Some(*node);
                }
            }
        }
        nodes = above;
        last >>= 1;
    }
    match nodes.as_slice() {
        [root] if root.path.is_empty() => Some(root.hash),
        _ => None,
    }
}

/// Returns the root of the tree over some leaves, and all levels below it, the leaves first.
///
/// If a level has an odd number of nodes, the last one has no sibling and moves up unchanged. So this pairing, level by
/// level, gives the same tree as the RFC's split at the largest power of two.
pub fn levels_of(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let mut levels = vec![leaves];
    while let Some(nodes) = levels.last().filter(|nodes| nodes.len() > 1) {
        let above = nodes
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node_of(left, right),
                [single] => *single,
                _ => unreachable!("chunks of two"),
            })
            .collect();
        levels.push(above);
    }
    levels
}

/// Returns the path from a leaf to the root.
pub fn path_of(levels: &[Vec<Hash>], index: usize) -> Vec<Hash> {
    levels.iter().enumerate().filter_map(|(up, nodes)| nodes.get((index >> up) ^ 1).copied()).collect()
}
