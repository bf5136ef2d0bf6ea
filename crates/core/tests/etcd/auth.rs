//! Users, passwords, permissions, and tokens that run out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Permission, PermissionType};
use rollcall_core::ErrorKind;
use rollcall_core::backend::{Backend as _, Intent, Loss};
use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
use rollcall_core::error::Result;
use rollcall_core::etcd::{
    Created, Delivery, EtcdClient, EtcdOptions, OnDisconnect, Response, WatchEnd, WatchRequest, WatchSink,
};
use rollcall_core::log::{Level, Log};

use crate::support::{Server, etcd, eventually, follow, ids, instance, next, presence_of, registry, within};

/// `root`, and `app` with all rights under `/microservices/`; its password is `secret`.
async fn enable(server: &Server) -> etcd_client::Client {
    let mut raw = server.raw().await;
    raw.role_add("app").await.unwrap();
    let all = Permission::new(PermissionType::Readwrite, "/microservices/").with_prefix();
    raw.role_grant_permission("app", all).await.unwrap();
    raw.user_add("app", "secret", None).await.unwrap();
    raw.user_grant_role("app", "app").await.unwrap();
    raw.user_add("root", "root", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let root = etcd_client::ConnectOptions::new()
        .with_user("root", "root")
        .with_auto_token_refresh(true);
    etcd_client::Client::connect([server.url()], Some(root)).await.unwrap()
}

fn user(server: &Server, name: &str, password: &str) -> EtcdOptions {
    EtcdOptions {
        username: Some(name.to_owned()),
        password: Some(password.to_owned()),
        ..server.options()
    }
}

fn backend(options: EtcdOptions) -> EtcdBackend {
    registry(options, 3)
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let server = etcd!();
    enable(&server).await;

    let wrong = backend(user(&server, "app", "wrong")).contact().await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unauthenticated);
    assert!(
        wrong.message().contains("authentication failed") && !wrong.message().contains("wrong"),
        "{wrong}"
    );

    let nobody = server.backend().contact().await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unauthenticated, "{nobody:?}");

    let records = EtcdRecords {
        prefix: "/elsewhere".to_owned(),
        ..EtcdRecords::default()
    };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let log = Log::new(Level::Info, move |_, line| told.lock().unwrap().push(line));
    let elsewhere = EtcdBackend::new(user(&server, "app", "secret"), &records, log).unwrap();
    for _ in 0..3 {
        elsewhere.contact().await.unwrap(); // the user is known: what he may do each call tells
    }
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    let limits = lines.iter().filter(|line| line.contains("not all names can be read"));
    assert_eq!(limits.count(), 1, "once for each client: {lines:?}");
    let denied = elsewhere.services().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    assert!(denied.message().contains("/elsewhere/"), "{denied}");
    let denied: Result<()> = presence_of(&elsewhere, "a", "1")
        .publish(&instance("a", "1"), Intent::Claim)
        .await;
    assert!(denied.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied && e.message().contains("/elsewhere/a/1")));

    let right = backend(user(&server, "app", "secret"));
    right.contact().await.unwrap();
    let mut presence = presence_of(&right, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    assert_eq!(ids(&next(&mut follow(&right, "a")).await), ["1"]);
    assert!(
        tokio::time::timeout(Duration::from_secs(4), presence.lost())
            .await
            .is_err(),
        "it is renewed"
    );
    presence.withdraw().await.unwrap();
}

#[tokio::test]
async fn a_user_that_the_server_does_not_ask_for_is_no_error() {
    let server = etcd!();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let log = Log::new(Level::Warn, move |_, line| sink.lock().unwrap().push(line));
    let backend = EtcdBackend::new(user(&server, "app", "secret"), &EtcdRecords::default(), log).unwrap();
    for _ in 0..3 {
        backend.contact().await.unwrap();
    }
    let said = lines.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("no authentication") && !said[0].contains("secret"),
        "{said:?}"
    );
    // It may be enabled later.
    enable(&server).await;
    backend.contact().await.unwrap();
}

#[tokio::test]
async fn tokens_that_run_out_are_replaced_for_calls_and_watches() {
    let server = etcd!("--auth-token-ttl=1");
    let mut root = enable(&server).await;
    let backend = backend(user(&server, "app", "secret"));
    backend.contact().await.unwrap();
    let mut open = follow(&backend, "a");
    next(&mut open).await;
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    assert_eq!(ids(&next(&mut open).await), ["1"]);
    // What this waits for is the time itself.
    for round in 2..4 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        // A new watch on the old stream is refused for its token; the old ones must not notice.
        let mut later = follow(&backend, "a");
        next(&mut later).await;
        let id = round.to_string();
        let mut more = presence_of(&backend, "a", &id);
        more.publish(&instance("a", &id), Intent::Claim).await.unwrap();
        assert_eq!(next(&mut later).await.instances.len(), 2);
        assert_eq!(next(&mut open).await.instances.len(), 2);
        more.withdraw().await.unwrap();
        assert_eq!(next(&mut later).await.instances.len(), 1);
        assert_eq!(next(&mut open).await.instances.len(), 1);
    }
    // A change in the auth store makes tokens old too.
    root.role_add("other").await.unwrap();
    backend.contact().await.unwrap();
    root.delete("/microservices/a/1", None).await.unwrap();
    assert!(matches!(within(5, "the loss", presence.lost()).await, Loss::Gone(_)));
    assert!(next(&mut open).await.instances.is_empty());
}

#[tokio::test]
async fn a_watch_that_is_denied_disturbs_no_other() {
    let server = etcd!();
    let mut root = enable(&server).await;
    root.role_revoke_permission(
        "app",
        "/microservices/",
        Some(etcd_client::RoleRevokePermissionOptions::new().with_prefix()),
    )
    .await
    .unwrap();
    for (right, name) in [(PermissionType::Readwrite, "seen"), (PermissionType::Write, "written")] {
        let permission = Permission::new(right, format!("/microservices/{name}/")).with_prefix();
        root.role_grant_permission("app", permission).await.unwrap();
    }
    let backend = backend(user(&server, "app", "secret"));
    let mut seen = follow(&backend, "seen");
    next(&mut seen).await;
    // May be written and not read: only its lease can tell that it is lost.
    let mut blind = presence_of(&backend, "written", "1");
    blind.publish(&instance("written", "1"), Intent::Claim).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), blind.lost())
            .await
            .is_err()
    );
    let denied = backend.fetch("written").await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    let mut presence = presence_of(&backend, "seen", "1");
    presence.publish(&instance("seen", "1"), Intent::Claim).await.unwrap();
    assert_eq!(ids(&next(&mut seen).await), ["1"]);
    let lease = root.get("/microservices/written/1", None).await.unwrap().kvs()[0].lease();
    root.lease_revoke(lease).await.unwrap();
    assert!(matches!(within(5, "the loss", blind.lost()).await, Loss::Gone(_)));
    let client = EtcdClient::new(user(&server, "app", "secret"), Log::default()).unwrap();
    let watch = |key: &str| {
        client.watches.subscribe(WatchRequest {
            key: key.as_bytes().to_vec(),
            range_end: Vec::new(),
            from_revision: 1,
            cluster: 0,
            on_disconnect: OnDisconnect::End,
            ..WatchRequest::default()
        })
    };
    let mut open = watch("/microservices/seen/k");
    for _ in 0..3 {
        let end = within(5, "the end", watch("/microservices/written/k").next()).await;
        assert!(
            matches!(&end, Err(WatchEnd::Refused(e)) if e.kind() == ErrorKind::PermissionDenied),
            "{end:?}"
        );
    }
    root.put("/microservices/seen/k", "x", None).await.unwrap();
    assert_eq!(within(5, "an event", open.next()).await.unwrap().changes.len(), 1);
}

/// Counts how often its watch was created, and what came.
#[derive(Clone, Default)]
struct Counted {
    created: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
}

impl WatchSink for Counted {
    fn created(&mut self, _: Created) {
        self.created.fetch_add(1, Ordering::SeqCst);
    }

    fn deliver(&mut self, response: Response) -> Delivery {
        self.events.fetch_add(response.events.len(), Ordering::SeqCst);
        Delivery::Taken
    }

    fn end(self: Box<Self>, _: WatchEnd) {}
}

#[tokio::test]
async fn denied_watches_do_not_cost_the_others_their_stream() {
    let server = etcd!();
    let mut root = enable(&server).await;
    let client = EtcdClient::new(user(&server, "app", "secret"), Log::default()).unwrap();
    let request = |key: &str| WatchRequest {
        key: key.as_bytes().to_vec(),
        on_disconnect: OnDisconnect::Resume,
        ..WatchRequest::default()
    };
    let counted = Counted::default();
    let watch = |_| {
        client
            .watches
            .watch(request("/microservices/k"), Box::new(counted.clone()))
    };
    let _watches: Vec<_> = (0..200).map(watch).collect();
    let created = || counted.created.load(Ordering::SeqCst);
    eventually("all are created", || async { created() == 200 }).await;
    for i in 0..20 {
        let mut denied = client.watches.subscribe(request(&format!("/elsewhere/{i}")));
        let end = within(5, "the end", denied.next()).await;
        assert!(
            matches!(&end, Err(WatchEnd::Refused(e)) if e.kind() == ErrorKind::PermissionDenied),
            "{end:?}"
        );
    }
    assert_eq!(created(), 200, "none of them was created again");
    // A right that is granted later counts, whatever this server says of a token that is older than it.
    let right = Permission::new(PermissionType::Readwrite, "/elsewhere/").with_prefix();
    root.role_grant_permission("app", right).await.unwrap();
    root.put("/elsewhere/0", "x", None).await.unwrap();
    let mut granted = client.watches.subscribe(WatchRequest {
        from_revision: 1,
        ..request("/elsewhere/0")
    });
    let batch = within(10, "the event of what is permitted now", granted.next()).await;
    assert_eq!(batch.unwrap().changes.len(), 1);
    assert!(created() <= 400, "once, for the new token: {}", created());
    root.put("/microservices/k", "x", None).await.unwrap();
    eventually("all go on", || async { counted.events.load(Ordering::SeqCst) == 200 }).await;
}
