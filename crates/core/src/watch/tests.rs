//! The reflector under paused time, against scripted streams.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::backend::{BadRecord, ServiceName, Snapshot};
use crate::error::{Error, ErrorKind};
use crate::log::Level;
use crate::log::Log;
use crate::testing::{Scripted, ScriptedBackend, Snapshots, instance};

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(15);

struct Bench {
    script: Arc<Scripted>,
    reflectors: Reflectors<Instances>,
    names: Reflectors<Names>,
    bad: Arc<Mutex<Vec<BadRecord>>>,
}

fn bench() -> Bench {
    bench_with(Log::default())
}

fn bench_with(log: Log) -> Bench {
    let script = Scripted::new();
    let bad = Arc::<Mutex<Vec<BadRecord>>>::default();
    let heard = bad.clone();
    let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
    let source = Arc::new(Source {
        backend: Arc::new(ScriptedBackend(script.clone())),
        reads: Arc::new(Semaphore::new(32)),
        timeout: Duration::from_secs(10),
        empty_grace: GRACE,
        on_bad: Arc::new(move |_, bad| heard.lock().unwrap().extend_from_slice(bad)),
        breaks: Breaks::new(closed.clone(), tasks.clone(), log.clone()),
        closed,
        tasks,
        log,
        meter: Arc::default(),
        reach: Arc::default(),
    });
    Bench {
        script,
        reflectors: Reflectors::new(source.clone()),
        names: Reflectors::new(source),
        bad,
    }
}

fn named(name: &str) -> Instances {
    Instances(name.into())
}

fn snapshot(ids: &[&str]) -> Snapshot {
    Snapshot {
        instances: ids.iter().map(|id| Arc::new(instance(id, "1"))).collect(),
        bad: Vec::new(),
    }
}

fn send(stream: &Snapshots, ids: &[&str]) {
    stream.send(Ok(snapshot(ids))).unwrap();
}

fn ids(list: &List) -> Vec<&str> {
    list.iter().map(|instance| &*instance.id).collect()
}

/// What the next list is; `None` when nothing comes for a good while.
async fn next(watcher: &mut Watcher, within: Duration) -> Option<Vec<String>> {
    let list = timeout(within, watcher.next()).await.ok()?.unwrap()?;
    Some(list.iter().map(|instance| instance.id.to_string()).collect())
}

const SOON: Duration = Duration::from_millis(600);

#[tokio::test(start_paused = true)]
async fn the_first_list_comes_at_once_also_when_it_is_empty() {
    let bench = bench();
    send(&bench.script.stream(), &[]);
    let mut watcher = bench.reflectors.watch(named("orders"));
    assert_eq!(ids(&watcher.next().await.unwrap().unwrap()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_invented_while_the_registry_cannot_be_reached() {
    let bench = bench();
    let mut watcher = bench.reflectors.watch(named("orders"));
    assert_eq!(next(&mut watcher, Duration::from_secs(300)).await, None);
    send(&bench.script.stream(), &["a"]);
    assert_eq!(
        next(&mut watcher, Duration::from_secs(11)).await,
        Some(vec!["a".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_rejects_the_first_next_but_a_later_one_only_makes_it_stale() {
    let bench = bench();
    let refused = || Err(Error::new(ErrorKind::PermissionDenied, "no"));
    bench.script.stream().send(refused()).unwrap();
    let mut watcher = bench.reflectors.watch(named("orders"));
    assert_eq!(watcher.next().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    drop(watcher);
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("other"));
    send(&stream, &["a"]);
    next(&mut watcher, SOON).await.unwrap();
    stream.send(refused()).unwrap();
    assert_eq!(next(&mut watcher, SOON).await, None);
    assert!(watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn lists_are_sorted_whole_and_without_repeats_and_only_differences_are_delivered() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["b", "a", "b"]);
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["a", "b"]);
    send(&stream, &["a", "b"]);
    assert_eq!(next(&mut watcher, SOON).await, None, "the same again is no delivery");
    send(&stream, &["a"]);
    send(&stream, &[]);
    assert_eq!(
        next(&mut watcher, SOON).await.unwrap(),
        Vec::<String>::new(),
        "the latest wins"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_taken_back_meanwhile_is_not_delivered() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a"]);
    next(&mut watcher, SOON).await.unwrap();
    send(&stream, &["a", "b"]);
    send(&stream, &["a"]);
    assert_eq!(next(&mut watcher, SOON).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_did_not_change_keeps_its_allocation() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "c"]);
    let first = watcher.next().await.unwrap().unwrap();
    send(&stream, &["a", "b", "c"]);
    let second = watcher.next().await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&first[0], &second[0]) && Arc::ptr_eq(&first[1], &second[2]));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_followed_once_however_many_watch_and_no_longer_when_nobody_does() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut first = bench.reflectors.watch(named("orders"));
    let mut second = bench.reflectors.watch(named("orders"));
    send(&stream, &["a"]);
    assert!(next(&mut first, SOON).await.is_some());
    assert!(next(&mut second, SOON).await.is_some());
    assert_eq!(bench.script.asked().len(), 1);
    drop(first);
    send(&stream, &["b"]);
    assert_eq!(next(&mut second, SOON).await.unwrap(), ["b"]);
    drop(second);
    sleep(SOON).await;
    assert!(stream.is_closed(), "the reflector is gone");
    assert!(bench.reflectors.current(&named("orders")).is_none());
}

#[tokio::test(start_paused = true)]
async fn after_a_break_the_list_stays_stale_until_it_is_read_anew() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b"]);
    next(&mut watcher, SOON).await.unwrap();
    drop(stream);
    sleep(Duration::from_secs(3600)).await;
    assert!(watcher.view().stale);
    assert_eq!(ids(&bench.reflectors.current(&named("orders")).unwrap()), ["a", "b"]);
    let again = bench.script.stream();
    send(&again, &["a", "b"]);
    assert_eq!(
        next(&mut watcher, Duration::from_secs(11)).await,
        None,
        "fresh again, and no delivery"
    );
    assert!(!watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn a_net_change_during_a_break_is_delivered() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b"]);
    next(&mut watcher, SOON).await.unwrap();
    let again = bench.script.stream();
    send(&again, &["b", "c"]);
    drop(stream);
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lost_more_than_half_in_a_break_is_held_back_and_then_believed() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b", "c"]);
    next(&mut watcher, SOON).await.unwrap();
    let again = bench.script.stream();
    send(&again, &["a"]);
    drop(stream);
    assert_eq!(next(&mut watcher, GRACE.mul_f64(0.97)).await, None);
    assert!(watcher.view().stale);
    assert_eq!(next(&mut watcher, SOON * 2).await.unwrap(), ["a"]);
    assert!(!watcher.view().stale);
    send(&again, &[]);
    assert_eq!(
        next(&mut watcher, SOON).await.unwrap(),
        Vec::<String>::new(),
        "without a break all is believed at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_fills_up_again_within_the_grace_is_believed_at_once() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b", "c", "d"]);
    next(&mut watcher, SOON).await.unwrap();
    let again = bench.script.stream();
    send(&again, &[]);
    drop(stream);
    sleep(Duration::from_secs(1)).await;
    send(&again, &["a"]);
    sleep(Duration::from_secs(1)).await;
    assert!(watcher.view().stale);
    send(&again, &["a", "b", "d"]);
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["a", "b", "d"]);
}

#[tokio::test(start_paused = true)]
async fn breaks_during_the_grace_do_not_start_it_anew() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b", "c"]);
    next(&mut watcher, SOON).await.unwrap();
    let mut last = stream;
    let mut read = Duration::ZERO;
    let mut tries = 0;
    while watcher.view().list.is_some_and(|list| !list.is_empty()) {
        let again = bench.script.stream();
        send(&again, &[]);
        drop(std::mem::replace(&mut last, again));
        while bench.script.asked().len() < tries + 2 {
            sleep(Duration::from_millis(10)).await; // the pause before it follows anew
        }
        tries += 1;
        sleep(GRACE / 8).await;
        read += GRACE / 8;
    }
    assert!(read <= GRACE * 2 && read >= GRACE.mul_f64(0.9), "{read:?} of reading");
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn losing_half_in_a_break_is_believed() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b"]);
    next(&mut watcher, SOON).await.unwrap();
    send(&bench.script.stream(), &["b"]);
    drop(stream);
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn bad_records_are_told_and_break_nothing() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    let record = BadRecord {
        key: "orders/x".into(),
        reason: "not JSON".into(),
    };
    let with_bad = Snapshot {
        bad: vec![record.clone()],
        ..snapshot(&["a"])
    };
    stream.send(Ok(with_bad)).unwrap();
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["a"]);
    assert_eq!(*bench.bad.lock().unwrap(), [record]);
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_comes_to_does_not_depend_on_its_order() {
    let twin = |version: &str| Arc::new(instance("a", version));
    let one = to_list(vec![twin("1"), twin("2")], &[]);
    let other = to_list(vec![twin("2"), twin("1")], &[]);
    assert_eq!(one, other);
    assert_eq!(one.len(), 1, "same id and endpoints: one instance");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_can_only_be_asked_is_asked_again_and_again() {
    let bench = bench();
    *bench.script.poll.lock().unwrap() = Some(Duration::from_secs(1));
    bench
        .script
        .reads
        .lock()
        .unwrap()
        .extend([Some(snapshot(&["a"])), Some(snapshot(&["a"])), Some(snapshot(&["b"]))]);
    let mut watcher = bench.reflectors.watch(named("orders"));
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["a"]);
    assert_eq!(next(&mut watcher, Duration::from_secs(3)).await.unwrap(), ["b"]);
    sleep(Duration::from_secs(2)).await; // from here the reads fail
    assert!(watcher.view().stale);
    bench
        .script
        .reads
        .lock()
        .unwrap()
        .extend(vec![Some(snapshot(&["b", "c"])); 20]);
    assert_eq!(next(&mut watcher, Duration::from_secs(11)).await.unwrap(), ["b", "c"]);
    assert!(!watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_an_answer_makes_the_list_stale() {
    let bench = bench();
    *bench.script.poll.lock().unwrap() = Some(Duration::from_secs(1));
    bench
        .script
        .reads
        .lock()
        .unwrap()
        .extend([Some(snapshot(&["a"])), None]);
    let mut watcher = bench.reflectors.watch(named("orders"));
    assert_eq!(next(&mut watcher, SOON).await.unwrap(), ["a"]);
    sleep(Duration::from_secs(13)).await;
    assert!(watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_the_middle_of_the_grace_does_not_use_it_up() {
    let bench = bench();
    let stream = bench.script.stream();
    let mut watcher = bench.reflectors.watch(named("orders"));
    send(&stream, &["a", "b", "c"]);
    next(&mut watcher, SOON).await.unwrap();
    let empty = bench.script.stream();
    send(&empty, &[]);
    drop(stream);
    sleep(Duration::from_secs(1)).await;
    drop(empty); // it lost its data, and now it is away as well
    sleep(GRACE * 4).await;
    let back = bench.script.stream();
    send(&back, &[]);
    assert_eq!(
        next(&mut watcher, GRACE.mul_f64(0.8)).await,
        None,
        "those who register again deserve the time to"
    );
    send(&back, &["a", "b", "c"]);
    sleep(SOON).await;
    assert!(!watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_told_where_what_it_has_stood_before() {
    let at = |id: &str, endpoint: &str| {
        let mut instance = instance(id, "1");
        instance.endpoints = [endpoint.into()].into();
        Arc::new(instance)
    };
    let before = to_list(vec![at("a", "1"), at("a", "2"), at("b", "1"), at("d", "1")], &[]);
    let after = to_list(vec![at("a", "2"), at("b", "2"), at("c", "1"), at("d", "1")], &before);
    let differs = |before: &List, after: &List| {
        let Difference { head, tail, places } = difference(before, after);
        (head, tail, places)
    };
    assert_eq!(differs(&before, &after), (0, 1, vec![1, -1, -1]));
    assert_eq!(differs(&after, &before), (0, 1, vec![-1, 0, -1]));
    assert_eq!(differs(&before, &before), (4, 0, vec![]));
    assert_eq!(differs(&before, &List::from([])), (0, 0, vec![]));
    assert_eq!(differs(&List::from([]), &before), (0, 0, vec![-1; 4]));
    let gone = List::from([before[0].clone(), before[1].clone(), before[3].clone()]);
    assert_eq!(differs(&before, &gone), (2, 1, vec![]));
    assert_eq!(differs(&gone, &before), (2, 1, vec![-1]));
    let ends = to_list(vec![at("a", "0"), at("a", "2"), at("b", "1"), at("e", "1")], &before);
    assert_eq!(differs(&before, &ends), (0, 0, vec![-1, 1, 2, -1]));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watches_that_break_together_are_two_lines() {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let kept = lines.clone();
    let bench = bench_with(Log::new(Level::Warn, move |_, line| kept.lock().unwrap().push(line)));
    for round in 0..2 {
        let streams: Vec<_> = (0..1000).map(|_| bench.script.stream()).collect();
        let mut watchers: Vec<_> = (0..1000)
            .map(|at| bench.reflectors.watch(named(&format!("{round}-{at}"))))
            .collect();
        for stream in &streams {
            send(stream, &["a"]);
        }
        for watcher in &mut watchers {
            assert!(next(watcher, SECOND).await.is_some());
        }
        drop(streams);
        tokio::time::sleep(SECOND * 2).await;
        drop(watchers);
        tokio::time::sleep(SECOND).await; // who still follows would take a stream of the next round
        let told = std::mem::take(&mut *lines.lock().unwrap());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains(": the watch broke: ") && told[1].starts_with("999 more watches broke, the last that of "),
            "{told:?}"
        );
    }
}

fn names(all: &[(&str, u32)]) -> Vec<Arc<ServiceName>> {
    let name = |(name, count): &(&str, u32)| ServiceName {
        name: (*name).into(),
        count: Some(*count),
    };
    all.iter().map(name).map(Arc::new).collect()
}

/// The next list of names, as `name:count`.
async fn next_names(watcher: &mut Watcher<ServiceName>, within: Duration) -> Option<String> {
    let list = timeout(within, watcher.next()).await.ok()?.unwrap()?;
    let each = list
        .iter()
        .map(|n| format!("{}:{}", n.name, n.count.map_or(-1, i64::from)));
    Some(each.collect::<Vec<_>>().join(" "))
}

#[tokio::test(start_paused = true)]
async fn the_names_are_followed_as_a_name_is() {
    let bench = bench();
    let stream = bench.script.names();
    let (mut one, mut two) = (bench.names.watch(Names), bench.names.watch(Names));
    stream.send(Ok(names(&[("b", 1), ("a", 2)]))).unwrap();
    for watcher in [&mut one, &mut two] {
        assert_eq!(next_names(watcher, SOON).await.unwrap(), "a:2 b:1");
    }
    assert_eq!(bench.script.asked().len(), 1, "two watchers, one stream");
    stream.send(Ok(names(&[("a", 2), ("b", 1)]))).unwrap();
    assert_eq!(next_names(&mut one, SOON).await, None, "the same again is no delivery");
    let before = one.view().list.unwrap();
    stream.send(Ok(names(&[("a", 2), ("b", 3), ("c", 1)]))).unwrap();
    assert_eq!(next_names(&mut one, SOON).await.unwrap(), "a:2 b:3 c:1");
    let after = one.view().list.unwrap();
    assert!(
        Arc::ptr_eq(&before[0], &after[0]),
        "a name that did not change keeps its allocation"
    );
    let changed = difference(&before, &after);
    assert_eq!((changed.head, changed.tail, changed.places), (1, 0, vec![-1, -1]));
    drop((one, two));
    sleep(SOON).await;
    assert!(stream.is_closed(), "the last watcher ends the stream");
}

#[tokio::test(start_paused = true)]
async fn names_are_stale_while_the_registry_is_away_and_half_of_them_are_missed_for_a_while() {
    let bench = bench();
    let stream = bench.script.names();
    let mut watcher = bench.names.watch(Names);
    stream.send(Ok(names(&[("a", 1), ("b", 1), ("c", 1)]))).unwrap();
    next_names(&mut watcher, SOON).await.unwrap();
    let again = bench.script.names();
    drop(stream);
    sleep(Duration::from_millis(1)).await;
    assert!(watcher.view().stale && bench.names.current(&Names).is_some_and(|list| list.len() == 3));
    again.send(Ok(names(&[("c", 1)]))).unwrap();
    assert_eq!(next_names(&mut watcher, GRACE.mul_f64(0.9)).await, None);
    assert_eq!(next_names(&mut watcher, GRACE).await.unwrap(), "c:1");
    assert!(!watcher.view().stale);
}

#[tokio::test(start_paused = true)]
async fn names_that_can_only_be_asked_for_are() {
    let bench = bench();
    let reads = [["b", "a"].as_slice(), &["a", "b"], &["a"]];
    let reads = reads.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    bench.script.name_reads.lock().unwrap().extend(reads);
    let mut watcher = bench.names.watch(Names);
    assert_eq!(
        next_names(&mut watcher, SOON).await.unwrap(),
        "a:-1 b:-1",
        "no count is invented"
    );
    assert_eq!(next_names(&mut watcher, SECOND * 13).await.unwrap(), "a:-1");
    sleep(SECOND * 7).await; // from here the reads fail
    assert!(watcher.view().stale);
}
