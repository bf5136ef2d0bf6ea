//! Addresses that answer wrongly, late or not at all, and servers that come back.

use std::time::Duration;

use futures::StreamExt as _;
use rollcall_core::ErrorKind;
use rollcall_core::backend::{Backend as _, Intent, Loss};
use rollcall_core::backends::etcd::EtcdBackend;
use rollcall_core::etcd::EtcdOptions;
use tokio::time::Instant;

use crate::support::{
    Proxy, etcd, eventually, follow, follow_until, free_port, ids, instance, next, options, presence_of, registry,
    retrying, within,
};

fn backend(options: EtcdOptions) -> EtcdBackend {
    registry(options, 3)
}

#[tokio::test]
async fn with_one_of_two_members_dead_no_call_fails() {
    let server = etcd!();
    for _ in 0..10 {
        // The order is drawn at random; whichever comes first.
        let dead = format!("127.0.0.1:{}", free_port());
        let backend = backend(options(&[&dead, &server.address()]));
        for i in 0..100 {
            backend.fetch("a").await.unwrap_or_else(|e| panic!("get {i}: {e:?}"));
        }
    }
}

#[tokio::test]
async fn a_member_that_never_answers_costs_a_part_of_the_time_once() {
    let server = etcd!();
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and says nothing
    let dead = hole.local_addr().unwrap().to_string();
    let backend = backend(EtcdOptions {
        timeout: Duration::from_secs(3),
        ..options(&[&dead, &server.address()])
    });
    let since = Instant::now();
    for _ in 0..100 {
        backend.fetch("a").await.unwrap();
    }
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_lease_granted_after_a_member_that_never_answers_has_its_whole_time() {
    let server = etcd!();
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = hole.local_addr().unwrap().to_string();
    // The order is drawn at random: some of these ask the silent one first, for longer than the lease lives.
    let each = (0..8).map(|i| {
        let patient = EtcdOptions {
            timeout: Duration::from_secs(9),
            ..options(&[&dead, &server.address()])
        };
        let backend = registry(patient, 2);
        async move {
            let id = i.to_string();
            let mut presence = presence_of(&backend, "a", &id);
            presence.publish(&instance("a", &id), Intent::Claim).await.unwrap();
            let lost = tokio::time::timeout(Duration::from_secs(3), presence.lost()).await;
            assert!(lost.is_err(), "{lost:?}");
        }
    });
    futures::future::join_all(each).await;
}

#[tokio::test]
async fn a_connection_that_died_in_silence_costs_no_short_lease() {
    let server = etcd!();
    let proxy = crate::support::Proxy::to(server.address()).await;
    let backend = backend(EtcdOptions {
        keep_alive: Duration::from_secs(60), // pings are not what finds it here
        ..options(&[&proxy.address])
    });
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_millis(300), presence.lost()).await;
    assert!(lost.is_err(), "its watch stands: {lost:?}");
    // This connection will never say anything again, a new one will.
    proxy.lose_answers(true);
    let unheard = tokio::time::timeout(Duration::from_millis(200), backend.fetch("a")).await;
    assert!(unheard.is_err());
    proxy.lose_answers(false);
    let lost = tokio::time::timeout(Duration::from_secs(6), presence.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let refused = backend(options(&[&format!("127.0.0.1:{}", free_port())]));
    let error = refused.contact().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("refused"), "{error}");

    let unknown = backend(options(&["no-such-host.invalid:2379"]));
    let error = unknown.contact().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("does not resolve"), "{error}");

    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = backend(EtcdOptions {
        timeout: Duration::from_millis(600),
        ..options(&[&hole.local_addr().unwrap().to_string()])
    });
    let error = within(2, "an error", silent.contact()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
}

#[tokio::test]
async fn a_follow_ends_with_its_server_and_another_goes_on() {
    let mut server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut stream = follow(&backend, "a");
    assert_eq!(ids(&next(&mut stream).await), ["1"]);
    server.kill();
    let ended = within(3, "the end", stream.next()).await.expect("an error");
    assert!(ended.unwrap_err().is_retryable());
    assert!(within(1, "the end", stream.next()).await.is_none());
    server.restart().await;
    // A short outage: the lease survives, and nothing is lost.
    follow_until(&backend, "a", |list| ids(list) == ["1"]).await;
    let mut stream = follow(&backend, "a");
    assert_eq!(ids(&next(&mut stream).await), ["1"]);
    assert!(
        tokio::time::timeout(Duration::from_secs(4), presence.lost())
            .await
            .is_err()
    );
    // The own key is watched again, without anybody having asked.
    server.raw().await.delete("/microservices/a/1", None).await.unwrap();
    assert!(matches!(within(2, "the loss", presence.lost()).await, Loss::Gone(_)));
    assert!(next(&mut stream).await.instances.is_empty());
}

#[tokio::test]
async fn a_deletion_during_an_outage_is_noticed_after_it() {
    let server = etcd!();
    let proxied = crate::support::Proxy::to(server.address()).await;
    let backend = registry(options(&[&proxied.address]), 30);
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let mut raw = server.raw().await;
    for compacted in [false, true] {
        proxied.lose_answers(true);
        raw.delete("/microservices/a/1", None).await.unwrap();
        if compacted {
            let revision = raw.put("x", "y", None).await.unwrap().header().unwrap().revision();
            raw.compact(revision, None).await.unwrap();
        }
        // The keep-alive finds out that nobody answers.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        proxied.lose_answers(false);
        let loss = within(10, "the loss", presence.lost()).await;
        assert!(matches!(loss, Loss::Gone(_)), "{loss:?}");
        retrying("repair", async || {
            presence.publish(&instance("a", "1"), Intent::Keep).await
        })
        .await;
    }
    // A gap in which nothing happened to it is no loss.
    proxied.lose_answers(true);
    let revision = raw.put("x", "y", None).await.unwrap().header().unwrap().revision();
    raw.compact(revision, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    proxied.lose_answers(false);
    assert!(
        tokio::time::timeout(Duration::from_secs(2), presence.lost())
            .await
            .is_err()
    );
    raw.delete("/microservices/a/1", None).await.unwrap();
    let loss = within(5, "the loss", presence.lost()).await;
    assert!(matches!(loss, Loss::Gone(_)), "{loss:?}");
}

#[tokio::test]
async fn a_server_that_lost_its_data_is_noticed() {
    let mut server = etcd!();
    let backend = server.backend();
    let mut presence = presence_of(&backend, "a", "1");
    for _ in 0..20 {
        presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    }
    let mut stream = follow(&backend, "a");
    assert_eq!(ids(&next(&mut stream).await), ["1"]);
    server.kill();
    server.restart_empty().await;
    let loss = within(10, "the loss", presence.lost()).await;
    assert!(matches!(loss, Loss::Gone(_)), "{loss:?}");
    retrying("repair", async || {
        presence.publish(&instance("a", "1"), Intent::Keep).await
    })
    .await;
    follow_until(&backend, "a", |list| ids(list) == ["1"]).await;
    let again = tokio::time::timeout(Duration::from_millis(500), presence.lost()).await;
    assert!(again.is_err(), "the repaired record stands, yet: {again:?}");
}

#[tokio::test]
async fn futures_dropped_half_way_leave_nothing_behind() {
    let server = etcd!();
    let backend = server.backend();
    backend.contact().await.unwrap();
    let mut raw = server.raw().await;
    for i in 0..100_u64 {
        let mut presence = presence_of(&backend, "a", &i.to_string());
        let hurry = Duration::from_micros(i * 30);
        let record = instance("a", &i.to_string());
        let _ = tokio::time::timeout(hurry, presence.publish(&record, Intent::Claim)).await;
        presence.withdraw().await.unwrap();
    }
    // A grant that was under way when its lease was revoked may be applied after that: an empty lease, which expires.
    eventually("nothing is left", || {
        let mut raw = raw.clone();
        async move { raw.leases().await.unwrap().leases().is_empty() }
    })
    .await;
    let prefix = etcd_client::GetOptions::new().with_prefix();
    assert_eq!(raw.get("/microservices/", Some(prefix)).await.unwrap().count(), 0);
}

#[tokio::test]
async fn close_ends_what_is_open() {
    let server = etcd!();
    let backend = server.backend();
    let mut stream = follow(&backend, "a");
    next(&mut stream).await;
    backend.close().await;
    let end = within(2, "the end", stream.next()).await;
    assert!(end.is_none_or(|e| e.is_err_and(|e| e.kind() == ErrorKind::Closed)));
}

/// A name of three megabytes, behind two addresses at a megabyte a second each.
async fn behind_slow_links(server: &crate::support::Server) -> ([Proxy; 2], EtcdBackend) {
    let mut raw = server.raw().await;
    let padding = "x".repeat(100_000);
    for i in 0..30 {
        let value = format!(r#"{{"id":"{i}","name":"big","metadata":{{"x":"{padding}"}}}}"#);
        raw.put(format!("/microservices/big/{i}"), value, None).await.unwrap();
    }
    let links = [Proxy::to(server.address()).await, Proxy::to(server.address()).await];
    for link in &links {
        link.slow_down(1 << 20);
    }
    let backend = backend(EtcdOptions {
        timeout: Duration::from_secs(6), // two seconds for a try whose answer has not begun
        ..options(&[&links[0].address, &links[1].address])
    });
    (links, backend)
}

#[tokio::test]
async fn a_list_that_takes_longer_than_one_try_arrives_and_costs_no_connection() {
    let server = etcd!();
    let (links, backend) = behind_slow_links(&server).await;
    let since = Instant::now();
    assert_eq!(backend.fetch("big").await.unwrap().instances.len(), 30);
    assert!(since.elapsed() > Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(links[0].accepted() + links[1].accepted(), 1);
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_asked_of_the_next_member() {
    let server = etcd!();
    let (links, backend) = behind_slow_links(&server).await;
    let cut = async {
        eventually("somebody was asked", async || {
            links[0].accepted() + links[1].accepted() > 0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let asked = usize::from(links[1].accepted() > 0);
        links[asked].lose_answers(true);
        links[1 - asked].slow_down(u64::MAX);
    };
    let (fetched, ()) = tokio::join!(backend.fetch("big"), cut);
    assert_eq!(fetched.unwrap().instances.len(), 30);
    assert_eq!((links[0].accepted(), links[1].accepted()), (1, 1));
    // The connection that fell silent is given up.
    assert_eq!(backend.fetch("big").await.unwrap().instances.len(), 30);
}

#[tokio::test]
async fn thousands_of_calls_that_are_given_up_cost_no_connection() {
    let server = etcd!();
    let mut raw = server.raw().await;
    let padding = "x".repeat(1000);
    let value = format!(r#"{{"id":"1","name":"a","metadata":{{"x":"{padding}"}}}}"#);
    raw.put("/microservices/a/1", value, None).await.unwrap();
    let link = Proxy::to(server.address()).await;
    let backend = backend(EtcdOptions {
        // As in production: a ping is answered behind what is under way.
        keep_alive: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(5),
        ..options(&[&link.address])
    });
    backend.fetch("a").await.unwrap();
    link.slow_down(1 << 20); // three megabytes of answers
    let calls = (0..3000).map(|_| tokio::time::timeout(Duration::from_millis(500), backend.fetch("a")));
    let given_up = futures::future::join_all(calls)
        .await
        .iter()
        .filter(|call| call.is_err())
        .count();
    assert!(given_up > 1500, "{given_up}");
    // Behind all of the answers that nobody waits for any more.
    backend.fetch("a").await.unwrap();
    link.slow_down(u64::MAX);
    backend.fetch("a").await.unwrap();
    assert_eq!(link.accepted(), 1);
}
