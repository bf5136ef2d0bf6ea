//! Leases on real servers: what keeps them alive, and when they are lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollcall_core::etcd::{
    Cause, EtcdClient, EtcdOptions, Lease, LeaseEvent, LeaseOptions, Session, SessionEvent, SessionOptions, lost,
};
use rollcall_core::log::Log;
use rollcall_core::stall::{Pulse, StallMonitor};
use tokio::time::Instant;

use crate::support::{Proxy, Server, binary, etcd, eventually, options, within};

const TTL: Duration = Duration::from_secs(3);

fn client(options: EtcdOptions) -> EtcdClient {
    EtcdClient::new(options, Log::default()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// It stays alive for so long, by our own clock and by the server's.
async fn assert_lives(lease: &Lease, server: &Server, time: Duration) {
    let mut state = lease.state();
    let gone = tokio::time::timeout(time, lost(&mut state)).await;
    assert!(gone.is_err(), "{gone:?}");
    assert!(lease.is_alive());
    let mut raw = server.raw().await;
    let left = raw.lease_time_to_live(lease.id(), None).await.unwrap();
    assert!(left.ttl() >= 0, "etcd knows no such lease");
}

fn wanted(ttl: i64, until: Instant) -> SessionOptions {
    SessionOptions {
        id: Lease::new_id(),
        ttl: Some(ttl),
        renews_itself: true,
        until,
        insists: false,
        stall: None,
    }
}

#[tokio::test]
async fn a_hundred_leases_of_one_client_live_beyond_their_time() {
    let server = etcd!();
    let client = client(server.options());
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(client.leases.grant(Lease::new_id(), TTL).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(leases.iter().all(Lease::is_alive));
    assert_eq!(server.raw().await.leases().await.unwrap().leases().len(), 100);
    drop(leases);
    eventually("they expire when nobody keeps them", || async {
        server.raw().await.leases().await.unwrap().leases().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_somebody_revokes_is_lost_within_a_third_of_its_time() {
    let server = etcd!();
    let client = client(server.options());
    let lease = client.leases.grant(Lease::new_id(), TTL).await.unwrap();
    server.raw().await.lease_revoke(lease.id()).await.unwrap();
    let revoked = Instant::now();
    let why = within(5, "the loss", lost(&mut lease.state())).await;
    assert!(why.contains("revoked"), "{why}");
    assert!(
        revoked.elapsed() < Duration::from_millis(1500),
        "{:?}",
        revoked.elapsed()
    );
    assert!(!lease.is_alive());
    let renewed = lease.renew_once(soon()).await.unwrap_err();
    assert_eq!(renewed.cause, Cause::LeaseNotFound);
}

#[tokio::test]
async fn behind_a_link_that_goes_black_a_lease_is_lost_at_its_deadline() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(options(&[&proxy.address]));
    let lease = client.leases.grant(Lease::new_id(), TTL).await.unwrap();
    within(2, "a renewal", lease.renew_once(soon())).await.unwrap();
    proxy.lose_answers(true);
    let black = Instant::now();
    within(5, "the loss", lost(&mut lease.state())).await;
    let (deadline, now) = (lease.deadline(), Instant::now());
    // At the deadline, and room for a busy machine: who waited for a renewal to fail would be later than that.
    assert!(
        now >= deadline && now < deadline + Duration::from_secs(1),
        "{:?}",
        now - deadline
    );
    assert!(deadline <= black + Duration::from_secs(3), "{:?}", deadline - black);
}

#[tokio::test]
async fn a_lease_lives_through_a_restart_of_its_server() {
    let mut server = etcd!();
    let client = client(server.options());
    let lease = client
        .leases
        .grant(Lease::new_id(), Duration::from_secs(10))
        .await
        .unwrap();
    server.kill();
    server.restart().await;
    assert_lives(&lease, &server, Duration::from_secs(11)).await;
}

#[tokio::test]
async fn a_lease_lives_when_the_leader_freezes() {
    let Some(binary) = binary() else { return };
    let servers = Server::three(&binary).await;
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    let hosts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let client = client(options(&hosts));
    let ttl = Duration::from_secs(5); // an election takes one to two seconds
    let lease = client.leases.grant(Lease::new_id(), ttl).await.unwrap();
    let mut leads = None;
    for (i, server) in servers.iter().enumerate() {
        let status = server.raw().await.status().await.unwrap();
        if status.leader() == status.header().unwrap().member_id() {
            leads = Some(i);
        }
    }
    let leads = leads.unwrap();
    servers[leads].freeze();
    assert_lives(&lease, &servers[(leads + 1) % 3], Duration::from_secs(10)).await;
    servers[leads].thaw();
}

#[tokio::test]
async fn a_lease_lives_longer_than_the_token_it_was_granted_with() {
    let server = etcd!("--auth-token-ttl=2");
    let mut raw = server.raw().await;
    raw.user_add("root", "root", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let client = client(EtcdOptions {
        username: Some("root".to_owned()),
        password: Some("root".to_owned()),
        ..server.options()
    });
    let lease = client.leases.grant(Lease::new_id(), TTL).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(8), lost(&mut lease.state())).await;
    assert!(gone.is_err(), "{gone:?}");
    within(3, "a renewal", lease.renew_once(soon())).await.unwrap();
}

#[tokio::test]
async fn a_member_that_never_answers_costs_a_grant_and_a_revocation_three_seconds_at_most() {
    let server = etcd!();
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and says nothing
    let dead = hole.local_addr().unwrap().to_string();
    // The order is drawn at random: some of these ask the silent one first.
    let each = (0..6).map(|_| {
        let client = client(EtcdOptions {
            timeout: Duration::from_secs(60),
            ..options(&[&dead, &server.address()])
        });
        async move {
            let id = Lease::new_id();
            let lease = within(4, "the grant", client.leases.grant(id, TTL)).await.unwrap();
            assert!(lease.is_alive());
            within(4, "the revocation", client.leases.revoke(id)).await.unwrap();
        }
    });
    futures::future::join_all(each).await;
}

#[tokio::test]
async fn a_grant_whose_answer_was_lost_leaves_one_lease() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(EtcdOptions {
        timeout: Duration::from_secs(2),
        ..options(&[&proxy.address])
    });
    client.leases.grant(Lease::new_id(), TTL).await.unwrap(); // there is a connection
    proxy.lose_answers(true);
    let id = Lease::new_id();
    client.leases.grant(id, TTL).await.map(|_| ()).unwrap_err();
    let mut raw = server.raw().await;
    let granted = raw.leases().await.unwrap();
    assert!(granted.leases().iter().any(|lease| lease.id() == id), "it was granted");
    proxy.lose_answers(false);
    let lease = client.leases.grant(id, TTL).await.unwrap();
    assert_eq!(raw.lease_time_to_live(id, None).await.unwrap().granted_ttl(), 3);
    assert_lives(&lease, &server, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn a_wanted_lease_whose_grant_was_not_answered_in_time_is_taken_back() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(options(&[&proxy.address]));
    client.leases.grant(Lease::new_id(), TTL).await.map(drop).unwrap();
    proxy.lose_answers(true);
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let until = Instant::now() + Duration::from_secs(1);
    let session = Session::begin(
        client.leases.clone(),
        wanted(600, until),
        Arc::new(move |event: &SessionEvent| heard.lock().unwrap().push(event.clone())),
    );
    let mut raw = server.raw().await;
    let count = async |raw: &mut etcd_client::Client| {
        let leases = raw.leases().await.unwrap();
        leases
            .leases()
            .iter()
            .filter(|lease| lease.id() == session.id())
            .count()
    };
    eventually("it is refused", || async { !events.lock().unwrap().is_empty() }).await;
    assert!(matches!(events.lock().unwrap()[..], [SessionEvent::Refused(_)]));
    proxy.lose_answers(false);
    let end = Instant::now() + Duration::from_secs(10);
    while count(&mut raw).await > 0 {
        assert!(Instant::now() < end, "it stands for its ten minutes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!session.is_alive());
    within(1, "the revocation of nothing", session.close(soon()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wanted_lease_can_be_given_up_at_any_time() {
    let server = etcd!();
    let client = client(server.options());
    let raw = || async { server.raw().await.leases().await.unwrap().leases().len() };
    let ignore: Arc<dyn Fn(&SessionEvent) + Send + Sync> = Arc::new(|_| {});
    // Before the grant is answered.
    let session = Session::begin(client.leases.clone(), wanted(600, soon()), Arc::clone(&ignore));
    session.close(soon()).await.unwrap();
    assert_eq!(raw().await, 0);
    // Afterwards.
    let session = Session::begin(client.leases.clone(), wanted(600, soon()), Arc::clone(&ignore));
    session.renew_once(soon()).await.unwrap();
    assert!(session.is_alive());
    assert_eq!(session.granted(), Some(Duration::from_secs(600)));
    session.close(soon()).await.unwrap();
    assert_eq!(raw().await, 0);
    // Released, it stands and nobody keeps it.
    let session = Session::begin(client.leases.clone(), wanted(2, soon()), ignore);
    session.orphan();
    eventually("it was granted", || async { raw().await == 1 }).await;
    eventually("it expired", || async { raw().await == 0 }).await;
    assert!(!session.is_alive());
}

#[tokio::test]
async fn a_lease_of_somebody_else_is_taken_over() {
    let server = etcd!();
    let mut raw = server.raw().await;
    let id = raw.lease_grant(3, None).await.unwrap().id();
    let client = client(server.options());
    let lease = client.leases.attach(id, soon(), LeaseOptions::default()).await.unwrap();
    assert_eq!((lease.id(), lease.granted()), (id, Duration::from_secs(3)));
    // A second time, by the same client: it lives on with either.
    let again = client.leases.attach(id, soon(), LeaseOptions::default()).await.unwrap();
    drop(lease);
    assert_lives(&again, &server, Duration::from_secs(5)).await;
    let none = client.leases.attach(id + 1, soon(), LeaseOptions::default()).await;
    assert_eq!(none.map(drop).unwrap_err().cause, Cause::LeaseNotFound);
}

#[derive(Default)]
struct Thread {
    asked: AtomicU64,
    answered: AtomicU64,
    blocked: AtomicBool,
}

impl Pulse for Thread {
    fn ping(&self) -> u64 {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if !self.blocked.load(Ordering::SeqCst) {
            self.answered.store(asked, Ordering::SeqCst);
        }
        asked
    }
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_lease_whose_owner_does_not_tick_is_revoked() {
    let server = etcd!();
    let client = client(server.options());
    let thread = Arc::new(Thread::default());
    let monitor = StallMonitor::new(thread.clone());
    let limit = Duration::from_secs(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&heard);
    let options = LeaseOptions {
        stall: Some(monitor.limit(limit)),
        observer: Some(Arc::new(move |event: &LeaseEvent| {
            inner.lock().unwrap().push(event.clone());
        })),
        ..LeaseOptions::default()
    };
    let lease = client
        .leases
        .grant_for(Lease::new_id(), 600, soon(), options)
        .await
        .unwrap();
    assert_lives(&lease, &server, Duration::from_secs(2)).await;
    thread.blocked.store(true, Ordering::SeqCst);
    let why = within(4, "the loss", lost(&mut lease.state())).await;
    assert!(why.contains("blocked"), "{why}");
    assert!(matches!(heard.lock().unwrap()[..], [LeaseEvent::Lost(_)]));
    eventually("it is revoked", || async {
        server.raw().await.leases().await.unwrap().leases().is_empty()
    })
    .await;
}

/// Of this thread, in nanoseconds.
fn cpu_time() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse().unwrap()
}

/// `cargo test --release -p rollcall-core --test etcd ten_thousand -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement that takes more than a minute"]
async fn ten_thousand_leases_live_for_a_minute() {
    let server = etcd!();
    let client = client(server.options());
    let begun = Instant::now();
    let mut leases = Vec::new();
    while leases.len() < 10_000 {
        let grants = (0..100).map(|_| client.leases.grant(Lease::new_id(), Duration::from_secs(15)));
        leases.extend(futures::future::join_all(grants).await.into_iter().map(Result::unwrap));
    }
    let granted = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, since) = (cpu_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let busy = Duration::from_nanos(cpu_time() - before);
    let share = busy.as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    assert!(leases.iter().all(Lease::is_alive));
    let there = server.raw().await.leases().await.unwrap().leases().len();
    assert_eq!(there, 10_000);
    println!("granted in {granted:?}; CPU of the thread in a minute: {busy:?}, {share:.1} %");
}
