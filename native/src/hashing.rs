//! Hashes ids and places to 64 bits: a universal hash (Carter and Wegman, 1979) modulo 2^130 - 5.
//!
//! It is the hash of `watchword.hashing`, with the same secrets, because both engines share one store.

/// A number below 2^320, the low limb first.
type Wide = [u64; 5];

const LOW: u64 = 0b11;

/// Adds `one * other` to a sum; an overflow is dropped, and does not occur with the callers' numbers.
fn add_product(sum: &mut Wide, one: &[u64], other: &[u64]) {
    for (at, left) in one.iter().enumerate() {
        let mut carry = 0u128;
        for (by, limb) in sum.iter_mut().skip(at).enumerate() {
            let right = other.get(by).copied().unwrap_or(0);
            let total = u128::from(*left) * u128::from(right) + u128::from(*limb) + carry;
            *limb = total as u64;
            carry = total >> 64;
        }
    }
}

/// Returns the low 64 bits of a number modulo 2^130 - 5.
fn reduced(mut number: Wide) -> u64 {
    // 2^130 is 5 here, so bits from 130 on count five times; three rounds leave less than 2^130 + 40.
    for _ in 0..3 {
        let high = [number[2] >> 2 | number[3] << 62, number[3] >> 2 | number[4] << 62, number[4] >> 2];
        number = [number[0], number[1], number[2] & LOW, 0, 0];
        add_product(&mut number, &high, &[5]);
    }
    let prime = [u64::MAX - 4, u64::MAX, LOW];
    let is_over = (number[2], number[1], number[0]) >= (prime[2], prime[1], prime[0]);
    if is_over { number[0].wrapping_sub(prime[0]) } else { number[0] }
}

/// The three coefficients, secrets of the process.
#[derive(Clone)]
pub struct Secrets {
    pub a: [u64; 3],
    pub b: [u64; 3],
    pub c: [u64; 3],
}

/// Returns the limbs of a number.
pub fn limbs(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

impl Secrets {
    /// Returns the key under which an id is stored.
    pub fn key(&self, id: &[u8; 16], issued_at: u64, principal: [u64; 2]) -> u64 {
        let mut sum = [principal[0], principal[1], 0, 0, 0];
        add_product(&mut sum, &limbs(u128::from_be_bytes(*id)), &self.a);
        add_product(&mut sum, &[issued_at], &self.b);
        reduced(sum)
    }

    /// Returns the mark for claims and their place; `half` is the first half of the claims' digest.
    pub fn mark(&self, half: &[u8; 16], place: Option<(u64, u64, [u64; 2])>) -> u64 {
        let mut sum = [0; 5];
        if let Some((offset, stamp, log)) = place {
            sum[..2].copy_from_slice(&log);
            add_product(&mut sum, &[offset], &self.b);
            add_product(&mut sum, &[stamp], &self.c);
        }
        add_product(&mut sum, &limbs(u128::from_be_bytes(*half)), &self.a);
        reduced(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::{Secrets, reduced};

    #[test]
    fn the_prime_is_zero_and_its_neighbours_are_not() {
        assert_eq!(reduced([u64::MAX - 4, u64::MAX, 3, 0, 0]), 0);
        assert_eq!(reduced([u64::MAX - 3, u64::MAX, 3, 0, 0]), 1);
        assert_eq!(reduced([u64::MAX - 5, u64::MAX, 3, 0, 0]), u64::MAX - 5);
        assert_eq!(reduced([0, 0, 4, 0, 0]), 5);
    }

    #[test]
    fn a_mark_depends_on_each_part_of_a_place() {
        let secrets = Secrets { a: [3, 5, 1], b: [7, 11, 2], c: [13, 17, 3] };
        let half = [9; 16];
        let mark = |offset, stamp, log| secrets.mark(&half, Some((offset, stamp, log)));
        let all = [mark(1, 1, [1, 0]), mark(2, 1, [1, 0]), mark(1, 2, [1, 0]), mark(1, 1, [2, 0])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}
