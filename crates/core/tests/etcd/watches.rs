//! The shared watch stream, below the backend.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use rollcall_core::etcd::{
    Created, Delivery, EtcdClient, EtcdOptions, OnDisconnect, Response, Subscription, WatchControl, WatchEnd,
    WatchRequest, WatchSink,
};
use rollcall_core::log::Log;

use crate::support::{Proxy, Server, binary, etcd, eventually, options, within};

fn watch(client: &EtcdClient, key: &str, from_revision: i64, on_disconnect: OnDisconnect) -> Subscription {
    client.watches.subscribe(WatchRequest {
        key: key.as_bytes().to_vec(),
        range_end: Vec::new(),
        from_revision,
        cluster: 0,
        on_disconnect,
        ..WatchRequest::default()
    })
}

#[tokio::test]
async fn a_thousand_watches_share_a_stream_and_survive_a_restart() {
    let mut server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut watches: Vec<Subscription> = (0..1_000)
        .map(|i| watch(&client, &format!("k{i}"), 1, OnDisconnect::Resume))
        .collect();
    for round in ["before", "after"] {
        let mut raw = server.raw().await;
        for i in 0..1_000 {
            raw.put(format!("k{i}"), round, None).await.unwrap();
        }
        for (i, watch) in watches.iter_mut().enumerate() {
            let batch = within(20, "an event", watch.next()).await.unwrap();
            assert_eq!(batch.changes.len(), 1);
            assert_eq!(batch.changes[0].key, format!("k{i}").into_bytes());
            assert_eq!(batch.changes[0].value.as_deref(), Some(round.as_bytes()));
        }
        if round == "before" {
            server.kill();
            server.restart().await;
        }
    }
    for watch in &mut watches {
        let more = tokio::time::timeout(Duration::ZERO, watch.next()).await;
        assert!(more.is_err(), "nothing comes twice: {more:?}");
    }
}

#[tokio::test]
async fn compaction_is_told_and_disturbs_no_other() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    for i in 0..10 {
        raw.put("k", i.to_string(), None).await.unwrap();
    }
    let last = raw.get("k", None).await.unwrap().header().unwrap().revision();
    raw.compact(last, None).await.unwrap();
    let mut fresh = watch(&client, "k", last + 1, OnDisconnect::End);
    let mut late = watch(&client, "k", 2, OnDisconnect::End);
    assert!(matches!(
        within(5, "the end", late.next()).await,
        Err(WatchEnd::Compacted(11))
    ));
    assert!(
        matches!(late.next().await, Err(WatchEnd::Compacted(11))),
        "it tells the same again"
    );
    raw.put("k", "new", None).await.unwrap();
    let batch = within(5, "an event", fresh.next()).await.unwrap();
    assert_eq!(batch.changes[0].value.as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_revision_in_fragments_is_delivered_whole() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    let mut watch = client.watches.subscribe(WatchRequest {
        key: b"p/".to_vec(),
        range_end: b"p0".to_vec(),
        from_revision: 1,
        cluster: 0,
        on_disconnect: OnDisconnect::End,
        ..WatchRequest::default()
    });
    // 100 keys of 14 KB in one transaction, several times, so that catching up exceeds the server's send limit too.
    let value = "x".repeat(14_000);
    for _ in 0..3 {
        let puts: Vec<TxnOp> = (0..100)
            .map(|i| TxnOp::put(format!("p/{i}"), value.clone(), None))
            .collect();
        raw.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let mut seen = 0;
    while seen < 300 {
        let batch = within(10, "a revision", watch.next()).await.unwrap();
        assert_eq!(batch.changes.len() % 100, 0, "whole revisions only");
        seen += batch.changes.len();
    }
    let mut again = client.watches.subscribe(WatchRequest {
        key: b"p/".to_vec(),
        range_end: b"p0".to_vec(),
        from_revision: 1,
        cluster: 0,
        on_disconnect: OnDisconnect::End,
        ..WatchRequest::default()
    });
    let batch = within(10, "all revisions", again.next()).await.unwrap();
    assert_eq!(batch.changes.len() % 100, 0);
}

#[tokio::test]
async fn a_consumer_that_sleeps_is_ended_and_the_others_go_on() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    let mut sleeper = watch(&client, "k", 1, OnDisconnect::End);
    let mut reader = watch(&client, "k", 1, OnDisconnect::End);
    for i in 0..600 {
        raw.put("k", i.to_string(), None).await.unwrap();
        let batch = within(5, "an event", reader.next()).await.unwrap();
        assert!(!batch.changes.is_empty());
    }
    let mut seen = 0;
    let end = loop {
        match within(5, "the end", sleeper.next()).await {
            Ok(batch) => seen += batch.changes.len(),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, WatchEnd::Lapsed), "{end:?}");
    assert!((1..600).contains(&seen), "{seen}");
}

#[tokio::test]
async fn subscriptions_that_come_and_go_leave_the_server_clean() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    let mut kept = watch(&client, "kept", 1, OnDisconnect::End);
    for i in 0..500 {
        let mut brief = watch(&client, &format!("brief{i}"), 1, OnDisconnect::End);
        if i % 5 == 0 {
            raw.put(format!("brief{i}"), "x", None).await.unwrap();
            within(5, "an event", brief.next()).await.unwrap();
        }
    }
    let lease = raw.lease_grant(2, None).await.unwrap().id();
    let when = vec![Compare::version("kept", CompareOp::Equal, 0)];
    let put = TxnOp::put("kept", "x", Some(PutOptions::new().with_lease(lease)));
    raw.txn(Txn::new().when(when).and_then(vec![put])).await.unwrap();
    let put = within(5, "the put", kept.next()).await.unwrap();
    assert_eq!((put.changes[0].lease, put.changes[0].value.is_some()), (lease, true));
    let expired = within(8, "the expiry", kept.next()).await.unwrap();
    assert_eq!(expired.changes[0].value, None);
}

#[tokio::test]
async fn who_comes_while_a_stream_is_being_opened_ends_with_the_others() {
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and says nothing
    let options = EtcdOptions {
        timeout: Duration::from_secs(3),
        ..options(&[&hole.local_addr().unwrap().to_string()])
    };
    let client = EtcdClient::new(options, Log::default()).unwrap();
    let mut first = watch(&client, "a", 1, OnDisconnect::End);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut second = watch(&client, "b", 1, OnDisconnect::End);
    let end = within(5, "the first end", first.next()).await;
    assert!(matches!(end, Err(WatchEnd::Disconnected(_))), "{end:?}");
    let end = within(1, "the second end", second.next()).await;
    assert!(matches!(end, Err(WatchEnd::Disconnected(_))), "{end:?}");
}

#[tokio::test]
async fn whoever_is_ahead_of_the_cluster_is_told() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    let now = raw.put("k", "x", None).await.unwrap().header().unwrap().revision();
    let mut level = watch(&client, "k", now + 1, OnDisconnect::Resume);
    // Some of them come while the leader is being asked about others.
    let mut ahead = Vec::new();
    for _ in 0..20 {
        ahead.push(watch(&client, "k", now + 100, OnDisconnect::Resume));
        tokio::task::yield_now().await;
    }
    for watch in &mut ahead {
        let end = within(5, "the end", watch.next()).await;
        assert!(matches!(end, Err(WatchEnd::HistoryBroke(_))), "{end:?}");
    }
    raw.put("k", "y", None).await.unwrap();
    assert_eq!(within(5, "an event", level.next()).await.unwrap().changes.len(), 1);
}

/// What its watch was told.
#[derive(Clone, Default)]
struct Noted {
    created: Arc<AtomicUsize>,
    /// Where it would have resumed after the last creation.
    next: Arc<AtomicI64>,
    delivered: Arc<AtomicUsize>,
    end: Arc<Mutex<Option<WatchEnd>>>,
}

impl Noted {
    fn count(&self) -> usize {
        self.created.load(Ordering::SeqCst)
    }

    async fn created_or_ended(&self, times: usize) {
        eventually("it is created or ends", || async {
            self.count() >= times || self.end.lock().unwrap().is_some()
        })
        .await;
    }
}

impl WatchSink for Noted {
    fn created(&mut self, created: Created) {
        self.next.store(created.next_revision, Ordering::SeqCst);
        self.created.fetch_add(1, Ordering::SeqCst);
    }

    fn deliver(&mut self, _: Response) -> Delivery {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        Delivery::Taken
    }

    fn end(self: Box<Self>, why: WatchEnd) {
        *self.end.lock().unwrap() = Some(why);
    }
}

/// Cuts a quiet watch until it resumes behind what others wrote, at most five times, then compacts all that and cuts again.
/// Returns whether it went on.
async fn outlives_a_compaction(server: &Server) -> bool {
    let proxy = Proxy::to(server.address()).await;
    let client = EtcdClient::new(options(&[&proxy.address]), Log::default()).unwrap();
    client.watches.set_progress_interval(Duration::from_millis(50));
    let noted = Noted::default();
    let request = WatchRequest {
        key: b"quiet".to_vec(),
        on_disconnect: OnDisconnect::Resume,
        ..WatchRequest::default()
    };
    let _watch = client.watches.watch(request, Box::new(noted.clone()));
    noted.created_or_ended(1).await;
    let mut raw = server.raw().await;
    let mut last = 0;
    for _ in 0..300 {
        last = raw.put("other", "x", None).await.unwrap().header().unwrap().revision();
    }
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(200 << round)).await;
        let times = noted.count() + 1;
        proxy.cut_after(0);
        noted.created_or_ended(times).await;
        if noted.next.load(Ordering::SeqCst) > last {
            break;
        }
    }
    raw.compact(last, None).await.unwrap();
    let times = noted.count() + 1;
    proxy.cut_after(0);
    noted.created_or_ended(times).await;
    // The end of a compacted watch comes behind its creation.
    raw.put("quiet", "x", None).await.unwrap();
    eventually("the event, or the end", || async {
        noted.delivered.load(Ordering::SeqCst) > 0 || noted.end.lock().unwrap().is_some()
    })
    .await;
    let end = noted.end.lock().unwrap().clone();
    assert!(matches!(end, None | Some(WatchEnd::Compacted(_))), "{end:?}");
    let delivered = noted.delivered.load(Ordering::SeqCst);
    assert_eq!(
        delivered,
        usize::from(end.is_none()),
        "nobody hears of revisions that pass by"
    );
    end.is_none()
}

/// Of this year, and of before answers about progress could be trusted, where there is one.
fn binaries() -> Vec<PathBuf> {
    let older = Some("/usr/bin/etcd".into()).filter(|older: &PathBuf| older.exists());
    binary().into_iter().chain(older).collect()
}

#[tokio::test]
async fn a_quiet_watch_outlives_the_compaction_of_what_passed_it_by() {
    for binary in binaries() {
        let server = Server::start(&binary, &[]).await;
        let status = server.raw().await.status().await.unwrap();
        let version: Vec<u32> = status
            .version()
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect();
        // Whom older ones answer while events wait they would make lose these.
        let is_sure = version >= vec![3, 5, 8] || (vec![3, 4, 26]..vec![3, 5]).contains(&version);
        assert_eq!(outlives_a_compaction(&server).await, is_sure, "{version:?}");
    }
}

/// Writes down the revisions that it is given.
struct Revisions(Arc<Mutex<Vec<i64>>>);

impl WatchSink for Revisions {
    fn deliver(&mut self, response: Response) -> Delivery {
        let revisions = response.events.iter().map(|event| event.kv.mod_revision);
        self.0.lock().unwrap().extend(revisions);
        Delivery::Taken
    }

    fn end(self: Box<Self>, _: WatchEnd) {}
}

#[tokio::test]
async fn asking_how_far_the_stream_is_loses_nothing() {
    for binary in binaries() {
        let server = Server::start(&binary, &[]).await;
        let proxy = Proxy::to(server.address()).await;
        let client = EtcdClient::new(options(&[&proxy.address]), Log::default()).unwrap();
        client.watches.set_progress_interval(Duration::from_millis(1));
        client.watches.set_watch_pauses(vec![Duration::ZERO]);
        let seen: Vec<Arc<Mutex<Vec<i64>>>> = (0..50).map(|_| Arc::default()).collect();
        let watch = |seen: &Arc<Mutex<Vec<i64>>>| {
            let request = WatchRequest {
                key: b"k".to_vec(),
                from_revision: 1,
                on_disconnect: OnDisconnect::Resume,
                ..WatchRequest::default()
            };
            client.watches.watch(request, Box::new(Revisions(Arc::clone(seen))))
        };
        let _watches: Vec<_> = seen.iter().map(watch).collect();
        let mut raw = server.raw().await;
        let mut written = Vec::new();
        for i in 0..1_000 {
            if i % 150 == 100 {
                proxy.cut_after(fastrand::u64(0..20_000));
            }
            let key = if i % 2 == 0 { "k" } else { "other" };
            let revision = raw.put(key, "x", None).await.unwrap().header().unwrap().revision();
            if key == "k" {
                written.push(revision);
            }
        }
        eventually("all have come", || async {
            seen.iter().all(|seen| seen.lock().unwrap().last() == written.last())
        })
        .await;
        for seen in &seen {
            assert_eq!(*seen.lock().unwrap(), written);
        }
    }
}

/// Answers of all watches of a flood, and one watch that is cancelled in the middle of it.
#[derive(Clone, Default)]
struct Flood {
    answers: Arc<AtomicUsize>,
    victim: Arc<Mutex<Option<WatchControl>>>,
    /// How many answers had come when the victim was cancelled, and when the hub had let it go.
    cancelled: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

impl WatchSink for Flood {
    fn deliver(&mut self, _: Response) -> Delivery {
        let answers = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        if answers == 100 {
            self.cancelled.store(answers, Ordering::SeqCst);
            drop(self.victim.lock().unwrap().take());
        }
        // Slower than what brings them, so that the next one is always there.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(50) {}
        Delivery::Taken
    }

    fn end(self: Box<Self>, _: WatchEnd) {}
}

/// The sink of the one that is cancelled.
struct Victim(Flood);

impl WatchSink for Victim {
    fn deliver(&mut self, response: Response) -> Delivery {
        self.0.deliver(response)
    }

    fn end(self: Box<Self>, _: WatchEnd) {}
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0
            .gone
            .store(self.0.answers.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_answers_does_not_hold_up_commands() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let request = WatchRequest {
        key: b"k".to_vec(),
        from_revision: 1,
        ..WatchRequest::default()
    };
    let flood = Flood::default();
    *flood.victim.lock().unwrap() = Some(client.watches.watch(request.clone(), Box::new(Victim(flood.clone()))));
    let _watches: Vec<_> = (1..200)
        .map(|_| client.watches.watch(request.clone(), Box::new(flood.clone())))
        .collect();
    let mut raw = server.raw().await;
    for _ in 0..20 {
        raw.put("k", "x", None).await.unwrap();
    }
    eventually("it is gone", || async { flood.gone.load(Ordering::SeqCst) > 0 }).await;
    let late = flood.gone.load(Ordering::SeqCst) - flood.cancelled.load(Ordering::SeqCst);
    assert!(late <= 64, "{late} answers came before the cancellation was served");
}

/// Fails at the first thing that it is given.
struct Bomb;

impl WatchSink for Bomb {
    fn deliver(&mut self, _: Response) -> Delivery {
        panic!("planted");
    }

    fn end(self: Box<Self>, _: WatchEnd) {
        panic!("planted too");
    }
}

#[tokio::test]
async fn a_fault_of_the_task_is_told_to_every_watch_and_the_next_one_has_another() {
    let server = etcd!();
    let client = EtcdClient::new(server.options(), Log::default()).unwrap();
    let mut raw = server.raw().await;
    let request = WatchRequest {
        key: b"planted".to_vec(),
        from_revision: 1,
        ..WatchRequest::default()
    };
    let mut others: Vec<_> = (0..20).map(|_| watch(&client, "k", 1, OnDisconnect::Resume)).collect();
    let _planted = client.watches.watch(request, Box::new(Bomb));
    raw.put("planted", "x", None).await.unwrap();
    for other in &mut others {
        let end = within(5, "the end", other.next()).await;
        assert!(
            matches!(&end, Err(WatchEnd::Disconnected(error)) if error.message().contains("a fault of its own")),
            "{end:?}"
        );
    }
    let mut next = watch(&client, "k", 1, OnDisconnect::Resume);
    raw.put("k", "x", None).await.unwrap();
    assert_eq!(within(5, "an event", next.next()).await.unwrap().changes.len(), 1);
    client.close();
    for _ in 0..2 {
        let mut late = watch(&client, "k", 1, OnDisconnect::Resume);
        let end = within(5, "the end", late.next()).await;
        assert!(matches!(end, Err(WatchEnd::Closed)), "{end:?}");
        let noted = Noted::default();
        let _late = client.watches.watch(WatchRequest::default(), Box::new(noted.clone()));
        noted.created_or_ended(1).await;
        assert!(noted.end.lock().unwrap().is_some());
    }
}
