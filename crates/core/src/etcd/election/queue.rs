//! Which keys below a name are candidates, and which candidate comes before or first.
//!
//! Anybody may write below the name of a lock or an election: documents (`report/readme`), other elections
//! (`orders/eu/…` below `orders/`). A key is that of a candidate if and only if what follows the prefix is the id of the
//! lease that the key lies under. Go's clients and `etcdctl` count every key, and so wait for more than we do, never for
//! less.
//!
//! A key that is put under another lease, or under none, stops to count. Its candidate takes that for its end.

use std::ops::Range;

use etcd_client::proto::{PbKeyValue, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{GetOptions, Txn, TxnOp};
use tokio::time::{Duration, Instant};

use crate::error::ErrorKind;
use crate::etcd::calls::caller::Caller;
use crate::etcd::error::{Cause, Fault};

/// Names read at once. Without values, so that an answer is small; in the order of the keys, so that a page costs etcd no
/// more than its keys.
const PAGE: i64 = 1000;
/// Keys read at once to see their leases. With values, which etcd limits to 1.5 MiB each by default.
const VALUES: usize = 16;

/// The end of the range of all keys with this prefix: its last byte that can be raised is, what follows goes.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0] // no upper bound
}

/// The id of a lease as Go's client and `etcdctl` write it.
pub(super) fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

/// Whether a key below `prefix` that lies under `lease` is that of a candidate. In both namings, whatever our own is: an
/// election may be shared by clients of Go and of etcd3.
pub(super) fn counts(prefix: &[u8], key: &[u8], lease: i64) -> bool {
    let Some(name) = key.strip_prefix(prefix) else {
        return false;
    };
    lease != 0 && (name == hex(lease).as_bytes() || name == lease.to_string().as_bytes())
}

/// Whether a key below `prefix` may be that of a candidate: its last part is the id of some lease.
fn may_count(prefix: &[u8], key: &[u8]) -> bool {
    let Some(name) = key.strip_prefix(prefix).and_then(|name| std::str::from_utf8(name).ok()) else {
        return false;
    };
    let reads = |radix| i64::from_str_radix(name, radix).is_ok_and(|lease| counts(prefix, key, lease));
    reads(10) || reads(16)
}

/// The keys that the read at `place` of a transaction found.
pub(super) fn keys(answer: &PbTxnResponse, place: usize) -> Result<&[PbKeyValue], Fault> {
    match answer.responses.get(place).and_then(|one| one.response.as_ref()) {
        Some(PbTxnOpResponse::ResponseRange(range)) => Ok(&range.kvs),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Fault {
    Fault::new(
        Cause::Refused,
        ErrorKind::Internal,
        "etcd answered a transaction with something else than was asked",
    )
}

/// Which candidate is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Oldest,
    Newest,
}

/// The candidates below `prefix`, as they were at `revision`.
pub(super) struct Queue<'a> {
    pub calls: &'a Caller,
    pub prefix: &'a [u8],
    pub revision: i64,
    /// How long one question may take. There is one for each thousand keys below the prefix, and one for each sixteen of
    /// these that look like candidates.
    pub patience: Duration,
}

impl Queue<'_> {
    /// The oldest or newest candidate that was created in these revisions, by looking through all keys. For where the key
    /// that etcd itself says to be the oldest or newest is nobody's.
    pub async fn find(&self, created: Range<i64>, end: End) -> Result<Option<PbKeyValue>, Fault> {
        let mut best: Option<PbKeyValue> = None;
        let mut from = self.prefix.to_vec();
        loop {
            let (mut names, more) = self.page(&from).await?;
            if let Some(last) = names.last().filter(|_| more) {
                from = [last.key.as_slice(), &[0]].concat();
            }
            names.retain(|kv| created.contains(&kv.create_revision) && may_count(self.prefix, &kv.key));
            names.sort_unstable_by_key(|kv| match end {
                End::Oldest => kv.create_revision,
                End::Newest => -kv.create_revision,
            });
            for some in names.chunks(VALUES) {
                let better = |kv: &PbKeyValue| match (&best, end) {
                    (None, _) => true,
                    (Some(best), End::Oldest) => kv.create_revision < best.create_revision,
                    (Some(best), End::Newest) => kv.create_revision > best.create_revision,
                };
                if !some.first().is_some_and(better) {
                    break;
                }
                let found = self.read(some).await?;
                let first = found.into_iter().find(|kv| counts(self.prefix, &kv.key, kv.lease));
                if let Some(first) = first {
                    if better(&first) {
                        best = Some(first);
                    }
                    break;
                }
            }
            if !more {
                return Ok(best);
            }
        }
    }

    /// The next names from this one on, and whether there are more.
    async fn page(&self, from: &[u8]) -> Result<(Vec<PbKeyValue>, bool), Fault> {
        let options = GetOptions::new()
            .with_range(end_of(self.prefix))
            .with_revision(self.revision)
            .with_limit(PAGE)
            .with_keys_only();
        let until = Instant::now() + self.patience;
        let (answer, _) = self
            .calls
            .call_until("look through the keys of a queue", until, |connection| {
                let (mut kv, from, options) = (self.calls.kv(&connection), from.to_vec(), options.clone());
                async move { kv.get(from, Some(options)).await }
            })
            .await?;
        let more = answer.0.more && !answer.0.kvs.is_empty();
        Ok((answer.0.kvs, more))
    }

    /// The whole keys, in the same order: etcd 3.7 tells no leases with names alone.
    async fn read(&self, names: &[PbKeyValue]) -> Result<Vec<PbKeyValue>, Fault> {
        let at = GetOptions::new().with_revision(self.revision);
        let reads: Vec<TxnOp> = names
            .iter()
            .map(|kv| TxnOp::get(kv.key.as_slice(), Some(at.clone())))
            .collect();
        let txn = Txn::new().and_then(reads);
        let until = Instant::now() + self.patience;
        let (answer, _) = self
            .calls
            .call_until("read the keys of a queue", until, |connection| {
                let (mut kv, txn) = (self.calls.kv(&connection), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        let mut found = Vec::with_capacity(names.len());
        for place in 0..names.len() {
            found.extend(keys(&answer.0, place)?.iter().cloned());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0]);
        assert_eq!(end_of(b""), [0]);
    }

    #[test]
    fn a_key_counts_by_its_own_lease_alone() {
        let yes: [(&str, i64); 4] = [("a/1f", 0x1f), ("a/31", 31), ("a/31", 0x31), ("a/-1", -1)];
        for (key, lease) in yes {
            assert!(counts(b"a/", key.as_bytes(), lease), "{key} {lease}");
            assert!(may_count(b"a/", key.as_bytes()), "{key}");
        }
        let no: [(&str, i64); 9] = [
            ("a/readme", 31),
            ("a/0", 0),
            ("a/1f", 0),
            ("a/1f", 32),
            ("a/1F", 0x1f),
            ("a/01f", 0x1f),
            ("a/x/1f", 0x1f),
            ("a/", 31),
            ("b/1f", 0x1f),
        ];
        for (key, lease) in no {
            assert!(!counts(b"a/", key.as_bytes(), lease), "{key} {lease}");
        }
        for key in [
            "a/readme", "a/0", "a/1F", "a/01f", "a/+1", "a/x/1f", "a/", "a/1f/", "a/\u{e9}", "b/1f",
        ] {
            assert!(!may_count(b"a/", key.as_bytes()), "{key}");
        }
    }
}
