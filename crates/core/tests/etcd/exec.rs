//! One call in bytes: how often it is sent, and what is said of its outcome.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rollcall_core::ErrorKind;
use rollcall_core::etcd::{Call, EtcdClient, EtcdOptions, Fault, METHODS, RANGE, RangeResponse};
use rollcall_core::log::Log;
use tokio::time::Instant;

use crate::support::{Proxy, Server, binary, etcd, options, within};

fn method(path: &str) -> usize {
    METHODS.iter().position(|method| method.ends_with(path)).unwrap()
}

fn call(method: usize, body: Vec<u8>, reads: bool) -> Call {
    Call {
        method,
        body: body.into(),
        reads,
        point: true,
        needs_leader: true,
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        only: None,
    }
}

/// `PutRequest`; without a value also `RangeRequest`, which begins with the key as well.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn range(key: &str) -> Vec<u8> {
    let request = Put {
        key: key.into(),
        value: String::new(), // left out
    };
    request.encode_to_vec()
}

fn put(key: &str, value: &str) -> Call {
    let request = Put {
        key: key.into(),
        value: value.into(),
    };
    call(method("KV/Put"), request.encode_to_vec(), false)
}

async fn get(client: &EtcdClient, key: &str) -> Result<RangeResponse, Fault> {
    let answer = client.calls.exec(call(RANGE, range(key), true)).await?;
    Ok(RangeResponse::decode(answer).unwrap())
}

/// How often a key was written.
async fn version(server: &Server, key: &str) -> i64 {
    let answer = server.raw().await.get(key, None).await.unwrap();
    answer.kvs().first().map_or(0, etcd_client::KeyValue::version)
}

fn client(options: EtcdOptions) -> EtcdClient {
    EtcdClient::new(options, Log::default()).unwrap()
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_applied_once_and_its_outcome_is_unknown() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    // Two ways to the one server: a client that tried again would find the second one open.
    let client = client(options(&[&proxy.address, &server.address()]));
    for i in 0..4 {
        let key = format!("k{i}");
        // Whichever way it takes first: make it the deaf one.
        proxy.lose_answers(false);
        let mut through = put("warm", "1");
        through.only = Some(0);
        client.calls.exec(through).await.unwrap();
        proxy.lose_answers(true);
        let mut write = put(&key, "v");
        write.deadline = Some(Instant::now() + Duration::from_secs(2));
        match client.calls.exec(write).await {
            Ok(_) => {} // it went the other way
            Err(fault) => assert!(fault.outcome_unknown, "{fault:?}"),
        }
        assert_eq!(version(&server, &key).await, 1, "applied once, whatever was told");
    }
}

#[tokio::test]
async fn a_read_whose_answer_was_lost_is_asked_again_elsewhere() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(options(&[&proxy.address, &server.address()]));
    client.calls.exec(put("k", "v")).await.unwrap();
    proxy.lose_answers(true);
    for _ in 0..4 {
        let answer = within(5, "an answer", get(&client, "k")).await.unwrap();
        assert_eq!(answer.kvs[0].value, "v");
    }
}

#[tokio::test]
async fn a_write_that_was_not_sent_is_sent_to_another_member() {
    let server = etcd!();
    let closed = crate::support::free_port();
    let dead = format!("127.0.0.1:{closed}");
    for i in 0..8 {
        let client = client(options(&[&dead, &server.address()]));
        client.calls.exec(put(&format!("k{i}"), "v")).await.unwrap();
        assert_eq!(version(&server, &format!("k{i}")).await, 1);
    }
}

#[tokio::test]
async fn who_was_tried_in_vain_is_named_with_its_reason() {
    let (one, two) = (crate::support::free_port(), crate::support::free_port());
    let hosts = [format!("127.0.0.1:{one}"), format!("127.0.0.1:{two}")];
    let client = client(options(&[&hosts[0], &hosts[1]]));
    let fault = client.calls.exec(put("k", "v")).await.unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Unavailable);
    assert!(!fault.outcome_unknown, "nothing was sent");
    for host in &hosts {
        assert!(
            fault
                .tried
                .iter()
                .any(|(url, why)| url.contains(host) && why.contains("refused")),
            "{:?}",
            fault.tried
        );
    }
}

#[tokio::test]
async fn a_killed_server_leaves_no_write_applied_twice() {
    let Some(binary) = binary() else { return };
    let mut servers = Server::three(&binary).await;
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    let hosts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let client = client(options(&hosts));
    let mut told = Vec::new();
    let mut killed = false;
    for i in 0..600 {
        let key = format!("k{i:03}");
        if i == 200 && !killed {
            // Whichever member is in use goes in the middle of a burst.
            killed = true;
            servers[0].kill();
        }
        told.push((key.clone(), client.calls.exec(put(&key, "v")).await));
    }
    servers[0].restart().await;
    for (key, outcome) in told {
        let version = version(&servers[1], &key).await;
        match outcome {
            Ok(_) => assert_eq!(version, 1, "{key}"),
            Err(fault) if fault.outcome_unknown => assert!(version <= 1, "{key}: {version}"),
            Err(fault) => assert_eq!(version, 0, "{key}: {fault:?}"),
        }
    }
}

#[tokio::test]
async fn a_frozen_member_costs_a_point_read_a_few_seconds_and_later_ones_nothing() {
    let Some(binary) = binary() else { return };
    let servers = Server::three(&binary).await;
    for server in &servers {
        let address = server.address();
        let others: Vec<String> = servers.iter().map(Server::address).filter(|a| *a != address).collect();
        let client = client(EtcdOptions {
            // As in production: nothing here depends on quick pings.
            keep_alive: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            ..options(&[&address, &others[0], &others[1]])
        });
        // Make the one that will freeze the one in use.
        let mut warm = call(RANGE, range("k"), true);
        warm.only = Some(0);
        client.calls.exec(warm).await.unwrap();
        server.freeze();
        let read = |seconds| {
            let mut read = call(RANGE, range("k"), true);
            read.deadline = Some(Instant::now() + Duration::from_secs(30));
            within(seconds, "a read", client.calls.exec(read))
        };
        read(8).await.unwrap();
        let start = Instant::now();
        for _ in 0..20 {
            read(8).await.unwrap();
        }
        // Each that waits for the frozen one takes three seconds; one may wait for an election, on a busy machine for long.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        server.thaw();
    }
}

#[tokio::test]
async fn gets_of_one_tick_are_answered_in_order_by_one_transaction() {
    let server = etcd!("--max-txn-ops=16");
    let client = client(server.options());
    for i in 0..40 {
        client.calls.exec(put(&format!("k{i}"), &i.to_string())).await.unwrap();
    }
    let gets = |n: usize| (0..n).map(|i| Bytes::from(range(&format!("k{i}")))).collect::<Vec<_>>();
    // More than the server takes: answered all the same, one by one, and fewer are sent together from then on.
    let answers = client.calls.get_group(gets(40), None).await;
    assert!(client.calls.group_size() <= 20, "{}", client.calls.group_size());
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().kvs[0].value, i.to_string());
    }
    let before = client
        .calls
        .metrics()
        .attempts
        .load(std::sync::atomic::Ordering::Relaxed);
    let answers = client.calls.get_group(gets(16), None).await;
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().kvs[0].value, i.to_string());
    }
    let after = client
        .calls
        .metrics()
        .attempts
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(after - before, 1, "one call for sixteen gets");
}

#[tokio::test]
async fn a_get_without_permission_fails_alone() {
    let server = etcd!();
    let mut raw = server.raw().await;
    raw.put("open/a", "1", None).await.unwrap();
    raw.put("shut/a", "2", None).await.unwrap();
    raw.role_add("reader").await.unwrap();
    let permission = etcd_client::Permission::read("open/").with_prefix();
    raw.role_grant_permission("reader", permission).await.unwrap();
    for (user, role) in [("root", "root"), ("u", "reader")] {
        raw.user_add(user, "p", None).await.unwrap();
        raw.user_grant_role(user, role).await.unwrap();
    }
    raw.auth_enable().await.unwrap();
    let client = client(EtcdOptions {
        username: Some("u".into()),
        password: Some("p".into()),
        ..server.options()
    });
    let gets = ["open/a", "shut/a", "open/none"].map(|key| Bytes::from(range(key)));
    let answers = client.calls.get_group(gets.to_vec(), None).await;
    assert_eq!(answers[0].as_ref().unwrap().kvs[0].value, "1");
    assert_eq!(
        answers[1].as_ref().unwrap_err().error.kind(),
        ErrorKind::PermissionDenied
    );
    assert!(answers[2].as_ref().unwrap().kvs.is_empty());
}

#[tokio::test]
async fn an_answer_above_the_limit_harms_no_other_call() {
    let server = etcd!();
    let client = client(EtcdOptions {
        max_message_bytes: 64 * 1024,
        ..server.options()
    });
    client.calls.exec(put("big", &"x".repeat(100 * 1024))).await.unwrap();
    client.calls.exec(put("small", "x")).await.unwrap();
    let fault = get(&client, "big").await.unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::InvalidArgument, "{fault:?}");
    assert_eq!(get(&client, "small").await.unwrap().kvs[0].value, "x");
}

#[tokio::test]
async fn ten_thousand_gets_at_once_break_no_connection() {
    let server = etcd!();
    let client = client(server.options());
    client.calls.exec(put("k", "v")).await.unwrap();
    let gets = (0..10_000).map(|_| {
        let client = client.clone();
        // Time enough for a machine that does much else: this is about the connection.
        let mut call = call(RANGE, range("k"), true);
        call.deadline = Some(Instant::now() + Duration::from_secs(30));
        tokio::spawn(async move { client.calls.exec(call).await })
    });
    for get in gets.collect::<Vec<_>>() {
        let answer = within(30, "a get", get).await.unwrap().unwrap();
        assert_eq!(RangeResponse::decode(answer).unwrap().kvs[0].value, "v");
    }
}

/// Accepts connections and reads, and says nothing.
async fn silent() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    address
}

#[tokio::test]
async fn a_write_waits_for_no_member_that_says_nothing_and_is_sent_elsewhere() {
    let server = etcd!();
    let silent = silent().await;
    // Whichever comes first in the order of a client.
    for i in 0..4 {
        let client = client(EtcdOptions {
            connect_timeout: Duration::from_secs(30),
            ..options(&[&silent, &server.address()])
        });
        let mut write = put(&format!("k{i}"), "v");
        write.deadline = Some(Instant::now() + Duration::from_secs(30));
        within(6, "a write", client.calls.exec(write)).await.unwrap();
        assert_eq!(version(&server, &format!("k{i}")).await, 1);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_when_the_time_to_connect_is_over() {
    let silent = silent().await;
    let client = client(EtcdOptions {
        connect_timeout: Duration::from_millis(400),
        ..options(&[&silent])
    });
    for mut call in [put("k", "v"), call(RANGE, range("k"), true)] {
        call.deadline = Some(Instant::now() + Duration::from_secs(30));
        let fault = within(5, "a failure", client.calls.exec(call)).await.unwrap_err();
        assert_eq!(fault.error.kind(), ErrorKind::Unavailable, "{fault:?}");
        assert!(!fault.outcome_unknown, "nothing was sent: {fault:?}");
        assert!(
            fault
                .tried
                .iter()
                .all(|(_, why)| why.contains("said nothing within 400 ms")),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_call_for_one_host_goes_to_that_host() {
    let server = etcd!();
    let dead = format!("127.0.0.1:{}", crate::support::free_port());
    for _ in 0..6 {
        let client = client(options(&[&dead, &server.address()]));
        for _ in 0..2 {
            let on = |place| Call {
                only: Some(place),
                ..call(RANGE, range("k"), true)
            };
            let fault = client.calls.exec(on(0)).await.unwrap_err();
            assert!(fault.error.message().contains(&dead), "{fault:?}");
            client.calls.exec(on(1)).await.unwrap();
            let fault = client.calls.exec(on(2)).await.unwrap_err();
            assert_eq!(fault.error.kind(), ErrorKind::Internal);
        }
    }
}

#[tokio::test]
async fn a_member_that_freezes_under_writes_is_avoided_by_later_ones() {
    let Some(binary) = binary() else { return };
    let servers = Server::three(&binary).await;
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    // One that does not lead: otherwise the others cannot write either for a while.
    let mut follower = 0;
    for (i, server) in servers.iter().enumerate() {
        let status = server.raw().await.status().await.unwrap();
        if status.leader() != status.header().unwrap().member_id() {
            follower = i;
        }
    }
    let mut hosts: Vec<&str> = vec![&addresses[follower]];
    hosts.extend(
        addresses
            .iter()
            .filter(|a| **a != addresses[follower])
            .map(String::as_str),
    );
    let client = client(EtcdOptions {
        keep_alive: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        ..options(&hosts)
    });
    let mut warm = put("warm", "v");
    warm.only = Some(0);
    client.calls.exec(warm).await.unwrap();
    servers[follower].freeze();
    let write = |key: &str| {
        let mut write = put(key, "v");
        write.deadline = Some(Instant::now() + Duration::from_secs(60));
        let client = client.clone();
        async move { client.calls.exec(write).await }
    };
    let start = Instant::now();
    let stuck = tokio::spawn(write("stuck"));
    // Others are sent while it waits: from the fourth second on they go elsewhere.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    for i in 0..20 {
        // Those who wait for the frozen one wait for 10 s and more.
        within(8, "a later write", write(&format!("later{i}"))).await.unwrap();
    }
    let fault = within(25, "the end of the stuck one", stuck)
        .await
        .unwrap()
        .unwrap_err();
    assert!(fault.outcome_unknown, "{fault:?}");
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
    servers[follower].thaw();
}
