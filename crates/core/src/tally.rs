//! How many attempts a call took, for whoever asks: the call counts where it is made, and knows nothing of who listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

tokio::task_local! {
    static TALLY: Tally;
}

/// Counts the attempts of the calls that run [within](Self::within) it.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<AtomicU32>);

impl Tally {
    /// `call`, whose attempts are counted here.
    pub fn within<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        TALLY.scope(self.clone(), call)
    }

    /// How many were begun up to now, those of an aborted call too.
    pub fn attempts(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, attempts: u32) {
        self.0.fetch_add(attempts, Ordering::Relaxed);
    }
}

/// So many more attempts of the call that runs, if anybody counts them.
pub(crate) fn count(attempts: u32) {
    let _ = TALLY.try_with(|tally| tally.add(attempts)); // nobody does
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_within_it_is_counted_and_nothing_else() {
        let (one, other) = (Tally::default(), Tally::default());
        count(1);
        let nested = async {
            count(2);
            other
                .within(async {
                    count(10);
                })
                .await;
            count(3);
        };
        one.within(nested).await;
        count(100);
        assert_eq!((one.attempts(), other.attempts()), (5, 10));
    }

    /// Counts as it is dropped, as a call that is aborted does.
    struct Late;

    impl Drop for Late {
        fn drop(&mut self) {
            count(1);
        }
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_half_way_counts_what_it_did() {
        let tally = Tally::default();
        let mut call = Box::pin(tally.within(async {
            let _late = Late;
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert_eq!(tally.attempts(), 1);
    }
}
