//! Deterministic CBOR (RFC 8949 section 4.2.1), as far as envelopes need it.
//!
//! Envelopes have one fixed layout, so the reader expects one kind of item at each place and refuses any other. Tags,
//! floats and indefinite lengths are never expected, so they cannot be read.

pub const UINT: u8 = 0x00;
pub const NEGATIVE: u8 = 0x20;
pub const BYTES: u8 = 0x40;
pub const TEXT: u8 = 0x60;
pub const ARRAY: u8 = 0x80;
pub const MAP: u8 = 0xa0;
pub const NULL: u8 = 0xf6;

/// Part of a byte string: where it begins and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.start..self.end]
    }
}

/// Reads items from a byte string, one after the other; `None` if the next item is not the expected one.
pub struct Reader<'a> {
    data: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8], at: usize) -> Self {
        Reader { data, at }
    }

    pub fn is_done(&self) -> bool {
        self.at == self.data.len()
    }

    /// Returns true if these bytes come next; consumes nothing.
    pub fn sees(&self, wanted: &[u8]) -> bool {
        self.data.get(self.at..).is_some_and(|rest| rest.starts_with(wanted))
    }

    /// Consumes exactly these bytes.
    pub fn expect(&mut self, wanted: &[u8]) -> Option<()> {
        self.sees(wanted).then(|| self.at += wanted.len())
    }

    pub fn take(&mut self, size: usize) -> Option<Span> {
        let end = self.at.checked_add(size)?;
        if end > self.data.len() {
            return None;
        }
        let span = Span { start: self.at, end };
        self.at = end;
        Some(span)
    }

    /// Takes `N` bytes as they are.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let span = self.take(N)?;
        span.of(self.data).try_into().ok()
    }

    /// Reads the head of an item of one major type: its argument, which must be in its shortest form.
    pub fn head(&mut self, major: u8) -> Option<u64> {
        let argument = self.data.get(self.at)?.checked_sub(major)?;
        if argument < 24 {
            self.at += 1;
            return Some(u64::from(argument));
        }
        if argument > 27 {
            return None;
        }
        self.at += 1;
        let width = 1usize << (argument - 24);
        let raw = self.take(width)?;
        let number = raw.of(self.data).iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let least = if width == 1 { 24 } else { 1u64 << (width * 4) };
        (number >= least).then_some(number)
    }

    /// Reads an unsigned or negative integer.
    pub fn int(&mut self) -> Option<i128> {
        if *self.data.get(self.at)? < NEGATIVE {
            return self.head(UINT).map(i128::from);
        }
        self.head(NEGATIVE).map(|number| -1 - i128::from(number))
    }

    pub fn bytes(&mut self) -> Option<Span> {
        let size = self.head(BYTES)?;
        self.take(usize::try_from(size).ok()?)
    }

    pub fn text(&mut self) -> Option<Span> {
        let size = self.head(TEXT)?;
        let span = self.take(usize::try_from(size).ok()?)?;
        std::str::from_utf8(span.of(self.data)).ok()?;
        Some(span)
    }

    /// Reads a number below a limit.
    pub fn below(&mut self, limit: u64) -> Option<u64> {
        self.head(UINT).filter(|number| *number < limit)
    }
}

/// Writes the head of an item.
pub fn write_head(out: &mut Vec<u8>, major: u8, number: u64) {
    match number {
        0..24 => out.push(major | number as u8),
        24..0x100 => out.extend([major | 24, number as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((number as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(number.to_be_bytes());
        }
    }
}

/// Writes a byte string.
pub fn write_bytes(out: &mut Vec<u8>, raw: &[u8]) {
    write_head(out, BYTES, raw.len() as u64);
    out.extend(raw);
}

/// Writes a text string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend(text.as_bytes());
}
