//! etcd as a store. Ranges are read in one transaction, so at one revision, and followed by one watch from the next revision
//! on, over everything from the first of them to the last: so each batch of it is of whole revisions for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{GetOptions, Txn, TxnOp};
use futures::stream::BoxStream;

use super::follow::{Fold, follow_range};
use super::keys::Keys;
use super::shared::Shared;
use super::tenure::EtcdTenure;
use super::transact::{found, moment, pair, transact};
use crate::error::Result;
use crate::etcd::Change;
use crate::store::{Commit, Compare, Moment, Pair, Range, Read, Store, Write, common_folder};
use crate::tenure::{Leader, Reading, Tenure};

/// etcd as a store, over the client of the backend.
pub(super) struct EtcdStore(pub(super) Arc<Shared>);

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, ranges: &[Range]) -> Result<Read> {
        read(&self.0, ranges).await
    }

    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
        let pairs = Pairs {
            ranges: Arc::clone(ranges),
            by_key: BTreeMap::new(),
            moment: Moment::default(),
        };
        follow_range(Arc::clone(&self.0), pairs)
    }

    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit> {
        transact(&self.0, None, compares, writes, within).await
    }

    fn hold(&self, ttl: Duration) -> Result<Arc<dyn Tenure>> {
        Ok(Arc::new(EtcdTenure::new(Arc::clone(&self.0), ttl)))
    }

    async fn leader(&self, prefix: &str) -> Result<Reading> {
        let read = self.0.client.elections.leader_at(prefix.as_bytes()).await;
        let (leader, revision, cluster) = read.map_err(|fault| self.0.explain_under(fault, "read", prefix, prefix))?;
        let leader = leader.map(|leader| Leader {
            key: String::from_utf8_lossy(&leader.key).into(), // a prefix and digits
            value: leader.value.into(),
            created: leader.revision,
        });
        Ok(Reading {
            leader,
            revision,
            cluster,
        })
    }

    async fn stirs(&self, prefix: &str, since: &Reading) -> Result<()> {
        let elections = &self.0.client.elections;
        elections.stirs(prefix.as_bytes(), since.revision, since.cluster).await
    }
}

/// All pairs of some ranges at one revision, from the leader.
async fn read(shared: &Shared, ranges: &[Range]) -> Result<Read> {
    let get = |range: &Range| {
        let (first, end) = bounds(range);
        TxnOp::get(first, Some(GetOptions::new().with_range(end)))
    };
    let txn = Txn::new().and_then(ranges.iter().map(get).collect::<Vec<_>>());
    let answer = shared
        .client
        .calls
        .call("read the store", |client| {
            let (mut kv, txn) = (shared.client.calls.kv(&client), txn.clone());
            async move { kv.txn(txn).await }
        })
        .await
        .map_err(|fault| shared.explain_under(fault, "read", &called(ranges), common_folder(ranges)))?;
    let answer = answer.0;
    let pairs = (0..ranges.len()).flat_map(|place| found(&answer, place).iter().filter_map(pair));
    Ok(Read {
        pairs: pairs.collect(),
        moment: moment(&answer),
    })
}

/// `[first, end)`.
fn bounds(range: &Range) -> (Vec<u8>, Vec<u8>) {
    let first = range.text().as_bytes().to_vec();
    let mut end = first.clone();
    match range {
        Range::Key(_) => end.push(0),
        // It ends in a slash, whose byte can be raised.
        Range::Under(_) => {
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
        }
    }
    (first, end)
}

fn called(ranges: &[Range]) -> String {
    let texts: Vec<&str> = ranges.iter().map(Range::text).collect();
    texts.join(", ")
}

/// The pairs of some ranges, kept up by their changes.
struct Pairs {
    ranges: Arc<[Range]>,
    by_key: BTreeMap<Arc<str>, Arc<Pair>>,
    moment: Moment,
}

#[async_trait]
impl Fold for Pairs {
    type Read = Read;

    /// From the first key of all ranges to the last.
    fn range(&self, _: &Keys) -> (Vec<u8>, Vec<u8>) {
        let bounds = || self.ranges.iter().map(bounds);
        let first = bounds().map(|(first, _)| first).min();
        let end = bounds().map(|(_, end)| end).max();
        (first.unwrap_or_default(), end.unwrap_or_default())
    }

    fn called(&self, _: &Keys) -> String {
        called(&self.ranges)
    }

    /// Of all ranges, for one watch covers them.
    fn granted(&self, _: &Keys) -> String {
        common_folder(&self.ranges).to_owned()
    }

    async fn read(&mut self, shared: &Shared) -> Result<Moment> {
        let now = read(shared, &self.ranges).await?;
        let mut before = std::mem::take(&mut self.by_key);
        for pair in now.pairs {
            // One that has not changed keeps its `Arc`.
            let same = before.remove(&pair.key).filter(|old| *old == pair).unwrap_or(pair);
            self.by_key.insert(Arc::clone(&same.key), same);
        }
        self.moment = now.moment;
        Ok(now.moment)
    }

    fn change(&mut self, _: &Keys, change: Change) -> bool {
        self.moment.revision = self.moment.revision.max(change.mod_revision);
        let Ok(key) = std::str::from_utf8(&change.key) else {
            return false;
        };
        if !self.ranges.iter().any(|range| range.has(key)) {
            return false; // it lies between two of them
        }
        match change.value {
            Some(value) => {
                let pair = Pair {
                    key: key.into(),
                    value: value.as_ref().into(),
                    revision: change.mod_revision,
                };
                self.by_key.insert(Arc::clone(&pair.key), Arc::new(pair));
                true
            }
            None => self.by_key.remove(key).is_some(),
        }
    }

    fn give(&self) -> Read {
        Read {
            pairs: self.by_key.values().cloned().collect(),
            moment: self.moment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Codec;

    fn pairs(ranges: &[Range]) -> Pairs {
        Pairs {
            ranges: ranges.into(),
            by_key: BTreeMap::new(),
            moment: Moment::default(),
        }
    }

    #[test]
    fn one_watch_covers_all_ranges_and_what_lies_between_is_left_out() {
        let keys = Keys::new("/microservices", Codec::Kratos);
        let ranges = [
            Range::Under("/config/prod/orders/".into()),
            Range::Key("/config/global/limits".into()),
        ];
        let mut pairs = pairs(&ranges);
        let cover = (b"/config/global/limits".to_vec(), b"/config/prod/orders0".to_vec());
        assert_eq!(pairs.range(&keys), cover);
        let mut put = |key: &'static str, mod_revision| {
            let change = Change {
                key: key.as_bytes().into(),
                value: Some("1".into()),
                lease: 0,
                mod_revision,
            };
            pairs.change(&keys, change)
        };
        assert!(put("/config/global/limits", 2));
        assert!(!put("/config/global/limits-old", 3));
        assert!(!put("/config/prod/billing/limits", 4));
        assert!(put("/config/prod/orders/limits", 5));
        assert!(!put("/config/prod/orders-admin/limits", 6));
        let read = pairs.give();
        let found: Vec<_> = read.pairs.iter().map(|pair| (&*pair.key, pair.revision)).collect();
        assert_eq!(found, [("/config/global/limits", 2), ("/config/prod/orders/limits", 5)]);
        assert_eq!(
            read.moment.revision, 6,
            "and what was left out is no news, but a later moment"
        );
    }

    #[test]
    fn who_may_not_is_told_the_prefix_to_be_granted() {
        assert_eq!(common_folder(&[Range::Under("/config/a/".into())]), "/config/a/");
        assert_eq!(common_folder(&[Range::Key("/config/a".into())]), "/config/");
        let two = ["/config/dev/orders/", "/config/dev/über/"].map(|prefix| Range::Under(prefix.into()));
        assert_eq!(common_folder(&two), "/config/dev/");
        let two = ["/config/dev/", "/config/global/"].map(|prefix| Range::Under(prefix.into()));
        assert_eq!(common_folder(&two), "/config/");
    }
}
