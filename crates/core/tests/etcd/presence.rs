//! Registrations: who owns a key, how it is lost, and what is taken back.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, PutOptions};
use rollcall_core::ErrorKind;
use rollcall_core::backend::{Backend as _, Intent, Loss};
use rollcall_core::etcd::EtcdOptions;
use tokio::time::Instant;

use crate::support::{
    Proxy, etcd, eventually, instance, kind, options, presence_of, registry, restores, retrying, within,
};

const KEY: &str = "/microservices/a/1";

fn gone(loss: &Loss) -> bool {
    matches!(loss, Loss::Gone(_))
}

#[tokio::test]
async fn stays_for_many_times_its_ttl() {
    let server = etcd!();
    let backend = registry(server.options(), 2);
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(6), presence.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(server.raw().await.get(KEY, None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_thousand_of_them_are_renewed_and_watched() {
    use futures::StreamExt as _;
    let server = etcd!();
    let backend = registry(server.options(), 4);
    let publish = |i: usize| {
        let mut presence = presence_of(&backend, "many", &i.to_string());
        async move {
            let record = instance("many", &i.to_string());
            presence.publish(&record, Intent::Claim).await.unwrap();
            presence
        }
    };
    // As core does: 64 at a time.
    let presences = futures::stream::iter((0..1_000).map(publish)).buffer_unordered(64);
    let mut presences: Vec<_> = presences.collect().await;
    let any_lost = futures::future::select_all(presences.iter_mut().map(|presence| presence.lost()));
    let lost = tokio::time::timeout(Duration::from_secs(9), any_lost)
        .await
        .map(|(loss, ..)| loss);
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(backend.fetch("many").await.unwrap().instances.len(), 1_000);
    let mut raw = server.raw().await;
    raw.delete("/microservices/many/500", None).await.unwrap();
    let any_lost = futures::future::select_all(presences.iter_mut().map(|presence| presence.lost()));
    assert!(gone(&within(3, "the loss", any_lost).await.0));
}

#[tokio::test]
async fn a_deletion_by_hand_is_a_loss_and_is_repaired() {
    let server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(100), presence.lost())
            .await
            .is_err()
    );
    let mut raw = server.raw().await;
    raw.delete(KEY, None).await.unwrap();
    assert!(gone(&within(2, "the loss", presence.lost()).await));
    assert!(gone(&presence.lost().await), "it tells the same again");
    presence.publish(&instance("a", "1"), Intent::Keep).await.unwrap();
    assert_eq!(raw.get(KEY, None).await.unwrap().count(), 1);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), presence.lost())
            .await
            .is_err()
    );
    assert_eq!(raw.leases().await.unwrap().leases().len(), 1, "no lease is left behind");
}

#[tokio::test]
async fn a_revoked_lease_is_a_loss_at_once() {
    let server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut raw = server.raw().await;
    let lease = raw.get(KEY, None).await.unwrap().kvs()[0].lease();
    raw.lease_revoke(lease).await.unwrap();
    assert!(gone(&within(1, "the loss", presence.lost()).await));
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    assert_eq!(raw.get(KEY, None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn the_newest_of_one_id_wins_and_neither_removes_the_others() {
    let server = etcd!();
    let backend = server.backend();
    let mut old = presence_of(&backend, "a", "1");
    old.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut new = presence_of(&backend, "a", "1");
    new.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    assert_eq!(within(2, "the loss", old.lost()).await, Loss::Replaced);
    assert_eq!(
        kind(old.publish(&instance("a", "1"), Intent::Keep).await),
        ErrorKind::Replaced
    );
    old.withdraw().await.unwrap();
    let mut raw = server.raw().await;
    assert_eq!(
        raw.get(KEY, None).await.unwrap().count(),
        1,
        "the newer one's record stands"
    );
    new.withdraw().await.unwrap();
    new.withdraw().await.unwrap();
    assert_eq!(raw.get(KEY, None).await.unwrap().count(), 0);
    assert!(raw.leases().await.unwrap().leases().is_empty());
    // The stall guard puts it back.
    new.publish(&instance("a", "1"), Intent::Keep).await.unwrap();
    assert_eq!(raw.get(KEY, None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_foreign_put_replaces() {
    let server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut raw = server.raw().await;
    raw.lease_grant(60, Some(LeaseGrantOptions::new().with_id(7)))
        .await
        .unwrap();
    raw.put(KEY, "{}", Some(PutOptions::new().with_lease(7))).await.unwrap();
    assert_eq!(within(2, "the loss", presence.lost()).await, Loss::Replaced);
    presence.withdraw().await.unwrap();
    assert_eq!(raw.get(KEY, None).await.unwrap().kvs()[0].value(), b"{}");
}

#[tokio::test]
async fn an_older_write_of_ours_that_comes_late_is_written_over() {
    let server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut raw = server.raw().await;
    let lease = raw.get(KEY, None).await.unwrap().kvs()[0].lease();
    raw.put(KEY, "older", Some(PutOptions::new().with_lease(lease)))
        .await
        .unwrap();
    assert!(gone(&within(2, "the loss", presence.lost()).await));
    presence.publish(&instance("a", "1"), Intent::Keep).await.unwrap();
    assert_ne!(raw.get(KEY, None).await.unwrap().kvs()[0].value(), b"older");
    assert!(
        tokio::time::timeout(Duration::from_millis(500), presence.lost())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_no_rival() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    // Short for the calls that must fail; on a busy machine the others are tried again, as core does.
    let quick = EtcdOptions {
        timeout: Duration::from_millis(600),
        ..options(&[&proxy.address])
    };
    let backend = registry(quick, 3);
    let mut raw = server.raw().await;

    // The answer to the grant.
    retrying("contact", async || backend.contact().await).await;
    proxy.lose_answers(true);
    let mut presence = presence_of(&backend, "a", "1");
    for _ in 0..3 {
        assert!(
            presence
                .publish(&instance("a", "1"), Intent::Claim)
                .await
                .unwrap_err()
                .is_retryable()
        );
    }
    assert_eq!(
        raw.leases().await.unwrap().leases().len(),
        1,
        "three attempts, one lease"
    );
    proxy.lose_answers(false);
    retrying("publish", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    assert_eq!(raw.leases().await.unwrap().leases().len(), 1);

    // The answer to the put, and then the lease by our own clock.
    proxy.lose_answers(true);
    let mut changed = instance("a", "1");
    changed.version = "2".into();
    eventually("the put was applied", async || {
        let error = presence.publish(&changed, Intent::Keep).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let written = raw.clone().get(KEY, None).await.unwrap();
        written.kvs()[0].value_str().unwrap().contains(r#""version":"2""#)
    })
    .await;
    changed.version = "3".into();
    proxy.lose_answers(false);
    retrying("publish", async || presence.publish(&changed, Intent::Keep).await).await;
    let written = raw.get(KEY, None).await.unwrap();
    assert!(written.kvs()[0].value_str().unwrap().contains(r#""version":"3""#));

    // What was written without our knowing is taken back too.
    let mut silent = presence_of(&backend, "a", "2");
    let mut withdrawn = instance("a", "2");
    withdrawn.version = "x".into();
    retrying("publish", async || silent.publish(&withdrawn, Intent::Claim).await).await;
    proxy.lose_answers(true);
    assert!(silent.withdraw().await.is_err());
    proxy.lose_answers(false);
    retrying("withdraw", async || silent.withdraw().await).await;
    assert_eq!(raw.get("/microservices/a/2", None).await.unwrap().count(), 0);
}

#[tokio::test]
async fn a_former_lease_of_ours_is_no_rival() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let quick = EtcdOptions {
        timeout: Duration::from_millis(900),
        ..options(&[&proxy.address])
    };
    let backend = registry(quick, 2);
    let mut presence = presence_of(&backend, "a", "1");
    retrying("publish", async || {
        presence.publish(&instance("a", "1"), Intent::Claim).await
    })
    .await;
    let mut raw = server.raw().await;
    let first = raw.get(KEY, None).await.unwrap().kvs()[0].lease();
    // Renewals arrive, their answers do not: by our clock it is lost, while etcd keeps it.
    proxy.lose_answers(true);
    let since = Instant::now();
    let Loss::Gone(why) = within(5, "the loss by our own clock", presence.lost()).await else {
        panic!("replaced by nobody");
    };
    assert!(why.contains("not renewed"), "{why}");
    // The time to live, counted from the last renewal before; and room for a busy machine.
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(raw.get(KEY, None).await.unwrap().kvs()[0].lease(), first);
    proxy.lose_answers(false);
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    let second = raw.get(KEY, None).await.unwrap().kvs()[0].lease();
    assert_ne!(first, second);
    let leases = raw.leases().await.unwrap();
    assert_eq!(
        leases
            .leases()
            .iter()
            .map(etcd_client::LeaseStatus::id)
            .collect::<Vec<_>>(),
        [second]
    );
}

#[tokio::test]
async fn a_frozen_server_is_a_loss_by_our_own_clock_and_a_dropped_presence_expires() {
    let server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut raw = server.raw().await;
    server.freeze();
    let since = Instant::now();
    assert!(gone(&within(4, "the loss", presence.lost()).await));
    assert!(
        since.elapsed() > Duration::from_millis(1_500),
        "not before its time: {:?}",
        since.elapsed()
    );
    server.thaw();
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    drop(presence);
    eventually("the record expires", || {
        let mut raw = raw.clone();
        async move { raw.get(KEY, None).await.is_ok_and(|r| r.count() == 0) }
    })
    .await;
    let _ = raw.get(KEY, None).await.unwrap();
}

#[tokio::test]
async fn an_older_record_that_a_restore_brings_back_is_taken_over_and_a_newer_owner_is_not() {
    if !restores() {
        return;
    }
    let mut server = etcd!();
    let mut raw = server.raw().await;
    // Of the process before us, in the backup, and alive for a whole time to live after it.
    let lease = raw.lease_grant(60, None).await.unwrap().id();
    let old = PutOptions::new().with_lease(lease);
    raw.put(KEY, r#"{"id":"1","name":"a"}"#, Some(old)).await.unwrap();
    let snapshot = server.snapshot();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();

    server.restore(&snapshot).await;
    let mut raw = server.raw().await;
    let restored = raw.get(KEY, None).await.unwrap();
    assert_eq!(restored.kvs()[0].lease(), lease);
    assert!(restored.header().unwrap().revision() > 1_000_000);
    let loss = within(10, "the loss", presence.lost()).await;
    assert!(gone(&loss), "{loss:?}");
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    let taken = raw.get(KEY, None).await.unwrap();
    assert_ne!(taken.kvs()[0].lease(), lease);

    let newer_backend = server.backend();
    let mut newer = presence_of(&newer_backend, "a", "1");
    newer.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    assert_eq!(within(10, "the newer owner", presence.lost()).await, Loss::Replaced);
    let kept = presence.publish(&instance("a", "1"), Intent::Keep).await;
    assert_eq!(kind(kept), ErrorKind::Replaced);
}
