//! What one client shares: pacing, closing, the memory of bad records. On the memory backend and on scripts.

use tokio::time::Instant;

use super::*;
use crate::ErrorKind;
use crate::backends::memory::{MemoryBackend, MemoryServer};
use crate::registration::{OutReason, State};
use crate::tally::Tally;
use crate::testing::{Answer, Scripted, ScriptedBackend, instance};

const TTL: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(10);

fn quick() -> RegisterOptions {
    RegisterOptions {
        background: false,
        timeout: LIMIT,
        stall_timeout: Duration::ZERO,
    }
}

fn memory(namespace: &str) -> (Registry, Arc<MemoryServer>) {
    let backend = Arc::new(MemoryBackend::new(namespace, TTL));
    (
        Registry::new(backend, RegistryOptions::default(), Hooks::default()),
        MemoryServer::of(namespace),
    )
}

async fn register(registry: &Registry, id: &str) -> Registration {
    registry
        .register(instance(id, "1"), quick(), Box::new(|_| ()))
        .await
        .unwrap()
}

async fn ids(registry: &Registry) -> Vec<String> {
    let list = registry.get_service("orders", true, LIMIT).await.unwrap();
    list.iter().map(|i| i.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn two_clients_of_one_namespace_see_each_other() {
    let (one, _) = memory("see-each-other");
    let (two, _) = memory("see-each-other");
    register(&one, "a").await;
    assert_eq!(ids(&two).await, ["a"]);
    assert_eq!(two.services(false, LIMIT).await.unwrap(), ["orders"]);
}

/// Until the names are these, with their counts.
async fn names_are(watcher: &mut Watcher<ServiceName>, wanted: &str) {
    let mut last = String::new();
    while timeout(TTL * 3, async { watcher.next().await.unwrap().unwrap() })
        .await
        .map(|list| {
            let each = list
                .iter()
                .map(|n| format!("{}:{}", n.name, n.count.unwrap_or_default()));
            last = each.collect::<Vec<_>>().join(" ");
        })
        .is_ok()
        && last != wanted
    {}
    assert_eq!(last, wanted);
}

#[tokio::test(start_paused = true)]
async fn the_names_of_memory_come_and_go_with_their_instances() {
    let (registry, server) = memory("names");
    let mut watcher = registry.watch_services().unwrap();
    names_are(&mut watcher, "").await;
    let first = register(&registry, "a").await;
    names_are(&mut watcher, "orders:1").await;
    register(&registry, "b").await;
    server.put("bad", "x", "not JSON");
    server.put("other", "x", r#"{"name":"elsewhere","id":"x"}"#);
    server.put("good", "x", r#"{"name":"good","id":"x"}"#);
    names_are(&mut watcher, "good:1 orders:2").await;
    assert_eq!(registry.services(false, LIMIT).await.unwrap(), ["good", "orders"]);
    server.crash("orders", "b");
    names_are(&mut watcher, "good:1 orders:1").await; // it expired
    first.deregister(LIMIT).await.unwrap();
    names_are(&mut watcher, "good:1").await;
    server.set_away(true);
    sleep(Duration::from_millis(1)).await;
    assert!(watcher.view().stale);
    assert_eq!(registry.services(false, LIMIT).await.unwrap(), ["good"], "stale or not");
    assert!(registry.services(true, Duration::from_secs(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_list_its_names_says_so() {
    let script = Scripted::new();
    script.capabilities.lock().unwrap().lists_names = false;
    let backend = Arc::new(ScriptedBackend(script.clone()));
    let registry = Registry::new(backend, RegistryOptions::default(), Hooks::default());
    for error in [
        registry.watch_services().map(drop).unwrap_err(),
        registry.services(false, LIMIT).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("listsNames"), "{error}");
    }
    assert!(script.asked().is_empty(), "nothing was begun");
}

#[tokio::test(start_paused = true)]
async fn a_registered_instance_stays_far_beyond_its_ttl() {
    let (registry, _) = memory("stays");
    register(&registry, "a").await;
    sleep(TTL * 100).await;
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_instance_goes_within_its_ttl_and_never_comes_back() {
    let (registry, server) = memory("crashed");
    let registration = register(&registry, "a").await;
    sleep(TTL / 2).await;
    assert!(server.crash("orders", "a"));
    assert_eq!(ids(&registry).await, ["a"], "without a word");
    sleep(TTL).await;
    assert_eq!(ids(&registry).await, [""; 0]);
    sleep(TTL * 10).await;
    assert_eq!(ids(&registry).await, [""; 0]);
    assert_eq!(registration.state(), State::Registered, "the dead notice nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_noticed_and_repaired() {
    let (registry, server) = memory("expired");
    let registration = register(&registry, "a").await;
    assert!(server.expire("orders", "a"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(&registry).await, ["a"]);
    assert_eq!(registration.state(), State::Registered);
}

#[tokio::test(start_paused = true)]
async fn the_newer_of_two_registrations_of_one_id_wins_and_the_older_does_not_take_it_down() {
    let (one, _) = memory("twice");
    let (two, _) = memory("twice");
    let older = register(&one, "a").await;
    let newer = register(&two, "a").await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(older.state(), State::Replaced);
    older.deregister(LIMIT).await.unwrap();
    sleep(TTL * 3).await;
    assert_eq!(ids(&one).await, ["a"]);
    assert_eq!(newer.state(), State::Registered);
}

#[tokio::test(start_paused = true)]
async fn an_absence_shorter_than_the_ttl_fires_nothing() {
    let (registry, server) = memory("short-absence");
    let registration = register(&registry, "a").await;
    server.set_away(true);
    sleep(TTL / 2).await;
    server.set_away(false);
    sleep(TTL * 2).await;
    assert_eq!(registration.state(), State::Registered);
}

#[tokio::test(start_paused = true)]
async fn an_absence_longer_than_the_ttl_is_a_loss_and_is_repaired() {
    let (registry, server) = memory("long-absence");
    let registration = register(&registry, "a").await;
    let watcher = registry.watch("orders").unwrap();
    sleep(Duration::from_millis(10)).await;
    server.set_away(true);
    sleep(TTL * 4).await;
    assert_eq!(registration.state(), State::Lost);
    assert!(watcher.view().stale);
    assert_eq!(
        registry.get_service("orders", false, LIMIT).await.unwrap().len(),
        1,
        "the last list stays"
    );
    let error = registry.get_service("orders", true, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    server.set_away(false);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(registration.state(), State::Registered);
    assert!(!watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_instances_return_with_at_most_64_publications_in_flight() {
    let script = Scripted::new();
    let registry = Registry::new(
        Arc::new(ScriptedBackend(script.clone())),
        RegistryOptions::default(),
        Hooks::default(),
    );
    let all = (0..1000).map(|i| {
        let registry = registry.clone();
        async move {
            registry
                .register(instance(&format!("i{i}"), "1"), quick(), Box::new(|_| ()))
                .await
                .unwrap()
        }
    });
    let all = futures::future::join_all(all).await;
    script.lose(crate::backend::Loss::Gone("test".into()));
    sleep(Duration::from_secs(5)).await;
    assert!(all.iter().all(|r| r.state() == State::Registered));
    assert_eq!(script.in_flight.lock().unwrap().1, PUBLICATIONS_IN_FLIGHT);
}

#[tokio::test(start_paused = true)]
async fn a_register_that_is_dropped_half_way_leaves_nothing() {
    let script = Scripted::new();
    script.answers([Answer::Hang]);
    let registry = Registry::new(
        Arc::new(ScriptedBackend(script.clone())),
        RegistryOptions::default(),
        Hooks::default(),
    );
    let dropped = timeout(
        Duration::from_secs(1),
        registry.register(instance("a", "1"), quick(), Box::new(|_| ())),
    );
    assert!(dropped.await.is_err());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(script.asked().last(), Some(&crate::testing::Asked::Withdraw));
}

#[tokio::test(start_paused = true)]
async fn a_read_without_an_answer_says_who_was_asked_and_what_about() {
    let script = Scripted::new();
    script.reads.lock().unwrap().push_back(None);
    let registry = Registry::new(
        Arc::new(ScriptedBackend(script)),
        RegistryOptions::default(),
        Hooks::default(),
    );
    let limit = Duration::from_secs(3);
    let error = registry.get_service("orders", false, limit).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, "getService"));
    assert_eq!(error.message(), "the script did not answer within 3000 ms");
    assert_eq!((error.endpoint(), error.key()), (Some("script:1"), Some("orders")));
}

#[tokio::test(start_paused = true)]
async fn in_the_background_it_returns_at_once_and_comes_when_it_can() {
    let (registry, server) = memory("background");
    server.set_away(true);
    let options = RegisterOptions {
        background: true,
        ..quick()
    };
    let registration = registry
        .register(instance("a", "1"), options, Box::new(|_| ()))
        .await
        .unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(registration.state(), State::Registering);
    server.set_away(false);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn close_removes_everything_ends_watches_and_refuses_what_comes_later() {
    let (registry, _) = memory("close");
    let (other, _) = memory("close");
    register(&registry, "a").await;
    register(&registry, "b").await;
    let mut watcher = registry.watch("orders").unwrap();
    watcher.next().await.unwrap().unwrap();
    registry.close(Duration::ZERO, LIMIT).await.unwrap();
    registry.close(Duration::ZERO, LIMIT).await.unwrap();
    assert_eq!(ids(&other).await, [""; 0]);
    assert!(watcher.next().await.unwrap().is_none());
    for error in [
        registry
            .get_service("orders", false, LIMIT)
            .await
            .map(drop)
            .unwrap_err(),
        registry.services(false, LIMIT).await.map(drop).unwrap_err(),
        registry.watch("orders").map(drop).unwrap_err(),
        registry.watch_services().map(drop).unwrap_err(),
        registry
            .register(instance("c", "1"), quick(), Box::new(|_| ()))
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_while_the_registry_is_away() {
    let (registry, server) = memory("close-away");
    register(&registry, "a").await;
    server.set_away(true);
    let before = Instant::now();
    let error = registry
        .close(Duration::ZERO, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(before.elapsed() <= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_is_reported_once_and_again_only_when_it_changes() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    let hooks = Hooks {
        on_bad_record: Some(Arc::new(move |record| sink.lock().unwrap().push(record))),
        ..Hooks::default()
    };
    let backend = Arc::new(MemoryBackend::new("bad", TTL));
    let registry = Registry::new(backend, RegistryOptions::default(), hooks);
    let server = MemoryServer::of("bad");
    register(&registry, "a").await;
    server.put("orders", "broken", "not-json");
    for _ in 0..3 {
        assert_eq!(ids(&registry).await, ["a"]);
    }
    assert_eq!(heard.lock().unwrap().len(), 1);
    server.put("orders", "broken", "[]");
    ids(&registry).await;
    assert_eq!(heard.lock().unwrap().len(), 2);
    server.remove("orders", "broken");
    ids(&registry).await;
    server.put("orders", "broken", "[]");
    ids(&registry).await;
    assert_eq!(heard.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_matched_exactly() {
    let (registry, _) = memory("exact");
    let mut other = instance("x", "1");
    other.name = "orders-admin".into();
    registry.register(other, quick(), Box::new(|_| ())).await.unwrap();
    assert_eq!(ids(&registry).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_close_right_after_a_register_that_never_reached_the_registry_has_nothing_to_complain_of() {
    let (registry, server) = memory("never-reached");
    server.set_away(true);
    let options = RegisterOptions {
        timeout: Duration::from_secs(1),
        ..quick()
    };
    let failed = registry.register(instance("a", "1"), options, Box::new(|_| ())).await;
    assert_eq!(failed.map(drop).unwrap_err().kind(), ErrorKind::Timeout);
    let before = Instant::now();
    registry.close(Duration::ZERO, LIMIT).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn renewal_stops_at_once_for_all_also_when_removals_must_wait_their_turn() {
    let script = Scripted::new();
    script.withdrawals(vec![Answer::Hang; 1000]);
    let registry = Registry::new(
        Arc::new(ScriptedBackend(script.clone())),
        RegistryOptions::default(),
        Hooks::default(),
    );
    for i in 0..100 {
        registry
            .register(instance(&format!("i{i}"), "1"), quick(), Box::new(|_| ()))
            .await
            .unwrap();
    }
    registry
        .close(Duration::ZERO, Duration::from_secs(2))
        .await
        .unwrap_err();
    let count = |what| script.asked().iter().filter(|asked| **asked == what).count();
    assert_eq!(count(crate::testing::Asked::Stop), 100);
    assert_eq!(count(crate::testing::Asked::Withdraw), PUBLICATIONS_IN_FLIGHT);
    let asked = script.asked().len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(script.asked().len(), asked, "nothing goes on behind a closed client");
}

#[tokio::test(start_paused = true)]
async fn a_read_outlasts_an_absence_that_ends_within_its_time() {
    let (registry, server) = memory("read-outlasts");
    register(&registry, "a").await;
    server.set_away(true);
    let reading = registry.clone();
    let read = tokio::spawn(async move { reading.get_service("orders", true, LIMIT).await.map(|list| list.len()) });
    sleep(Duration::from_secs(1)).await;
    server.set_away(false);
    assert_eq!(read.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_rounds_out_of_traffic_and_in_again_leave_no_task_behind() {
    let (registry, _) = memory("rounds");
    let registration = register(&registry, "a").await;
    let round = async || {
        registration.withdraw(OutReason::Withdrawn, LIMIT).await.unwrap();
        assert!(ids(&registry).await.is_empty());
        registration.restore(OutReason::Withdrawn, LIMIT).await.unwrap();
        assert_eq!(ids(&registry).await, ["a"]);
    };
    round().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    for _ in 0..1000 {
        round().await;
    }
    sleep(TTL).await; // what was aborted is gone by then
    assert_eq!(metrics.num_alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_a_loss_are_counted_and_the_status_follows() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let hooks = Hooks {
        on_status: Some(Arc::new(move |status: Status| {
            sink.lock().unwrap().push(status.as_str());
        })),
        ..Hooks::default()
    };
    let backend = Arc::new(MemoryBackend::new("counted", TTL));
    let registry = Registry::new(backend, RegistryOptions::default(), hooks);
    let server = MemoryServer::of("counted");
    assert_eq!(
        (registry.status(), registry.metrics()),
        (Status::Connecting, Metrics::default())
    );

    let first = register(&registry, "a").await;
    let mut watcher = registry.watch("orders").unwrap();
    watcher.next().await.unwrap();
    let before = registry.metrics();
    assert_eq!((before.registered, before.attempts, before.failed_attempts), (1, 1, 0));
    assert_eq!(
        (before.followed, before.reads, before.lists, before.stale),
        (1, 1, 1, 0)
    );

    server.set_away(true);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(registry.status(), Status::Disconnected);
    let away = registry.metrics();
    assert_eq!((away.breaks, away.stale), (1, 1));
    registry
        .get_service("orders", true, Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(
        registry.metrics().get_service,
        crate::metrics::Calls { begun: 1, failed: 1 }
    );
    registry.get_service("orders", false, LIMIT).await.unwrap();
    assert_eq!(registry.metrics().get_service.begun, 1, "a watch answered");

    server.set_away(false);
    sleep(LIMIT).await;
    assert_eq!(registry.status(), Status::Connected);
    server.expire("orders", "a");
    sleep(LIMIT).await;
    let after = registry.metrics();
    assert_eq!((after.breaks, after.stale), (1, 0));
    assert!(after.losses >= 1 && after.losses == after.repairs, "{after:?}");
    assert!(after.attempts > before.attempts && after.reads > before.reads && after.lists > before.lists);

    first.withdraw(OutReason::Withdrawn, LIMIT).await.unwrap();
    assert_eq!((registry.metrics().registered, registry.metrics().out), (1, 1));
    first.deregister(LIMIT).await.unwrap();
    drop(watcher);
    sleep(Duration::from_millis(1)).await;
    let left = registry.metrics();
    assert_eq!(
        (left.registered, left.out, left.followed, left.stale, left.replaced),
        (0, 0, 0, 0, 0)
    );
    registry.close(Duration::ZERO, LIMIT).await.unwrap();
    assert_eq!(registry.status(), Status::Closed);
    assert_eq!(*told.lock().unwrap(), ["connected", "disconnected", "connected"]);
}

#[tokio::test(start_paused = true)]
async fn ping_asks_once_and_ready_until_it_is_answered() {
    let (registry, server) = memory("ping");
    server.set_away(true);
    assert_eq!(registry.ping(LIMIT).await.unwrap_err().operation(), "ping");
    let error = registry.ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_retryable() && error.operation() == "ready", "{error}");
    assert_eq!(registry.status(), Status::Connecting, "nothing has answered yet");
    let waiting = registry.clone();
    let ready = tokio::spawn(async move { waiting.ready(LIMIT).await });
    sleep(Duration::from_secs(1)).await;
    server.set_away(false);
    ready.await.unwrap().unwrap();
    assert_eq!(registry.status(), Status::Connected);
    assert!(registry.ping(LIMIT).await.unwrap() < LIMIT);
    registry.close(Duration::ZERO, LIMIT).await.unwrap();
    for error in [
        registry.ping(LIMIT).await.map(drop).unwrap_err(),
        registry.ready(LIMIT).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

/// What `call` gives, and how many attempts it took.
async fn counted<T>(call: impl Future<Output = T>) -> (T, u32) {
    let tally = Tally::default();
    let value = tally.within(call).await;
    (value, tally.attempts())
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_told_how_many_attempts_a_call_took() {
    let (registry, server) = memory("attempts");
    let (read, once) = counted(registry.get_service("orders", true, LIMIT)).await;
    assert_eq!((read.is_ok(), once), (true, 1));
    let new = || registry.register(instance("a", "1"), quick(), Box::new(|_| ()));
    server.set_away(true);
    let (read, tries) = counted(registry.get_service("orders", true, LIMIT)).await;
    assert!(read.is_err() && tries > 1, "{tries}");
    let (pinged, once) = counted(registry.ping(LIMIT)).await;
    assert_eq!((pinged.is_err(), once), (true, 1));
    let (registered, tries) = counted(new()).await;
    assert!(registered.is_err() && tries > 1, "{tries}");
    let (dropped, tries) = counted(timeout(LIMIT / 2, new())).await;
    assert!(dropped.is_err() && tries > 0, "{tries}");

    let mut watcher = registry.watch("orders").unwrap();
    sleep(LIMIT).await;
    server.set_away(false);
    assert!(watcher.next().await.unwrap().unwrap().is_empty() && watcher.attempts() > 1);
    let (known, none) = counted(registry.get_service("orders", false, LIMIT)).await;
    assert_eq!((known.is_ok(), none), (true, 0));
    let (registration, once) = counted(new()).await;
    let registration = registration.unwrap();
    assert_eq!((once, registration.attempts()), (1, 1));
    registration.withdraw(OutReason::Withdrawn, LIMIT).await.unwrap();
    registration.restore(OutReason::Withdrawn, LIMIT).await.unwrap();
    assert_eq!(registration.attempts(), 3);
    registration.deregister(LIMIT).await.unwrap();
    assert_eq!(registration.attempts(), 4);
}
