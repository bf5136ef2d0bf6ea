//! On a memory server. The clock of the machine is the real one, so windows are long where time is paused.

use std::time::Duration;

use super::*;
use crate::backend::Backend;
use crate::backends::memory::{MemoryBackend, MemoryServer};
use crate::registry::{Hooks, Registry, RegistryOptions};
use crate::store::{Compare, Range, Write};

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
