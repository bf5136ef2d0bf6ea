//! A watch is lines without an end: cuts what comes into them, each of bounded length.

/// The longest line: an object is refused by the server well below that.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;

/// The pieces of a body, as lines.
#[derive(Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins, and up to where no end of it was found.
    start: usize,
    searched: usize,
}

/// A line is longer than [`LONGEST`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Takes a piece in. What was cut before is forgotten.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line that is not empty, without its end.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                let is_long = self.buffer.len() - self.start > LONGEST;
                return if is_long { Err(TooLong) } else { Ok(None) };
            };
            let (from, to) = (self.start, self.searched + at);
            self.start = to + 1;
            self.searched = self.start;
            if to - from > LONGEST {
                return Err(TooLong);
            }
            let is_blank = self.buffer[from..to].iter().all(u8::is_ascii_whitespace);
            if !is_blank {
                return Ok(Some(&self.buffer[from..to]));
            }
        }
    }

    /// Whether a line has begun that has not ended.
    pub(super) fn is_half(&self) -> bool {
        self.buffer[self.start..].iter().any(|byte| !byte.is_ascii_whitespace())
    }
}
