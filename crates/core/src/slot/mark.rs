//! What we have of a slot, as far as we know: without I/O.

use super::record::Record;

/// How many writes are remembered whose answer was lost. One of them at most was made.
const TRIED_MOST: usize = 64;

/// The slot that we have, as it stands in the store.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub n: u32,
    pub since: i64,
    pub record: Record,
    /// The revision of the record.
    pub revision: i64,
    /// Nonces of writes whose answer has not come.
    pub tried: Vec<String>,
}

impl Mark {
    /// Whether what stands there is a write of ours; then that is what we have.
    pub fn adopts(&mut self, value: &[u8], revision: i64) -> bool {
        let Some(record) = Record::read(value).filter(|record| self.tried.contains(&record.nonce)) else {
            return false;
        };
        self.record = record;
        self.revision = revision;
        self.tried.clear();
        true
    }

    pub fn tries(&mut self, record: &Record) {
        if self.tried.len() == TRIED_MOST {
            self.tried.remove(0);
        }
        self.tried.push(record.nonce.clone());
    }
}
