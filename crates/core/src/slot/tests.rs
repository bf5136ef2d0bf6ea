//! On a memory server. The clock of the machine is the real one, so windows are long where time is paused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::*;
use crate::ErrorKind;
use crate::backend::Backend;
use crate::backends::memory::{MemoryBackend, MemoryServer};
use crate::registry::{Hooks, Registry, RegistryOptions};
use crate::store::{Commit, Compare, Range, Read, Write};
use crate::tenure::{Before, Entered, Look, Since, Tenure};

const TTL: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(60);

struct Client {
    registry: Registry,
    store: Arc<dyn Store>,
    server: Arc<MemoryServer>,
}

fn client(namespace: &str) -> Client {
    let backend = Arc::new(MemoryBackend::new(namespace, TTL));
    let store = backend.store().unwrap();
    Client {
        registry: Registry::new(backend, RegistryOptions::default(), Hooks::default()),
        store,
        server: MemoryServer::of(namespace),
    }
}

fn ask(slots: u32, holder: &str) -> Ask {
    Ask {
        service: "orders".into(),
        slots,
        window: WINDOW,
        ttl: TTL,
        holder: holder.into(),
    }
}

impl Client {
    async fn take(&self, slots: u32, holder: &str) -> Result<Slot, Refusal> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let asked = self.registry.slots().unwrap();
        asked.take(ask(slots, holder), deadline, Box::new(|| ())).await
    }

    /// Up to when slot 1 may be stamped, with its revision.
    async fn until(&self) -> (i64, i64) {
        let key = Range::Key("/im-infra/allocators/orders/until/1".into());
        let read = self.store.read(&[key]).await.unwrap();
        let pair = &read.pairs[0];
        (record::Record::read(&pair.value).unwrap().until, pair.revision)
    }

    /// Writes that as somebody else.
    async fn overwrite(&self, until: i64) {
        let key: Arc<str> = "/im-infra/allocators/orders/until/1".into();
        let (_, revision) = self.until().await;
        let value = record::Record::new(until, "another").bytes();
        let compare = Compare {
            key: key.clone(),
            revision,
        };
        let put = Write::Put(key, value);
        self.store.commit(&[compare], &[put], TTL).await.unwrap();
    }
}

/// Until a window is so.
async fn seen(slot: &Slot, is_so: impl Fn(&Window) -> bool) -> Window {
    for _ in 0..1000 {
        let window = slot.window();
        if is_so(&window) {
            return window;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("it never was so: {:?}", slot.window());
}

#[tokio::test(start_paused = true)]
async fn who_comes_next_stamps_after_what_was_stamped_last_or_after_the_window() {
    let client = client("slot-next");
    let slot = client.take(1, "one").await.unwrap();
    let window = slot.window();
    assert_eq!((window.generation, window.n, window.since), (1, 1, 0));
    slot.release(1, window.until - 50_000).await.unwrap();
    let slot = client.take(1, "two").await.unwrap();
    assert_eq!(slot.window().since, window.until - 50_000, "it was given back");
    let window = slot.window();
    assert!(matches!(client.take(1, "three").await, Err(Refusal::Full(by)) if by == ["1: two"]));
    drop(slot);
    tokio::time::sleep(TTL).await; // its lease is ended beside
    let slot = client.take(1, "three").await.unwrap();
    assert_eq!(slot.window().since, window.until, "it was not");
    assert!(slot.window().until > window.until);
}

#[tokio::test(start_paused = true)]
async fn a_window_is_extended_each_third_and_after_an_outage() {
    let client = client("slot-extended");
    let slot = client.take(4, "one").await.unwrap();
    let first = slot.window();
    tokio::time::sleep(WINDOW / 2).await;
    let second = slot.window();
    assert!(second.until >= first.until && second.generation == 1);
    client.server.set_away(true);
    tokio::time::sleep(WINDOW).await;
    assert!(slot.window().hindrance.is_some());
    client.server.set_away(false);
    let window = seen(&slot, |window| window.hindrance.is_none()).await;
    assert_eq!(
        (window.n, window.since),
        (first.n, first.since),
        "nobody had it meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn one_of_two_clones_takes_another_slot() {
    let client = client("slot-clones");
    let slot = client.take(1, "one").await.unwrap();
    let before = slot.window();
    client.overwrite(before.until + 20_000).await; // what its clone has written
    tokio::time::sleep(WINDOW).await;
    let window = seen(&slot, |window| window.generation == 2).await;
    assert_eq!(
        window.since,
        before.until + 20_000,
        "it is the one slot, and comes after the clone"
    );
    assert!(window.until > window.since);
}

#[tokio::test(start_paused = true)]
async fn holders_of_an_emptied_store_have_their_own_slots_again() {
    let client = client("slot-emptied");
    let slots = [
        client.take(3, "one").await.unwrap(),
        client.take(3, "two").await.unwrap(),
        client.take(3, "three").await.unwrap(),
    ];
    let before = slots.each_ref().map(Slot::window);
    let keys = ["ids", "until"]
        .into_iter()
        .flat_map(|of| (1..=3).map(move |n| format!("{of}/{n}")));
    let deletes: Vec<Write> = keys
        .map(|key| Write::Delete(format!("/im-infra/allocators/orders/{key}").into()))
        .collect();
    client.store.commit(&[], &deletes, TTL).await.unwrap();
    for (slot, before) in slots.iter().zip(&before) {
        let window = seen(slot, |window| window.generation == 2).await;
        assert_eq!((window.n, window.since >= before.until), (before.n, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_right_is_not_judged_by_the_windows_of_the_dead() {
    let client = client("slot-dead");
    let slot = client.take(2, "one").await.unwrap();
    let own = slot.window().n;
    let other = 3 - own;
    let place = |of: &str, n: u32| -> Arc<str> { format!("/im-infra/allocators/orders/{of}/{n}").into() };
    let long_ago = record::Record::new(slot.window().until - 600_000, "dead").bytes();
    let writes = [
        Write::Put(place("ids", other), b"1".as_slice().into()),
        Write::Put(place("until", other), long_ago),
        Write::Delete(place("ids", own)),
        Write::Delete(place("until", own)),
    ];
    client.store.commit(&[], &writes, TTL).await.unwrap();
    let window = seen(&slot, |window| window.generation == 2).await;
    assert_eq!((window.n, window.is_clock_off), (own, false));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_another_has_taken_meanwhile_is_not_written_at_the_release() {
    let client = client("slot-another");
    let slot = client.take(1, "one").await.unwrap();
    let until = slot.window().until + 90_000;
    client.overwrite(until).await;
    slot.release(1, 5).await.unwrap();
    assert_eq!(client.until().await.0, until);
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_one_by_a_clock_that_is_ahead_of_all_who_live() {
    let client = client("slot-clock");
    let _slot = client.take(1, "one").await.unwrap();
    client.overwrite(1000).await; // its clock is right, and so ours is not
    let refusal = client.take(2, "two").await.err();
    assert!(
        matches!(refusal, Some(Refusal::Clock(by)) if by > 60_000),
        "{refusal:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_wiped_takes_nothing_back() {
    let client = client("slot-wiped");
    let slot = client.take(1, "one").await.unwrap();
    let before = slot.window();
    client.server.wipe();
    let window = seen(&slot, |window| window.generation == 2).await;
    assert_eq!(window.since, before.until, "somebody may have had it meanwhile");
}

/// A store whose next answers to writes are lost, though they are made.
#[derive(Clone)]
struct Lossy {
    store: Arc<dyn Store>,
    lost: Arc<AtomicUsize>,
}

impl Lossy {
    fn lose(&self, done: Result<Commit>) -> Result<Commit> {
        let lost = self
            .lost
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match lost {
            Ok(_) => Err(Error::new(ErrorKind::Timeout, "its answer was lost").with_unknown_outcome()),
            Err(_) => done,
        }
    }
}

#[async_trait]
impl Store for Lossy {
    async fn read(&self, ranges: &[Range]) -> Result<Read> {
        self.store.read(ranges).await
    }

    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
        self.store.follow(ranges)
    }

    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit> {
        self.lose(self.store.commit(compares, writes, within).await)
    }

    fn hold(&self, ttl: Duration) -> Result<Arc<dyn Tenure>> {
        let (tenure, lossy) = (self.store.hold(ttl)?, self.clone());
        Ok(Arc::new(LossyTenure { tenure, lossy }))
    }
}

struct LossyTenure {
    tenure: Arc<dyn Tenure>,
    lossy: Lossy,
}

#[async_trait]
impl Tenure for LossyTenure {
    fn lease(&self) -> i64 {
        self.tenure.lease()
    }

    async fn begin(&self, within: Duration) -> Result<()> {
        self.tenure.begin(within).await
    }

    fn deadline(&self) -> Option<Instant> {
        self.tenure.deadline()
    }

    async fn lost(&self) -> String {
        self.tenure.lost().await
    }

    async fn enter(&self, key: &str, value: &[u8], before: &Before, within: Duration) -> Result<Entered> {
        self.tenure.enter(key, value, before, within).await
    }

    async fn look(&self, key: &str, since: Since, before: &Before, within: Duration) -> Result<Look> {
        self.tenure.look(key, since, before, within).await
    }

    async fn changed(&self, key: &str, since: Since, before: &Before, seen: &Look) -> Result<()> {
        self.tenure.changed(key, since, before, seen).await
    }

    async fn claim(
        &self,
        key: &str,
        value: &[u8],
        compares: &[Compare],
        writes: &[Write],
        within: Duration,
    ) -> Result<Commit> {
        let done = self.tenure.claim(key, value, compares, writes, within).await;
        self.lossy.lose(done)
    }

    fn stop(&self) {
        self.tenure.stop();
    }

    async fn end(&self, within: Duration) -> Result<()> {
        self.tenure.end(within).await
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_lose_no_slot() {
    let client = client("slot-answers");
    let lost = Arc::new(AtomicUsize::new(1));
    let mut slots = client.registry.slots().unwrap();
    slots.store = Arc::new(Lossy {
        store: Arc::clone(&client.store),
        lost: Arc::clone(&lost),
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let slot = slots.take(ask(1, "one"), deadline, Box::new(|| ())).await.unwrap();
    let window = slot.window();
    assert_eq!(
        (window.generation, window.n, window.since),
        (1, 1, 0),
        "it was taken once"
    );
    assert_eq!(client.until().await.0, window.until);
    lost.store(2, Ordering::SeqCst);
    tokio::time::sleep(WINDOW).await;
    let window = seen(&slot, |window| window.hindrance.is_none()).await;
    assert_eq!((window.generation, window.n), (1, 1), "and is kept");
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    lost.store(1, Ordering::SeqCst);
    slot.release(1, window.until - 1000).await.unwrap();
    assert_eq!(client.until().await.0, window.until - 1000);
}
