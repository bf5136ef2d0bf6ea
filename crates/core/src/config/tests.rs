//! Configuration on the memory server, under paused time, and how changes are gathered.

use tokio::sync::mpsc;
use tokio::time::{advance, sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::backends::memory::{MemoryBackend, MemoryServer};
use crate::registry::{Hooks, Registry, RegistryOptions};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn client(namespace: &str) -> (Config, Arc<MemoryServer>, Registry) {
    let backend = Arc::new(MemoryBackend::new(namespace, 15 * SECOND));
    let registry = Registry::new(backend, RegistryOptions::default(), Hooks::default());
    (registry.config().unwrap(), MemoryServer::of(namespace), registry)
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.as_bytes().into())
}

fn under(prefix: &str) -> Vec<Range> {
    vec![Range::Under(prefix.into())]
}

async fn set(config: &Config, writes: &[Write]) -> i64 {
    match config.commit(&[], writes, SECOND).await.unwrap() {
        Commit::Done { moment, .. } => moment.revision,
        Commit::Conflict { .. } => panic!("a conflict of nothing"),
    }
}

fn shown(list: &[Arc<Pair>]) -> Vec<String> {
    let value = |pair: &Arc<Pair>| String::from_utf8_lossy(&pair.value).into_owned();
    list.iter()
        .map(|pair| format!("{} {}", pair.key, value(pair)))
        .collect()
}

async fn next(watcher: &mut Watcher<Pair>) -> Vec<String> {
    shown(&watcher.next().await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_is_written_together_is_read_together() {
    let (config, ..) = client("config-together");
    assert_eq!(set(&config, &[put("/c/a", "1"), put("/c/b", "1")]).await, 1);
    let mut watcher = config.follow(under("/c/"), SETTLE).unwrap();
    assert_eq!(next(&mut watcher).await, ["/c/a 1", "/c/b 1"]);
    assert_eq!(
        set(
            &config,
            &[put("/c/a", "2"), Write::Delete("/c/b".into()), put("/d", "x")]
        )
        .await,
        2
    );
    assert_eq!(next(&mut watcher).await, ["/c/a 2"]);
    assert_eq!(watcher.view().moment.unwrap().revision, 2);
    let overlapping = [
        Range::Key("/d".into()),
        Range::Under("/c/".into()),
        Range::Key("/c/a".into()),
    ];
    let read = config.read(&overlapping, SECOND);
    assert_eq!(shown(&read.await.unwrap().pairs), ["/c/a 2", "/d x"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_comparison_fails_changes_nothing() {
    let (config, ..) = client("config-compare");
    let only_new = Compare {
        key: "/c/a".into(),
        revision: 0,
    };
    let made = config
        .commit(std::slice::from_ref(&only_new), &[put("/c/a", "1")], SECOND)
        .await;
    assert!(matches!(made.unwrap(), Commit::Done { moment, deleted: 0 } if moment.revision == 1));
    let refused = config
        .commit(&[only_new], &[put("/c/a", "2"), put("/c/b", "2")], SECOND)
        .await;
    let Commit::Conflict { current } = refused.unwrap() else {
        panic!("it was made")
    };
    let current: Vec<_> = current.into_iter().flatten().collect();
    assert_eq!(shown(&current), ["/c/a 1"]);
    assert_eq!(config.read(&under("/c/"), SECOND).await.unwrap().pairs.len(), 1);
    let deleted = config
        .commit(
            &[],
            &[Write::Delete("/c/a".into()), Write::Delete("/c/x".into())],
            SECOND,
        )
        .await;
    assert!(matches!(deleted.unwrap(), Commit::Done { deleted: 1, .. }));
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_for_the_same_share_one_stream() {
    let (config, ..) = client("config-shared");
    let two = |a: &str, b: &str| vec![Range::Under(a.into()), Range::Under(b.into())];
    let mut first = config.follow(two("/a/", "/b/"), SETTLE).unwrap();
    next(&mut first).await;
    let second = config.follow(two("/b/", "/a/"), SETTLE).unwrap();
    assert!(second.view().list.is_some(), "known at once");
}

#[tokio::test(start_paused = true)]
async fn an_outage_makes_it_stale_and_what_was_missed_is_one_list() {
    let (config, server, registry) = client("config-outage");
    let (other, ..) = client("config-outage");
    set(&config, &[put("/c/a", "1"), put("/c/b", "1"), put("/c/c", "1")]).await;
    let mut watcher = config.follow(under("/c/"), SETTLE).unwrap();
    next(&mut watcher).await;
    let mut views = watcher.views();
    server.set_away(true);
    views.wait_for(|view| view.stale).await.unwrap();
    assert!(
        config
            .commit(&[], &[put("/c/a", "x")], SECOND)
            .await
            .unwrap_err()
            .is_retryable()
    );
    server.set_away(false);
    // More than half is gone, by intent: nothing of it is held back.
    set(&other, &[Write::Delete("/c/b".into()), Write::Delete("/c/c".into())]).await;
    set(&other, &[put("/c/a", "2")]).await;
    views.wait_for(|view| !view.stale).await.unwrap();
    assert_eq!(next(&mut watcher).await, ["/c/a 2"]);
    assert_eq!(watcher.view().resets, 0);
    registry.close(Duration::ZERO, SECOND).await.unwrap();
    assert!(watcher.next().await.unwrap().is_none());
    assert_eq!(
        config.read(&under("/c/"), SECOND).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_is_told() {
    let (config, server, _registry) = client("config-wiped");
    set(&config, &[put("/c/a", "1")]).await;
    let mut watcher = config.follow(under("/c/"), SETTLE).unwrap();
    next(&mut watcher).await;
    server.wipe();
    assert!(next(&mut watcher).await.is_empty());
    assert_eq!(watcher.view().resets, 1);
    assert_eq!(set(&config, &[put("/c/a", "2")]).await, 1, "it counts anew");
    assert_eq!(next(&mut watcher).await, ["/c/a 2"]);
    assert_eq!(watcher.view().resets, 1);
}

#[tokio::test]
async fn what_a_store_cannot_hold_is_refused() {
    let (config, ..) = client("config-refused");
    let huge = "x".repeat(VALUE_MOST + 1);
    for (write, begins) in [(put("/a/../b", "1"), "key: "), (put("/a", &huge), "value: ")] {
        let error = config.commit(&[], &[write], SECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(begins), "{error}");
    }
    let error = config.follow(under("/c"), SETTLE).err().unwrap();
    assert!(error.message().starts_with("prefix: "), "{error}");
}

/// What comes out of a stream, by when.
async fn gathered(pauses: &[Duration]) -> Vec<(u64, usize)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut items = settled(UnboundedReceiverStream::new(receiver).boxed(), SETTLE);
    let start = Instant::now();
    let pauses = pauses.to_vec();
    tokio::spawn(async move {
        for (n, pause) in pauses.into_iter().enumerate() {
            sleep(pause).await;
            let _ = sender.send(Ok(n));
        }
    });
    let mut out = Vec::new();
    while let Some(Ok(n)) = items.next().await {
        out.push((u64::try_from(start.elapsed().as_millis()).unwrap(), n));
    }
    out
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_one_and_the_first_comes_at_once() {
    assert_eq!(gathered(&[MS]).await, [(1, 0)]);
    assert_eq!(
        gathered(&[MS, 10 * MS, 40 * MS, 49 * MS, 51 * MS]).await[..2],
        [(1, 0), (150, 3)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_without_end_is_told_every_second() {
    let pauses = [&[Duration::ZERO][..], &[10 * MS; 250]].concat();
    let out = gathered(&pauses).await;
    let times: Vec<u64> = out.iter().map(|(at, _)| *at).collect();
    assert!(times.len() == 4 && times[1] <= 1020 && times[2] <= 2040, "{out:?}");
    assert_eq!(out.last().unwrap().1, 250);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_after_what_came_before_it() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut items = settled(UnboundedReceiverStream::new(receiver).boxed(), SETTLE);
    for item in [Ok(1), Ok(2), Ok(3), Err(Error::new(ErrorKind::Unavailable, "gone"))] {
        sender.send(item).unwrap();
    }
    assert_eq!(items.next().await.unwrap().unwrap(), 1);
    assert_eq!(items.next().await.unwrap().unwrap(), 3);
    assert!(items.next().await.unwrap().is_err());
    assert!(items.next().await.is_none());
    advance(MS).await;
}
