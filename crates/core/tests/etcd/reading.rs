//! What is written and read, byte for byte, and lists of every shape.

use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use rollcall_core::ErrorKind;
use rollcall_core::backend::{Backend as _, Intent};
use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
use rollcall_core::error::Result;
use rollcall_core::etcd::EtcdOptions;
use rollcall_core::instance::Codec;
use rollcall_core::log::Log;

use crate::support::{captured, etcd, follow, ids, instance, kind, next, presence_of, registry};

#[tokio::test]
async fn writes_what_kratos_writes() {
    let server = etcd!();
    let backend = server.backend();
    backend.contact().await.unwrap();
    let mut presence = presence_of(&backend, "helloworld", "5f8d-1");
    presence.publish(&captured(), Intent::Claim).await.unwrap();
    let bare = instance("helloworld-admin", "x");
    let mut admin = presence_of(&backend, "helloworld-admin", "x");
    admin.publish(&bare, Intent::Claim).await.unwrap();

    let mut raw = server.raw().await;
    for (key, value) in [
        (
            "/microservices/helloworld/5f8d-1",
            r#"{"id":"5f8d-1","name":"helloworld","version":"v1.0.0","metadata":{"q":"a\u0026b\u003cc\u003eé","weight":"10","zone":"sh001"},"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}"#,
        ),
        (
            "/microservices/helloworld-admin/x",
            r#"{"id":"x","name":"helloworld-admin","version":"","metadata":null,"endpoints":null}"#,
        ),
    ] {
        let read = raw.get(key, None).await.unwrap();
        assert_eq!(read.kvs()[0].value_str().unwrap(), value);
        assert_ne!(read.kvs()[0].lease(), 0);
    }
    assert_eq!(presence.ttl().as_secs(), 3);

    let fetched = backend.fetch("helloworld").await.unwrap();
    assert_eq!(
        fetched.instances.iter().map(|i| (**i).clone()).collect::<Vec<_>>(),
        [captured()]
    );
    let mut names = backend.services().await.unwrap();
    names.sort();
    assert_eq!(names, ["helloworld", "helloworld-admin"]);
    backend.close().await;
}

#[tokio::test]
async fn follows_every_change_and_shares_what_did_not() {
    let server = etcd!();
    let backend = server.backend();
    let mut stream = follow(&backend, "orders");
    assert!(
        next(&mut stream).await.instances.is_empty(),
        "an absent name is an empty list"
    );

    let mut one = presence_of(&backend, "orders", "1");
    one.publish(&instance("orders", "1"), Intent::Claim).await.unwrap();
    let first = next(&mut stream).await;
    assert_eq!(ids(&first), ["1"]);

    let mut raw = server.raw().await;
    raw.put("/microservices/orders-admin/1", "{}", None).await.unwrap(); // a sibling
    raw.put("/microservices/orders/2/3", r#"{"name":"orders/2","id":"3"}"#, None)
        .await
        .unwrap(); // of another name
    raw.put("/microservices/orders/bad", "not-json", None).await.unwrap();
    let second = next(&mut stream).await;
    assert_eq!(ids(&second), ["1"]);
    assert!(std::sync::Arc::ptr_eq(&first.instances[0], &second.instances[0]));
    assert_eq!(second.bad[0].key, "/microservices/orders/bad");

    let mut changed = instance("orders", "1");
    changed.version = "2".into();
    one.publish(&changed, Intent::Keep).await.unwrap();
    assert_eq!(next(&mut stream).await.instances[0].version, "2".into());
    one.withdraw().await.unwrap();
    let last = next(&mut stream).await;
    assert!(last.instances.is_empty() && last.bad.len() == 1);
    assert_eq!(backend.services().await.unwrap(), ["orders/2"]);
}

#[tokio::test]
async fn reads_lists_above_the_usual_limit_and_says_what_exceeds_ours() {
    let server = etcd!();
    let mut raw = server.raw().await;
    let padding = "x".repeat(60_000);
    for i in 0..100 {
        let value = format!(r#"{{"id":"{i}","name":"big","metadata":{{"x":"{padding}"}}}}"#);
        raw.put(format!("/microservices/big/{i}"), value, None).await.unwrap();
    }
    let backend = server.backend();
    assert_eq!(backend.fetch("big").await.unwrap().instances.len(), 100);
    assert_eq!(next(&mut follow(&backend, "big")).await.instances.len(), 100);
    assert_eq!(backend.services().await.unwrap(), ["big"]);

    let small = EtcdOptions {
        max_message_bytes: 1 << 20,
        ..server.options()
    };
    let backend = registry(small, 3);
    let error = backend.fetch("big").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("maxMessageBytes"), "{error}");
}

#[tokio::test]
async fn names_are_read_in_pages() {
    let server = etcd!();
    let mut raw = server.raw().await;
    for i in 0..2_050 {
        let value = format!(r#"{{"id":"x","name":"s{}"}}"#, i / 2);
        raw.put(format!("/microservices/s{}/{i}", i / 2), value, None)
            .await
            .unwrap();
    }
    assert_eq!(server.backend().services().await.unwrap().len(), 1_025);
}

#[tokio::test]
async fn bare_metadata_under_another_prefix() {
    let server = etcd!();
    let records = EtcdRecords {
        prefix: "/services/".to_owned(),
        codec: Codec::Metadata,
        ..EtcdRecords::default()
    };
    let backend = EtcdBackend::new(server.options(), &records, Log::default()).unwrap();
    let mut wanted = captured();
    let mut presence = presence_of(&backend, "helloworld", "5f8d-1");
    presence.publish(&wanted, Intent::Claim).await.unwrap();
    wanted.version = "".into();
    wanted.endpoints = [].into();
    assert_eq!(*backend.fetch("helloworld").await.unwrap().instances[0], wanted);
    assert_eq!(backend.services().await.unwrap(), ["helloworld"]);
}

#[tokio::test]
async fn a_record_beyond_the_servers_limit_is_refused_for_good() {
    let server = etcd!();
    let backend = server.backend();
    let mut huge = instance("a", "1");
    huge.metadata = [("x", "y".repeat(2_000_000))].into_iter().collect();
    let refused: Result<()> = presence_of(&backend, "a", "1").publish(&huge, Intent::Claim).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
}

#[test]
fn options_are_checked_without_a_server() {
    let wrong = |change: fn(&mut EtcdOptions, &mut EtcdRecords), path: &str| {
        let (mut options, mut records) = (EtcdOptions::default(), EtcdRecords::default());
        change(&mut options, &mut records);
        let error = EtcdBackend::new(options, &records, Log::default())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(path), "{error}");
    };
    wrong(|o, _| o.hosts = vec![], "options.hosts");
    wrong(|o, _| o.hosts = vec!["a".into(), "ftp://b".into()], "options.hosts[1]");
    wrong(|_, r| r.prefix = "/".into(), "options.prefix");
    wrong(|o, _| o.username = Some("u".into()), "options.username");
    wrong(|o, _| o.timeout = std::time::Duration::ZERO, "options.timeoutMs");
}

#[tokio::test]
async fn changes_that_wait_together_are_one_snapshot() {
    let server = etcd!();
    let backend = server.backend();
    let mut stream = follow(&backend, "a");
    assert!(next(&mut stream).await.instances.is_empty());
    let mut raw = server.raw().await;
    // At first fewer than may wait, then more: the rest is read anew.
    for (count, most) in [(100, 2), (600, 3)] {
        for i in 0..count {
            let id = format!("{count}-{i}");
            let value = format!(r#"{{"id":"{id}","name":"a","version":"","metadata":null,"endpoints":null}}"#);
            raw.put(format!("/microservices/a/{id}"), value, None).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await; // until the last of them has come
        let mut snapshots = 1;
        let last = format!("{count}-{}", count - 1);
        while !ids(&next(&mut stream).await).contains(&last.as_str()) {
            snapshots += 1;
        }
        assert!(snapshots <= most, "{snapshots} snapshots of {count} changes");
    }
}

#[tokio::test]
async fn names_are_of_one_moment_whatever_is_written_between_two_pages() {
    let server = etcd!();
    let mut raw = server.raw().await;
    let value = |name: &str| format!(r#"{{"id":"x","name":"{name}"}}"#);
    let put = |name: &str| TxnOp::put(format!("/microservices/{name}/x"), value(name), None);
    // `a` on the first page, `z` on the third.
    let between: Vec<String> = (0..2_200).map(|i| format!("m{i}")).collect();
    for some in between.chunks(100) {
        let txn = Txn::new().and_then(some.iter().map(|name| put(name)).collect::<Vec<_>>());
        raw.txn(txn).await.unwrap();
    }
    raw.txn(Txn::new().and_then(vec![put("a")])).await.unwrap();
    // At every revision there is one of them.
    let mut writer = raw.clone();
    let moves = tokio::spawn(async move {
        loop {
            for (to, from) in [("z", "a"), ("a", "z")] {
                let key = format!("/microservices/{from}/x");
                let put = TxnOp::put(
                    format!("/microservices/{to}/x"),
                    format!(r#"{{"id":"x","name":"{to}"}}"#),
                    None,
                );
                let txn = Txn::new().and_then(vec![put, TxnOp::delete(key, None)]);
                writer.txn(txn).await.unwrap();
            }
        }
    });
    let backend = server.backend();
    for _ in 0..30 {
        let names = backend.services().await.unwrap();
        let ends: Vec<&String> = names.iter().filter(|name| !name.starts_with('m')).collect();
        assert_eq!((names.len(), ends.len()), (2_201, 1), "{ends:?}");
    }
    moves.abort();
}
