//! The names: read by pages at one revision, then followed by one watch over the prefix. A change costs what it holds; a
//! list, one for all changes that wait together, a pointer for each name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::GetOptions;

use super::follow::Fold;
use super::keys::Keys;
use super::shared::Shared;
use crate::backend::ServiceName;
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::{Cause, Change, Fault};
use crate::store::Moment;

/// Keys per page when all of the prefix is read.
const PAGE: i64 = 1000;
/// How often reading all pages is begun anew because its revision was compacted meanwhile.
const COMPACTED_TRIES: u32 = 3;

/// The names that have an instance, and under which of them each key counts.
#[derive(Default)]
pub(super) struct Names {
    /// By what of a key follows the prefix. Bad and foreign records count nowhere.
    counted: HashMap<Box<[u8]>, Arc<str>>,
    names: BTreeMap<Arc<str>, Arc<ServiceName>>,
}

impl Names {
    /// All names at one revision.
    pub(super) async fn read(shared: &Shared) -> Result<(Self, Moment)> {
        for _ in 0..COMPACTED_TRIES {
            match Self::read_once(shared).await {
                Err(fault) if fault.cause == Cause::Compacted => {}
                other => return other.map_err(|fault| shared.explain(fault, "read", shared.keys.prefix())),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "etcd compacted the revision that was being listed, again and again",
        ))
    }

    /// Fails with `Compacted` when the revision went away between two pages.
    async fn read_once(shared: &Shared) -> Result<(Self, Moment), Fault> {
        let (first, end) = shared.keys.all();
        let mut all = Self::default();
        let mut from = first;
        let mut moment = Moment {
            revision: 0,
            cluster: 0,
        };
        let mut limit = PAGE;
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(limit)
                .with_revision(moment.revision);
            let page = match shared.range("list services", from.clone(), options).await {
                // Large records: fewer at a time.
                Err(fault) if fault.cause == Cause::TooLarge && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                other => other?,
            };
            if moment.revision == 0 {
                // Later answers name the revision of their own moment, not that of what they hold.
                moment = Moment {
                    revision: page.revision,
                    cluster: page.cluster,
                };
            }
            for record in &page.records {
                all.put(&shared.keys, record.key(), Some(record.value()));
            }
            match page.records.last() {
                Some(last) if i64::try_from(page.records.len()).unwrap_or(limit) >= limit => {
                    from = last.key().to_vec();
                    from.push(0); // the first key after it
                }
                _ => return Ok((all, moment)),
            }
        }
    }

    /// The names alone.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names.into_keys().map(|name| name.to_string()).collect()
    }

    /// What a key holds now. Whether that makes any difference.
    fn put(&mut self, keys: &Keys, key: &[u8], value: Option<&[u8]>) -> bool {
        let own = key.get(keys.prefix().len()..).unwrap_or(key);
        let name = value.and_then(|value| keys.name_of(key, value));
        let before = self.counted.get(own);
        if before.map(AsRef::as_ref) == name.as_deref() {
            return false;
        }
        if let Some(before) = before.cloned() {
            self.count(&before, false);
        }
        match name {
            Some(name) => {
                // One text for all records of a name.
                let known = self.names.get_key_value(name.as_str());
                let name = known.map_or_else(|| name.as_str().into(), |(known, _)| Arc::clone(known));
                self.count(&name, true);
                self.counted.insert(own.into(), name);
            }
            None => {
                self.counted.remove(own);
            }
        }
        true
    }

    /// One instance more of a name, or less.
    fn count(&mut self, name: &Arc<str>, more: bool) {
        let before = self.names.get(name).and_then(|known| known.count).unwrap_or(0);
        let count = if more {
            before.saturating_add(1)
        } else {
            before.saturating_sub(1)
        };
        if count == 0 {
            self.names.remove(name);
            return;
        }
        let entry = Arc::new(ServiceName {
            name: Arc::clone(name),
            count: Some(count),
        });
        self.names.insert(Arc::clone(name), entry);
    }
}

#[async_trait]
impl Fold for Names {
    type Read = Vec<Arc<ServiceName>>;

    fn range(&self, keys: &Keys) -> (Vec<u8>, Vec<u8>) {
        keys.all()
    }

    fn called(&self, keys: &Keys) -> String {
        keys.prefix().to_owned()
    }

    async fn read(&mut self, shared: &Shared) -> Result<Moment> {
        let (read, moment) = Self::read(shared).await?;
        *self = read;
        Ok(moment)
    }

    fn change(&mut self, keys: &Keys, change: Change) -> bool {
        self.put(keys, &change.key, change.value.as_deref())
    }

    fn give(&self) -> Self::Read {
        self.names.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Codec;

    #[test]
    fn a_name_counts_its_instances_and_nothing_else() {
        let keys = Keys::new("/p", Codec::Kratos);
        let mut names = Names::default();
        let mut put = |key: &str, name: Option<&str>| {
            let value = name.map(|name| match name {
                "" => "not json".to_owned(),
                name => format!(r#"{{"id":"x","name":"{name}"}}"#),
            });
            let changed = names.put(&keys, key.as_bytes(), value.as_deref().map(str::as_bytes));
            let all = names.give();
            let all: Vec<_> = all.iter().map(|n| format!("{} {:?}", n.name, n.count)).collect();
            (changed, all.join(", "))
        };
        let known = |changed, all: &str| (changed, all.to_owned());
        assert_eq!(put("/p/a/1", Some("a")), known(true, "a Some(1)"));
        assert_eq!(
            put("/p/a/1", Some("a")),
            known(false, "a Some(1)"),
            "renewed or written again"
        );
        assert_eq!(put("/p/a/2", Some("a")), known(true, "a Some(2)"));
        assert_eq!(put("/p/b/1", Some("")), known(false, "a Some(2)"), "bad");
        assert_eq!(
            put("/p/b/1", Some("c")),
            known(false, "a Some(2)"),
            "of a name that lies elsewhere"
        );
        assert_eq!(put("/p/a/b/1", Some("a/b")), known(true, "a Some(2), a/b Some(1)"));
        assert_eq!(
            put("/p/a/b/1", Some("a")),
            known(true, "a Some(3)"),
            "the record says of which name it is"
        );
        assert_eq!(put("/p/a/1", Some("")), known(true, "a Some(2)"), "it turned bad");
        assert_eq!(put("/p/a/2", None), known(true, "a Some(1)"));
        assert_eq!(put("/p/a/b/1", None), known(true, ""));
        assert_eq!(put("/p/a/b/1", None), known(false, ""));
        assert!(names.counted.is_empty() && names.names.is_empty());
    }
}
