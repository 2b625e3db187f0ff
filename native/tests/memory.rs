//! The ids that a guard stores take no more bytes than promised, and all of them are found.

use watchword_native::bucket::Bucket;

/// The number of ids that a guard stores in hash tables before they are packed.
const OPEN: u64 = 4096;

fn key_of(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[test]
fn an_id_takes_24_bytes_and_is_found() {
    let count = 50 * OPEN + 7;
    let mut bucket = Bucket::default();
    for number in 0..count {
        bucket.put(key_of(number), number, number as u32 % 3);
        if number % OPEN == OPEN - 1 {
            bucket.seal();
        }
    }
    let (bytes, runs) = bucket.size();
    assert!(bytes as u64 <= 24 * count, "{bytes} bytes for {count} ids");
    assert!(runs <= 16, "{runs} runs");
    assert!((0..count).all(|number| bucket.find(key_of(number)) == Some(number)));
    assert_eq!(bucket.find(key_of(count)), None);
    bucket.forget(&[0].into());
    assert!((0..count).all(|number| bucket.find(key_of(number)).is_some() == (number % 3 != 0)));
    assert_eq!(bucket.owners().get(&0), None);
}
