//! What befalls the server or the way to it while watches go on.

use super::*;

#[tokio::test]
async fn an_outage_is_told_once_and_ends_nothing() {
    let mut server = etcd!();
    let client = client(server.options());
    let mut queues: Vec<Queue> = (0..3).map(|_| Queue::watch(&client, prefix("p/", 0))).collect();
    for queue in &mut queues {
        queue.created().await;
    }
    server.kill();
    for queue in &mut queues {
        assert!(matches!(queue.next().await, Told::Disconnected(_)));
    }
    // Several tries to connect fail meanwhile.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.restart().await;
    for queue in &mut queues {
        assert!(matches!(queue.next().await, Told::Connecting));
        assert!(matches!(queue.next().await, Told::Created { again: false, .. }));
    }
    server.raw().await.put("p/k", "x", None).await.unwrap();
    for queue in &mut queues {
        assert_eq!(queue.events().await.len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_stops_speaking_is_noticed_without_pings() {
    let server = etcd!();
    let quiet = EtcdOptions {
        keep_alive: Duration::from_millis(400),
        keep_alive_timeout: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
        ..server.options()
    };
    let client = client(quiet);
    let mut queue = Queue::watch(&client, prefix("p/", 0));
    queue.created().await;
    server.freeze();
    let told = within(3, "the silence", queue.next()).await;
    server.thaw();
    assert!(matches!(told, Told::Disconnected(ErrorKind::Timeout)), "{told:?}");
    queue.created().await;
    server.raw().await.put("p/k", "x", None).await.unwrap();
    assert_eq!(queue.events().await.len(), 1);
}

#[tokio::test]
async fn a_stream_with_nothing_to_say_is_not_taken_for_a_dead_one() {
    let server = etcd!();
    let often = EtcdOptions {
        keep_alive: Duration::from_millis(200),
        ..server.options()
    };
    // The second waits for a revision to come: newer servers tell no progress on its stream.
    for from in [0, 1_000_000] {
        let client = client(often.clone());
        let mut queue = Queue::watch(&client, prefix("p/", from));
        queue.created().await;
        let told = tokio::time::timeout(Duration::from_secs(2), queue.next()).await;
        assert!(told.is_err(), "{told:?}");
    }
}

#[tokio::test]
async fn a_compacted_revision_ends_one_watch_with_the_revision_that_is_left() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    for i in 0..10 {
        raw.put("p/k", i.to_string(), None).await.unwrap();
    }
    raw.compact(8, None).await.unwrap();
    let settle = |from| WatchRequest {
        settle: true,
        ..prefix("p/", from)
    };
    let mut late = Queue::watch(&client, settle(3));
    let mut good = Queue::watch(&client, settle(8));
    let mut told = Vec::new();
    let end = loop {
        match late.next().await {
            Told::End(end) => break end,
            other => told.push(other),
        }
    };
    assert!(matches!(end, WatchEnd::Compacted(8)), "{end:?}");
    assert!(!told.iter().any(|told| matches!(told, Told::Settled)), "{told:?}");
    let mut settled = false;
    let mut revisions = Vec::new();
    while !settled || revisions.len() < 4 {
        match good.next().await {
            Told::Settled => settled = true,
            Told::Events { events, .. } => revisions.extend(events.iter().map(|(_, kv, _)| kv.mod_revision)),
            Told::End(end) => panic!("{end:?}"),
            _ => {}
        }
    }
    assert_eq!(revisions, [8, 9, 10, 11]);
}

#[tokio::test]
async fn a_watch_starts_again_where_it_is_told_to() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(options(&[&proxy.address]));
    let mut raw = server.raw().await;
    raw.put("p/a", "1", None).await.unwrap();
    let mut queue = Queue::watch(&client, prefix("p/", 0));
    queue.created().await;
    queue.inner.rewind(2);
    proxy.cut_after(0);
    raw.put("p/a", "2", None).await.unwrap();
    let mut revisions = Vec::new();
    while revisions.len() < 3 {
        revisions.extend(queue.events().await.iter().map(|(_, kv, _)| kv.mod_revision));
    }
    // The one that came before the cut, then both.
    assert_eq!(revisions, [3, 2, 3]);
}

#[tokio::test]
async fn a_denied_watch_fails_alone_and_an_old_token_fails_none() {
    let server = etcd!("--auth-token-ttl=2");
    let mut raw = server.raw().await;
    raw.role_add("app").await.unwrap();
    let all = Permission::new(PermissionType::Readwrite, "p/").with_prefix();
    raw.role_grant_permission("app", all).await.unwrap();
    raw.user_add("app", "secret", None).await.unwrap();
    raw.user_grant_role("app", "app").await.unwrap();
    raw.user_add("root", "root", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let proxy = Proxy::to(server.address()).await;
    let user = |password: &str| EtcdOptions {
        username: Some("app".into()),
        password: Some(password.into()),
        ..options(&[&proxy.address])
    };

    // One with a wrong password is told, and not tried for ever.
    let mut wrong = Queue::watch(&client(user("wrong")), prefix("p/", 0));
    let end = wrong.end().await;
    assert!(
        matches!(&end, WatchEnd::Refused(e) if e.kind() == ErrorKind::Unauthenticated),
        "{end:?}"
    );

    let client = client(user("secret"));
    let mut before = Queue::watch(&client, prefix("p/", 0));
    before.created().await;
    let mut denied = Queue::watch(&client, prefix("q/", 0));
    let mut after = Queue::watch(&client, prefix("p/", 0));
    let end = denied.end().await;
    assert!(
        matches!(&end, WatchEnd::Refused(e) if e.kind() == ErrorKind::PermissionDenied),
        "{end:?}"
    );
    after.created().await;

    // The token runs out while nothing is asked; then the connection goes, and then another is watched.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut late = Queue::watch(&client, prefix("p/", 0));
    late.created().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.cut_after(0);
    let root = etcd_client::ConnectOptions::new().with_user("root", "root");
    let mut root = etcd_client::Client::connect([server.url()], Some(root)).await.unwrap();
    root.put("p/k", "1", None).await.unwrap();
    for queue in [&mut before, &mut after, &mut late] {
        assert_eq!(queue.events().await.len(), 1);
    }
    root.put("p/k", "2", None).await.unwrap();
    for queue in [&mut before, &mut after, &mut late] {
        assert_eq!(queue.events().await[0].1.value, b"2");
    }
}

#[tokio::test]
async fn a_member_without_a_leader_is_left() {
    let Some(binary) = binary() else { return };
    let mut servers = Server::three(&binary).await;
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    // The one that the watch is on is the only one that the client knows: it has nowhere to go.
    let client = client(options(&[&addresses[0]]));
    let mut queue = Queue::watch(&client, prefix("p/", 0));
    queue.created().await;
    servers[1].kill();
    servers[2].kill();
    let told = within(15, "the loss of the leader", queue.next()).await;
    assert!(matches!(told, Told::Disconnected(ErrorKind::Unavailable)), "{told:?}");
    servers[1].restart().await;
    queue.created().await;
    servers[1].raw().await.put("p/k", "x", None).await.unwrap();
    assert_eq!(queue.events().await.len(), 1);
}

#[tokio::test]
async fn the_pauses_between_tries_may_be_given() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener); // nobody listens there
    let client = client(options(&[&address]));
    client.watches.set_watch_pauses(vec![Duration::from_millis(700)]);
    let mut queue = Queue::watch(&client, prefix("p/", 0));
    assert!(matches!(queue.next().await, Told::Disconnected(_)));
    let start = tokio::time::Instant::now();
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    within(5, "the next try", listener.accept()).await.unwrap();
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(500), "{waited:?}");
}
