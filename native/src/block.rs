//! A NATS header block without a status line, read as strictly as the adapter's `read_block` does.

use crate::cbor::Span;

const BEGIN: &[u8] = b"NATS/1.0\r\n";
const CRLF: &[u8] = b"\r\n";

/// A header: where its name and its value stand in the block.
pub type Header = (Span, Span);

/// Reads `NATS/1.0`, `name: value` lines and the empty line at the end onto `out`; `None` says that it is no such block.
pub fn read(block: &[u8], out: &mut Vec<Header>) -> Option<()> {
    if !block.starts_with(BEGIN) {
        return None;
    }
    let mut at = BEGIN.len();
    loop {
        // A line break may occur only at a line's end.
        let end = at + block[at..].iter().position(|byte| *byte == b'\r' || *byte == b'\n')?;
        if !block[end..].starts_with(CRLF) {
            return None;
        }
        if end == at {
            return (end + CRLF.len() == block.len()).then_some(());
        }
        let colon = at + block[at..end].iter().position(|byte| *byte == b':')?;
        if colon == at || !block[at..colon].iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            return None;
        }
        let value = &block[colon + 1..end];
        let start = colon + 1 + value.iter().take_while(|byte| is_blank(**byte)).count();
        let blanks = value.iter().rev().take_while(|byte| is_blank(**byte)).count();
        out.push((Span { start: at, end: colon }, Span { start, end: start.max(end - blanks) }));
        at = end + CRLF.len();
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::read;

    fn pairs(block: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
        let mut out = Vec::new();
        read(block, &mut out)?;
        Some(out.iter().map(|(name, value)| (name.of(block), value.of(block))).collect())
    }

    #[test]
    fn a_block_gives_its_pairs_in_order() {
        let block = b"NATS/1.0\r\na:1\r\nB: \t x y\t\r\na: \r\n\r\n";
        let wanted: Vec<(&[u8], &[u8])> = vec![(b"a", b"1"), (b"B", b"x y"), (b"a", b"")];
        assert_eq!(pairs(block), Some(wanted));
        assert_eq!(pairs(b"NATS/1.0\r\n\r\n"), Some(vec![]));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let broken: [&[u8]; 13] = [
            b"",
            b"NATS/1.0",
            b"NATS/1.0\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.1\r\n\r\n",
            b"NATS/1.0\r\na: 1\r\n",
            b"NATS/1.0\r\na 1\r\n\r\n",
            b"NATS/1.0\r\n: 1\r\n\r\n",
            b"NATS/1.0\r\na b: 1\r\n\r\n",
            b"NATS/1.0\r\n\xff: 1\r\n\r\n",
            b"NATS/1.0\r\na: 1\r\r\n\r\n",
            b"NATS/1.0\r\na: 1\n2\r\n\r\n",
            b"NATS/1.0\r\na: 1\r\n\r\nb: 2\r\n\r\n",
        ];
        for block in broken {
            assert_eq!(pairs(block), None, "{block:?}");
        }
    }
}
