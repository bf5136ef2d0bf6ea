//! Locks under contention, with other clients, and when they are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rollcall_core::ErrorKind;
use rollcall_core::etcd::{CampaignFailure, EtcdClient, EtcdOptions, Lock, LockOptions};
use rollcall_core::log::Log;
use tokio::time::Instant;

use crate::support::{etcd, eventually, within};

fn client(options: EtcdOptions) -> EtcdClient {
    EtcdClient::new(options, Log::default()).unwrap()
}

fn lock(queue: bool) -> LockOptions {
    LockOptions {
        name: b"l".to_vec(),
        queue,
        waits: queue,
        ttl: Duration::from_secs(3),
        attach: None,
        stall: None,
    }
}

async fn acquire(client: &EtcdClient, options: LockOptions) -> Result<Lock, CampaignFailure> {
    Lock::acquire(&client.elections, options, None, Box::new(|_| {})).await
}

#[tokio::test]
async fn under_contention_no_update_is_lost_and_tokens_grow() {
    let server = etcd!();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (client, mut raw) = (client(server.options()), server.raw().await);
        workers.spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..6 {
                let lock = acquire(&client, lock(true)).await.unwrap();
                let read = raw.get("counter", None).await.unwrap();
                let n: u32 = read
                    .kvs()
                    .first()
                    .map_or(0, |kv| kv.value_str().unwrap().parse().unwrap());
                tokio::time::sleep(Duration::from_millis(2)).await;
                raw.put("counter", (n + 1).to_string(), None).await.unwrap();
                tokens.push((n, lock.revision));
                assert!(lock.is_held());
                lock.release().await.unwrap();
                assert!(!lock.is_held());
            }
            tokens
        });
    }
    let mut all: Vec<(u32, i64)> = within(30, "all", workers.join_all()).await.concat();
    all.sort_unstable();
    assert_eq!(
        all.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        (0..30).collect::<Vec<_>>()
    );
    assert!(all.is_sorted_by_key(|(_, token)| *token), "{all:?}");
    assert!(server.raw().await.leases().await.unwrap().leases().is_empty());
}

#[tokio::test]
async fn waiting_ends_in_time_and_leaves_nothing() {
    let server = etcd!();
    let client = client(server.options());
    let held = acquire(&client, lock(true)).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let late = Lock::acquire(&client.elections, lock(true), Some(deadline), Box::new(|_| {})).await;
    let Err(CampaignFailure::Call(fault)) = late else {
        panic!("acquired twice")
    };
    assert_eq!(fault.error.kind(), ErrorKind::Timeout);
    // Given up by dropping, too.
    let dropped = tokio::time::timeout(Duration::from_millis(300), acquire(&client, lock(true))).await;
    assert!(dropped.is_err());
    eventually("one lease is left", || async {
        server.raw().await.leases().await.unwrap().leases().len() == 1
    })
    .await;
    drop(held);
    within(5, "free after a drop", acquire(&client, lock(true)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_try_lock_that_is_taken_fails_at_once_and_leaves_nothing() {
    let server = etcd!();
    let client = client(server.options());
    let held = acquire(&client, lock(false)).await.unwrap();
    assert_eq!(held.key, b"l");
    assert!(matches!(
        acquire(&client, lock(false)).await,
        Err(CampaignFailure::Taken)
    ));
    eventually("one lease is left", || async {
        server.raw().await.leases().await.unwrap().leases().len() == 1
    })
    .await;
    held.release().await.unwrap();
    let next = acquire(&client, lock(false)).await.unwrap();
    assert!(next.revision > held.revision);
}

#[tokio::test]
async fn who_does_not_wait_in_the_queue_leaves_it_at_once() {
    let server = etcd!();
    let client = client(server.options());
    let trying = LockOptions {
        waits: false,
        ..lock(true)
    };
    let held = acquire(&client, trying.clone()).await.unwrap();
    assert!(matches!(
        acquire(&client, trying.clone()).await,
        Err(CampaignFailure::Taken)
    ));
    held.release().await.unwrap();
    eventually("the place is given back", || async {
        server.raw().await.leases().await.unwrap().leases().is_empty()
    })
    .await;
    acquire(&client, trying).await.unwrap();
}

#[tokio::test]
async fn a_lost_lock_says_so_once() {
    let server = etcd!();
    let client = client(server.options());
    for queue in [true, false] {
        let lost = Arc::new(AtomicU32::new(0));
        let count = lost.clone();
        let on_lost = Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let held = Lock::acquire(&client.elections, lock(queue), None, on_lost)
            .await
            .unwrap();
        server.raw().await.lease_revoke(held.lease).await.unwrap();
        eventually("it is lost", || async { lost.load(Ordering::SeqCst) == 1 }).await;
        assert!(!held.is_held());
        held.release().await.unwrap();
        assert_eq!(lost.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_lock_can_be_gone_on_with_by_its_lease() {
    let server = etcd!();
    let (one, two) = (client(server.options()), client(server.options()));
    let held = acquire(&one, lock(true)).await.unwrap();
    let attach = |lease| LockOptions {
        attach: Some(lease),
        ..lock(true)
    };
    let again = acquire(&two, attach(held.lease)).await.unwrap();
    assert_eq!((again.revision, &again.key), (held.revision, &held.key));
    again.release().await.unwrap();
    eventually("the first holder notices", || async { !held.is_held() }).await;
    assert!(matches!(
        acquire(&two, attach(held.lease)).await,
        Err(CampaignFailure::LeaseLost { .. })
    ));
    // A lease that has nothing to do with this lock keeps what it has.
    let mut raw = server.raw().await;
    let other = raw.lease_grant(60, None).await.unwrap().id();
    let under = etcd_client::PutOptions::new().with_lease(other);
    raw.put("other", "", Some(under)).await.unwrap();
    assert!(matches!(
        acquire(&two, attach(other)).await,
        Err(CampaignFailure::KeyGone(_))
    ));
    tokio::time::sleep(Duration::from_millis(300)).await; // for a revocation to do its harm
    assert_eq!(raw.get("other", None).await.unwrap().count(), 1);
}

/// Keys that are nobody's place in the queue, whatever they look like: an election or lock below the name among them.
async fn put_others(server: &crate::support::Server) {
    let mut raw = server.raw().await;
    for key in ["l/readme", "l/1f", "l/31", "l/0"] {
        raw.put(key, "", None).await.unwrap();
    }
    let lease = raw.lease_grant(60, None).await.unwrap().id();
    for key in [format!("l/eu/{lease:x}"), "l/7".to_owned()] {
        let under = etcd_client::PutOptions::new().with_lease(lease);
        raw.put(key, "", Some(under)).await.unwrap();
    }
}

#[tokio::test]
async fn keys_that_are_no_candidates_hold_nobody_up() {
    let server = etcd!();
    let client = client(server.options());
    put_others(&server).await;
    let held = within(5, "free", acquire(&client, lock(true))).await.unwrap();
    put_others(&server).await;
    let trying = LockOptions {
        waits: false,
        ..lock(true)
    };
    assert!(matches!(
        acquire(&client, trying.clone()).await,
        Err(CampaignFailure::Taken)
    ));
    held.release().await.unwrap();
    within(5, "free again", acquire(&client, trying)).await.unwrap();
}

#[tokio::test]
async fn a_queue_is_found_among_thousands_of_other_keys() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let put = async |raw: &mut etcd_client::Client, from: usize| {
        for chunk in (from..from + 1000).collect::<Vec<_>>().chunks(100) {
            let puts: Vec<_> = chunk
                .iter()
                .map(|i| etcd_client::TxnOp::put(format!("l/{i}"), "", None))
                .collect();
            raw.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
        }
    };
    put(&mut raw, 10_000).await;
    let first = within(10, "free", acquire(&client, lock(true))).await.unwrap();
    put(&mut raw, 11_000).await;
    let second = tokio::spawn({
        let client = client.clone();
        async move { acquire(&client, lock(true)).await }
    });
    eventually("the second waits", || async {
        server.raw().await.leases().await.unwrap().leases().len() == 2
    })
    .await;
    assert!(!second.is_finished());
    let leader = client.elections.leader(b"l/").await.unwrap().unwrap();
    assert_eq!((leader.revision, &leader.key), (first.revision, &first.key));
    first.release().await.unwrap();
    let second = within(10, "its turn", second).await.unwrap().unwrap();
    assert!(second.is_held() && second.revision > first.revision);
}

#[tokio::test]
async fn a_place_that_is_put_under_no_lease_is_given_up_by_all() {
    let server = etcd!();
    let client = client(server.options());
    let held = acquire(&client, lock(true)).await.unwrap();
    let next = tokio::spawn({
        let client = client.clone();
        async move { acquire(&client, lock(true)).await }
    });
    eventually("the second waits", || async {
        server.raw().await.leases().await.unwrap().leases().len() == 2
    })
    .await;
    server.raw().await.put(held.key.clone(), "", None).await.unwrap();
    within(5, "its turn", next).await.unwrap().unwrap();
    eventually("the first has noticed", || async { !held.is_held() }).await;
}
