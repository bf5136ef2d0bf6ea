//! What a presence may believe of its own key when an answer was lost, the history went back, or it may not read.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Permission, PermissionType, PutOptions, Txn, TxnOp};
use rollcall_core::backend::{Intent, Loss};
use rollcall_core::etcd::EtcdOptions;

use crate::support::{Proxy, etcd, eventually, instance, options, presence_of, registry, retrying, within};

const KEY: &str = "/microservices/a/1";

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_no_loss() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let quick = EtcdOptions {
        timeout: Duration::from_millis(600),
        ..options(&[&proxy.address])
    };
    let backend = registry(quick, 3);
    let raw = server.raw().await;
    let mut presence = presence_of(&backend, "a", "1");
    // Short for the call that must fail; on a busy machine the others are tried again, as core does.
    retrying("publish", async || {
        presence.publish(&instance("a", "1"), Intent::Claim).await
    })
    .await;
    proxy.lose_answers(true);
    let mut changed = instance("a", "1");
    changed.version = "2".into();
    eventually("it is applied all the same", async || {
        presence.publish(&changed, Intent::Keep).await.unwrap_err();
        let written = raw.clone().get(KEY, None).await.unwrap();
        written.kvs()[0].value_str().unwrap().contains(r#""version":"2""#)
    })
    .await;
    proxy.lose_answers(false);
    // The own-key watch, or a reading after its break, now shows what was written without an answer.
    let loss = tokio::time::timeout(Duration::from_millis(1500), presence.lost()).await;
    assert!(loss.is_err(), "the record stands, yet: {loss:?}");
}

#[tokio::test]
async fn what_a_restored_backup_holds_of_an_earlier_life_is_no_rival() {
    let mut server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    for _ in 0..20 {
        presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    }
    server.kill();
    server.restart_empty().await;
    // As in a backup: a record of ours under a lease that nobody of this life has ever held.
    let mut raw = server.raw().await;
    let lease = raw.lease_grant(600, None).await.unwrap().id();
    raw.put(
        KEY,
        instance("a", "1").to_json(),
        Some(PutOptions::new().with_lease(lease)),
    )
    .await
    .unwrap();
    let loss = within(10, "the loss", presence.lost()).await;
    assert!(matches!(loss, Loss::Gone(_)), "{loss:?}");
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    let held = raw.get(KEY, None).await.unwrap();
    assert_ne!(held.kvs()[0].lease(), lease, "it is under a lease of ours again");
    let again = tokio::time::timeout(Duration::from_millis(500), presence.lost()).await;
    assert!(again.is_err(), "{again:?}");
    // From here on a rival is a rival.
    let rival = Txn::new()
        .when(vec![Compare::version(KEY, CompareOp::Greater, 0)])
        .and_then(vec![TxnOp::put(KEY, "{}", Some(PutOptions::new().with_lease(lease)))]);
    raw.txn(rival).await.unwrap();
    assert_eq!(within(5, "the loss", presence.lost()).await, Loss::Replaced);
}

#[tokio::test]
async fn who_may_write_and_not_read_comes_back_after_a_loss() {
    let server = etcd!();
    let mut root = server.raw().await;
    root.user_add("root", "root", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.role_add("app").await.unwrap();
    let right = Permission::new(PermissionType::Write, "/microservices/a/").with_prefix();
    root.role_grant_permission("app", right).await.unwrap();
    root.user_add("app", "secret", None).await.unwrap();
    root.user_grant_role("app", "app").await.unwrap();
    root.auth_enable().await.unwrap();
    let user = |name: &str, password: &str| EtcdOptions {
        username: Some(name.to_owned()),
        password: Some(password.to_owned()),
        ..server.options()
    };
    let backend = registry(user("app", "secret"), 3);
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut root = etcd_client::Client::connect(
        [server.url()],
        Some(etcd_client::ConnectOptions::new().with_user("root", "root")),
    )
    .await
    .unwrap();
    let lease = root.get(KEY, None).await.unwrap().kvs()[0].lease();
    root.lease_revoke(lease).await.unwrap();
    assert!(matches!(within(10, "the loss", presence.lost()).await, Loss::Gone(_)));
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    eventually("the record is back", || {
        let mut root = root.clone();
        async move { root.get(KEY, None).await.unwrap().count() == 1 }
    })
    .await;
}
