//! The configuration of a client: conversions of ranges and transactions. What is followed is a watcher as the others
//! are.

use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use rollcall_core::store::{Commit, Compare, Range, Write, problem_of_key};

use crate::call::{CancelHandle, JsResult, ms, promise};
use crate::client::ClientHandle;
use crate::failure::NativeFailure;
use crate::pairs::{NativePair, revision_of};
use crate::watcher::PairsWatcherHandle;

/// A key, or with `under` all keys that begin so.
#[napi(object)]
pub struct NativeRange {
    pub text: String,
    pub under: bool,
}

#[napi(object, object_from_js = false)]
pub struct NativePairsRead {
    pub pairs: Vec<NativePair>,
    pub revision: f64,
}

#[napi(object)]
pub struct NativeCompare {
    pub key: String,
    /// 0: there is none.
    pub revision: f64,
}

#[napi(object, use_nullable = true)]
pub struct NativeWrite {
    pub key: String,
    /// `null` deletes it.
    pub value: Option<String>,
}

#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeCommit {
    pub revision: f64,
    pub deleted: u32,
    /// Where nothing was changed: what stands at the keys that were compared.
    pub conflict: Option<Vec<Option<NativePair>>>,
}

/// What is wrong with a key of a store, if anything is.
#[napi(catch_unwind)]
pub fn problem_of_store_key(key: String) -> Option<String> {
    problem_of_key(&key)
}

#[napi]
impl ClientHandle {
    #[napi(catch_unwind, ts_return_type = "Promise<NativePairsRead>")]
    pub fn read_pairs<'env>(
        &self,
        env: &'env Env,
        ranges: Vec<NativeRange>,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<NativePairsRead>>> {
        let config = self.registry.config();
        promise(env, &self.io, cancel, "", async move {
            let ranges: Vec<Range> = ranges.into_iter().map(Into::into).collect();
            let read = config?.read(&ranges, ms(timeout_ms)).await?;
            Ok(NativePairsRead {
                pairs: read.pairs.iter().map(|pair| (&**pair).into()).collect(),
                revision: revision_of(read.moment),
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn follow_pairs(&self, env: Env, ranges: Vec<NativeRange>, settle_ms: f64) -> Result<PairsWatcherHandle> {
        let config = match self.registry.config() {
            Ok(config) => config,
            Err(error) => return Err(NativeFailure::from(&error).thrown(env)),
        };
        let _inside = self.io.handle().enter();
        match config.follow(ranges.into_iter().map(Into::into).collect(), ms(settle_ms)) {
            Ok(watcher) => Ok(PairsWatcherHandle::start(
                self.next_id(),
                &watcher,
                self.mailbox.clone(),
                &self.io,
            )),
            Err(error) => Err(NativeFailure::from(&error).thrown(env)),
        }
    }

    #[napi(catch_unwind, ts_return_type = "Promise<NativeCommit>")]
    pub fn commit_pairs<'env>(
        &self,
        env: &'env Env,
        compares: Vec<NativeCompare>,
        writes: Vec<NativeWrite>,
        timeout_ms: f64,
        cancel: Option<&CancelHandle>,
    ) -> Result<PromiseRaw<'env, JsResult<NativeCommit>>> {
        let config = self.registry.config();
        promise(env, &self.io, cancel, "", async move {
            let compares: Vec<Compare> = compares.into_iter().map(Into::into).collect();
            let writes: Vec<Write> = writes.into_iter().map(Into::into).collect();
            let commit = config?.commit(&compares, &writes, ms(timeout_ms)).await?;
            Ok(commit.into())
        })
    }
}

impl From<NativeRange> for Range {
    fn from(range: NativeRange) -> Self {
        if range.under {
            Self::Under(range.text.into())
        } else {
            Self::Key(range.text.into())
        }
    }
}

impl From<NativeCompare> for Compare {
    #[allow(clippy::cast_possible_truncation)] // whole and in range: TypeScript has checked
    fn from(compare: NativeCompare) -> Self {
        Self {
            key: compare.key.into(),
            revision: compare.revision as i64,
        }
    }
}

impl From<NativeWrite> for Write {
    fn from(write: NativeWrite) -> Self {
        match write.value {
            Some(value) => Self::Put(write.key.into(), value.into_bytes().into()),
            None => Self::Delete(write.key.into()),
        }
    }
}

impl From<Commit> for NativeCommit {
    fn from(commit: Commit) -> Self {
        match commit {
            Commit::Done { moment, deleted } => Self {
                revision: revision_of(moment),
                deleted: u32::try_from(deleted).unwrap_or(u32::MAX),
                conflict: None,
            },
            Commit::Conflict { current } => Self {
                revision: 0.0,
                deleted: 0,
                conflict: Some(current.iter().map(|pair| pair.as_deref().map(Into::into)).collect()),
            },
        }
    }
}
