//! Whose the key is, and what is lost: what a presence makes of what it is told, without etcd.

use proptest::prelude::*;

use super::super::EtcdRecords;
use super::super::keys::Keys;
use super::*;
use crate::etcd::{Change, EtcdClient, EtcdOptions};
use crate::log::Log;

const CLUSTER: u64 = 1;
const OURS: i64 = 7;
const OTHER: i64 = 8;

fn fresh() -> EtcdPresence {
    let options = EtcdOptions {
        hosts: vec!["127.0.0.1:1".to_owned()], // nobody listens there
        timeout: Duration::from_millis(100),
        ..EtcdOptions::default()
    };
    let records = EtcdRecords::default();
    let shared = Shared {
        client: EtcdClient::new(options, Log::default()).unwrap(),
        keys: Keys::new(&records.prefix, records.codec),
        ttl: records.ttl,
    };
    EtcdPresence::new(Arc::new(shared), "orders", "a")
}

/// Published under the lease `OURS` at the revision 100, as "new"; two writes after it were not answered.
fn published() -> EtcdPresence {
    let mut presence = fresh();
    presence.leases = vec![OURS];
    presence.published = Some(Published {
        revision: 100,
        cluster: CLUSTER,
    });
    presence.value = "new".to_owned();
    presence.unanswered_values = vec!["later".to_owned(), "latest".to_owned()];
    presence
}

fn held(lease: i64, value: &str, mod_revision: i64, cluster: u64) -> Found<'_> {
    Found {
        lease,
        value: value.as_bytes(),
        mod_revision,
        cluster,
    }
}

fn change(lease: i64, value: Option<&str>, mod_revision: i64) -> Change {
    Change {
        key: b"/microservices/orders/a".as_slice().into(),
        value: value.map(|value| value.to_owned().into()),
        lease,
        mod_revision,
    }
}

fn gone(loss: Option<Loss>) -> String {
    match loss {
        Some(Loss::Gone(why)) => why,
        other => panic!("expected a loss, got {other:?}"),
    }
}

#[test]
fn a_record_of_ours_stands_while_it_holds_what_may_have_been_written_last() {
    let presence = published();
    for value in ["new", "later", "latest"] {
        assert_eq!(presence.loss_by(Some(held(OURS, value, 101, CLUSTER))), None, "{value}");
    }
    let why = gone(presence.loss_by(Some(held(OURS, "old", 101, CLUSTER))));
    assert!(why.contains("older write"), "{why}");
    assert!(gone(presence.loss_by(None)).contains("deleted"));
}

#[test]
fn another_owner_is_newer_by_its_record_and_within_our_history_alone() {
    let presence = published();
    assert_eq!(
        presence.loss_by(Some(held(OTHER, "x", 101, CLUSTER))),
        Some(Loss::Replaced)
    );
    // What stood before our write comes back with a backup; and another cluster's revisions say nothing.
    for (mod_revision, cluster) in [(100, CLUSTER), (5, CLUSTER), (900, CLUSTER + 1)] {
        let why = gone(presence.loss_by(Some(held(OTHER, "x", mod_revision, cluster))));
        assert!(why.contains("restored"), "{why}");
    }
    // A key under no lease is nobody's of ours, even if we have asked for none.
    assert_eq!(
        presence.loss_by(Some(held(0, "new", 101, CLUSTER))),
        Some(Loss::Replaced)
    );
    assert!(
        fresh().is_newer(1, CLUSTER),
        "who has written nothing is older than everybody"
    );
}

#[test]
fn a_history_is_new_when_it_went_back_or_is_of_another_cluster() {
    let presence = published();
    let answer = |revision, cluster| presence.is_new_history(Published { revision, cluster });
    assert!(!answer(100, CLUSTER) && !answer(5000, CLUSTER));
    assert!(answer(99, CLUSTER) && answer(5000, CLUSTER + 1));
    assert!(!fresh().is_new_history(Published {
        revision: 1,
        cluster: 1
    }));
}

#[test]
fn the_last_change_counts_and_those_before_our_write_do_not() {
    let mut presence = published();
    presence.judge(&Batch {
        changes: vec![change(0, None, 99), change(OTHER, Some("x"), 100)],
    });
    assert_eq!(presence.loss, None);
    presence.judge(&Batch {
        changes: vec![change(0, None, 101), change(OURS, Some("later"), 102)],
    });
    assert_eq!(presence.loss, None, "it was put back");
    presence.judge(&Batch {
        changes: vec![change(OURS, Some("later"), 103), change(OTHER, Some("x"), 104)],
    });
    assert_eq!(presence.loss, Some(Loss::Replaced));
}

proptest! {
    /// Whatever changes come, in whatever batches: the last one after our write decides, and alone.
    #[test]
    fn batches_do_not_matter(
        changes in prop::collection::vec((prop_oneof![Just(0), Just(OURS), Just(OTHER)], 0..4_usize, 90..120_i64), 1..12),
        cut in 1..6_usize,
    ) {
        let values = [None, Some("new"), Some("later"), Some("old")];
        let mut changes: Vec<Change> =
            changes.into_iter().map(|(lease, value, at)| change(lease, values[value], at)).collect();
        changes.sort_by_key(|change| change.mod_revision);
        let (mut whole, mut parts) = (published(), published());
        whole.judge(&Batch { changes: changes.clone() });
        for some in changes.chunks(cut) {
            parts.judge(&Batch { changes: some.to_vec() });
        }
        prop_assert_eq!(&whole.loss, &parts.loss);
        let decides = changes.iter().rfind(|change| change.mod_revision > 100);
        let stands = decides.is_none_or(|change| {
            change.lease == OURS && matches!(change.value.as_deref(), Some(b"new" | b"later"))
        });
        prop_assert_eq!(whole.loss.is_none(), stands);
        if let Some(change) = decides && change.lease == OTHER && change.value.is_some() {
            prop_assert_eq!(&whole.loss, &Some(Loss::Replaced));
        }
    }
}

#[tokio::test]
async fn a_grant_without_an_answer_is_asked_for_again_under_the_same_id() {
    let mut presence = fresh();
    for _ in 0..3 {
        presence.live_lease().await.unwrap_err();
    }
    assert_eq!(
        (presence.leases.len(), presence.unanswered),
        (1, presence.leases.first().copied())
    );
    // Nothing was ever written under it, so there is nothing to remove.
    presence.withdraw().await.unwrap();
    assert!(presence.leases.is_empty() && presence.unanswered.is_none());
}

#[tokio::test]
async fn no_more_unanswered_values_are_remembered_than_may_still_come() {
    let mut presence = fresh();
    let (lease, _slot) = Lease::scripted(OURS, Duration::from_secs(600));
    presence.lease = Some(lease);
    let mut instance = ServiceInstance::default();
    for version in 0..7 {
        instance.version = version.to_string().into();
        presence.publish(&instance, Intent::Keep).await.unwrap_err();
    }
    assert_eq!(presence.unanswered_values.len(), UNANSWERED);
    assert!(
        presence.unanswered_values[UNANSWERED - 1].contains("\"6\""),
        "{:?}",
        presence.unanswered_values
    );
}

#[tokio::test]
async fn a_loss_is_told_by_whoever_hears_it_first() {
    // By the watch of the key.
    let mut presence = published();
    let (lease, _slot) = Lease::scripted(OURS, Duration::from_secs(600));
    presence.lease = Some(lease);
    let (script, watch) = Subscription::scripted();
    presence.own = OwnKey::Watched(watch);
    let other = change(OTHER, Some("x"), 101);
    script.batches.send(Batch { changes: vec![other] }).await.unwrap();
    assert_eq!(presence.lost().await, Loss::Replaced);
    assert_eq!(presence.lost().await, Loss::Replaced, "it stays lost");
    // By the lease.
    let mut presence = published();
    let (lease, slot) = Lease::scripted(OURS, Duration::from_secs(600));
    presence.lease = Some(lease);
    let (_script, watch) = Subscription::scripted();
    presence.own = OwnKey::Watched(watch);
    slot.lose("revoked");
    assert_eq!(presence.lost().await, Loss::Gone("revoked".to_owned()));
}

#[test]
fn while_it_is_out_a_record_under_a_lease_of_before_is_what_is_not_to_be_there() {
    let mut presence = published();
    presence.forget(OURS);
    presence.is_out = true;
    assert!(gone(presence.loss_by(Some(held(OURS, "old", 50, CLUSTER)))).contains("stands again"));
    for none_of_ours in [
        None,
        Some(held(OTHER, "new", 101, CLUSTER)),
        Some(held(0, "new", 101, CLUSTER)),
    ] {
        assert_eq!(presence.loss_by(none_of_ours), None);
    }
    assert!(
        !presence.is_ours(OURS),
        "for one that is in, it is no record that is renewed"
    );
    for lease in 100..100 + i64::try_from(REVOKED).unwrap() {
        presence.forget(lease);
    }
    assert_eq!((presence.revoked.len(), presence.was_ours(OURS)), (REVOKED, false));
}
