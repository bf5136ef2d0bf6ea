//! Watches that deliver everything, packed, to a consumer that may be slow: what the etcd client of TypeScript is given.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Permission, PermissionType, PutOptions, Txn, TxnOp};
use rollcall_core::ErrorKind;
use rollcall_core::etcd::{
    EtcdClient, EtcdOptions, Limits, OnDisconnect, WatchEnd, WatchFailure, WatchQueue, WatchRequest, pack,
};
use rollcall_core::log::Log;
use tokio::sync::Notify;

use crate::support::{Proxy, Server, binary, etcd, options, within};

mod troubles;

/// A key-value as it was packed.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kv {
    key: String,
    value: Vec<u8>,
    mod_revision: i64,
    create_revision: i64,
    version: i64,
    lease: i64,
}

#[derive(Debug)]
enum Told {
    Connecting,
    Created {
        again: bool,
        id: i64,
        next: i64,
        revision: i64,
    },
    Settled,
    Events {
        fragment: bool,
        next: i64,
        events: Vec<(bool, Kv, Option<Kv>)>,
    },
    Disconnected(ErrorKind),
    End(WatchEnd),
}

struct Queue {
    inner: WatchQueue,
    woken: Arc<Notify>,
    told: std::collections::VecDeque<Told>,
}

impl Queue {
    fn open(client: &EtcdClient, request: WatchRequest, limits: Limits) -> Self {
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        Self {
            inner: WatchQueue::open(&client.watches, request, limits, move || wake.notify_one()),
            woken,
            told: std::collections::VecDeque::new(),
        }
    }

    fn watch(client: &EtcdClient, request: WatchRequest) -> Self {
        Self::open(client, request, Limits::default())
    }

    async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            if let Some((bytes, _)) = self.inner.take() {
                self.unpack(&bytes);
            } else {
                within(20, "something is told", self.woken.notified()).await;
            }
        }
    }

    /// The next events; what is told of the connection is passed over, what ends the watch is not.
    async fn events(&mut self) -> Vec<(bool, Kv, Option<Kv>)> {
        loop {
            match self.next().await {
                Told::Events { events, .. } if !events.is_empty() => return events,
                Told::End(why) => panic!("the watch ended: {why:?}"),
                _ => {}
            }
        }
    }

    async fn end(&mut self) -> WatchEnd {
        loop {
            if let Told::End(why) = self.next().await {
                return why;
            }
        }
    }

    async fn created(&mut self) -> (i64, i64) {
        loop {
            match self.next().await {
                Told::Created { id, next, .. } => return (id, next),
                Told::End(why) => panic!("the watch ended: {why:?}"),
                _ => {}
            }
        }
    }

    fn unpack(&mut self, bytes: &[u8]) {
        let count = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let mut reader = Reader {
            numbers: bytes[4..4 + count * 4]
                .chunks(4)
                .map(|four| i32::from_le_bytes(four.try_into().unwrap()))
                .collect(),
            at: 0,
            bytes: &bytes[4 + count * 4..],
        };
        while reader.at < count {
            let told = match reader.number() {
                pack::CONNECTING => Told::Connecting,
                pack::SETTLED => Told::Settled,
                pack::CREATED => {
                    let again = reader.number() == 1;
                    let (next, id) = (reader.long(), reader.long());
                    let header = [reader.long(), reader.long(), reader.long(), reader.long()];
                    assert!(header.iter().all(|part| *part != 0), "{header:?}");
                    Told::Created {
                        again,
                        id,
                        next,
                        revision: header[2],
                    }
                }
                pack::RESPONSE => {
                    let fragment = reader.number() == 1;
                    let count = reader.number();
                    let (next, _id) = (reader.long(), reader.long());
                    for _ in 0..4 {
                        assert_ne!(reader.long(), 0);
                    }
                    let events = (0..count).map(|_| reader.event()).collect();
                    Told::Events { fragment, next, events }
                }
                pack::DISCONNECTED => match self.inner.failure() {
                    Some(WatchFailure::Disconnected(fault)) => Told::Disconnected(fault.error.kind()),
                    other => panic!("{other:?}"),
                },
                pack::END => match self.inner.failure() {
                    Some(WatchFailure::End(why)) => Told::End(why),
                    other => panic!("{other:?}"),
                },
                other => panic!("a record of kind {other}"),
            };
            self.told.push_back(told);
        }
        assert!(reader.bytes.is_empty());
    }
}

struct Reader<'a> {
    numbers: Vec<i32>,
    at: usize,
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self) -> i32 {
        self.at += 1;
        self.numbers[self.at - 1]
    }

    fn long(&mut self) -> i64 {
        let lower = i64::from(self.number().cast_unsigned());
        (i64::from(self.number()) << 32) | lower
    }

    fn kv(&mut self) -> Kv {
        let (mod_revision, create_revision, version, lease) = (self.long(), self.long(), self.long(), self.long());
        let (key, value) = (
            self.number().unsigned_abs() as usize,
            self.number().unsigned_abs() as usize,
        );
        let (both, rest) = self.bytes.split_at(key + value);
        self.bytes = rest;
        Kv {
            key: String::from_utf8(both[..key].to_vec()).unwrap(),
            value: both[key..].to_vec(),
            mod_revision,
            create_revision,
            version,
            lease,
        }
    }

    fn event(&mut self) -> (bool, Kv, Option<Kv>) {
        let flags = self.number();
        let kv = self.kv();
        let previous = (flags & pack::PREVIOUS != 0).then(|| self.kv());
        (flags & pack::DELETE != 0, kv, previous)
    }
}

fn prefix(prefix: &str, from_revision: i64) -> WatchRequest {
    let mut range_end = prefix.as_bytes().to_vec();
    *range_end.last_mut().unwrap() += 1;
    WatchRequest {
        key: prefix.as_bytes().to_vec(),
        range_end,
        from_revision,
        on_disconnect: OnDisconnect::Resume,
        may_be_ahead: true,
        ..WatchRequest::default()
    }
}

fn client(options: EtcdOptions) -> EtcdClient {
    EtcdClient::new(options, Log::default()).unwrap()
}

#[tokio::test]
async fn everything_that_etcd_tells_arrives() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let lease = raw
        .lease_grant(60, Some(etcd_client::LeaseGrantOptions::new().with_id((1 << 60) + 7)))
        .await
        .unwrap()
        .id();
    let request = WatchRequest {
        prev_kv: true,
        settle: true,
        ..prefix("p/", 0)
    };
    let mut queue = Queue::watch(&client, request);
    assert!(matches!(queue.next().await, Told::Connecting));
    let Told::Created {
        again: false,
        next,
        revision,
        ..
    } = queue.next().await
    else {
        panic!("not created")
    };
    assert_eq!(next, revision + 1);
    assert!(matches!(queue.next().await, Told::Settled));
    raw.put("p/a", "1", Some(PutOptions::new().with_lease(lease)))
        .await
        .unwrap();
    raw.put("p/a", "", None).await.unwrap();
    raw.delete("p/a", None).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(queue.events().await);
    }
    let first = Kv {
        key: "p/a".into(),
        value: b"1".to_vec(),
        mod_revision: next,
        create_revision: next,
        version: 1,
        lease,
    };
    let second = Kv {
        value: Vec::new(),
        mod_revision: next + 1,
        version: 2,
        lease: 0,
        ..first.clone()
    };
    let gone = Kv {
        key: "p/a".into(),
        mod_revision: next + 2,
        ..Kv::default()
    };
    assert_eq!(
        events,
        [
            (false, first.clone(), None),
            (false, second.clone(), Some(first)),
            (true, gone, Some(second))
        ]
    );
    queue.inner.stop();
    queue.inner.stop();
}

#[tokio::test]
async fn filters_are_the_servers() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let mut puts = Queue::watch(
        &client,
        WatchRequest {
            no_delete: true,
            ..prefix("p/", 0)
        },
    );
    let mut deletes = Queue::watch(
        &client,
        WatchRequest {
            no_put: true,
            ..prefix("p/", 0)
        },
    );
    puts.created().await;
    deletes.created().await;
    for _ in 0..2 {
        raw.put("p/a", "1", None).await.unwrap();
        raw.delete("p/a", None).await.unwrap();
    }
    for _ in 0..2 {
        assert!(puts.events().await.iter().all(|(delete, ..)| !delete));
        assert!(deletes.events().await.iter().all(|(delete, ..)| *delete));
    }
}

#[tokio::test]
async fn a_cut_in_the_middle_of_catching_up_loses_nothing_and_repeats_nothing() {
    let server = etcd!();
    let mut raw = server.raw().await;
    for i in 0..5001 {
        raw.put(format!("p/{i:05}"), "x".repeat(100), None).await.unwrap();
    }
    let proxy = Proxy::to(server.address()).await;
    let client = client(options(&[&proxy.address]));
    // A batch of a thousand is about 160 kB: the first comes whole, then the connection goes.
    proxy.cut_after(200_000);
    let mut queue = Queue::watch(&client, prefix("p/", 2));
    let (mut revisions, mut drops) = (Vec::new(), 0);
    while revisions.len() < 5001 {
        match queue.next().await {
            Told::Events { events, next, .. } => {
                revisions.extend(events.iter().map(|(_, kv, _)| kv.mod_revision));
                assert_eq!(next, revisions.last().unwrap() + 1);
            }
            Told::Disconnected(_) => {
                assert!(
                    (1000..4000).contains(&revisions.len()),
                    "cut in the middle: {}",
                    revisions.len()
                );
                drops += 1;
            }
            Told::End(why) => panic!("{why:?}"),
            _ => {}
        }
    }
    assert_eq!(drops, 1);
    assert_eq!(revisions, (2..5003).collect::<Vec<i64>>());
}

#[tokio::test]
async fn fragments_are_handed_over_and_a_cut_between_them_repeats_none() {
    let server = etcd!();
    let mut raw = server.raw().await;
    // With what was there before a revision is 2.6 MB, more than a message of the server may have.
    let value = "x".repeat(13_000);
    for _ in 0..2 {
        let puts: Vec<TxnOp> = (0..100)
            .map(|i| TxnOp::put(format!("p/{i:02}"), value.clone(), None))
            .collect();
        raw.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    for fragment in [true, false] {
        let proxy = Proxy::to(server.address()).await;
        let client = client(options(&[&proxy.address]));
        proxy.cut_after(2_300_000);
        let mut queue = Queue::watch(
            &client,
            WatchRequest {
                prev_kv: true,
                fragment,
                ..prefix("p/", 3)
            },
        );
        let (mut keys, mut drops, mut parts) = (Vec::new(), 0, 0);
        while keys.len() < 100 {
            match queue.next().await {
                Told::Events {
                    events,
                    fragment: more,
                    next,
                } => {
                    parts += 1;
                    keys.extend(events.iter().map(|(_, kv, _)| kv.key.clone()));
                    assert_eq!(next, if more { 3 } else { 4 });
                    assert_eq!(more, keys.len() < 100);
                }
                Told::Disconnected(_) => {
                    assert_eq!(
                        !keys.is_empty(),
                        fragment,
                        "whole revisions only, unless fragments are wanted"
                    );
                    drops += 1;
                }
                Told::End(why) => panic!("{why:?}"),
                _ => {}
            }
        }
        assert_eq!(keys, (0..100).map(|i| format!("p/{i:02}")).collect::<Vec<_>>());
        assert_eq!(drops, 1);
        assert_eq!(parts > 1, fragment, "{parts} parts");
    }
}

#[tokio::test]
async fn a_slow_consumer_holds_up_nobody_and_misses_nothing() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let mut slow = Queue::open(
        &client,
        prefix("p/", 0),
        Limits {
            events: 50,
            bytes: 1 << 20,
        },
    );
    let mut small = Queue::open(
        &client,
        prefix("p/", 0),
        Limits {
            events: 1 << 20,
            bytes: 10_000,
        },
    );
    let mut quick = Queue::watch(&client, prefix("p/", 0));
    let (_, first) = slow.created().await;
    small.created().await;
    quick.created().await;
    let mut seen = 0;
    for i in 0..2_000 {
        raw.put(format!("p/{}", i % 7), "x".repeat(50), None).await.unwrap();
        seen += quick.events().await.len();
    }
    assert_eq!(seen, 2_000);
    for queue in [&mut slow, &mut small] {
        let mut waited = 0;
        while let Some((bytes, more)) = queue.inner.take() {
            waited += bytes.len();
            queue.unpack(&bytes);
            if !more {
                break;
            }
        }
        assert!(waited < 60_000, "{waited} bytes waited");
        let mut revisions = Vec::new();
        while revisions.len() < 2_000 {
            match queue.next().await {
                Told::Events { events, .. } => revisions.extend(events.iter().map(|(_, kv, _)| kv.mod_revision)),
                Told::Created { again, .. } => assert!(again, "nothing was disconnected"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(revisions, (first..first + 2_000).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn a_full_queue_whose_stream_breaks_resumes_when_there_is_room() {
    let mut server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let mut slow = Queue::open(
        &client,
        prefix("p/", 0),
        Limits {
            events: 50,
            bytes: 1 << 20,
        },
    );
    let mut quick = Queue::watch(&client, prefix("p/", 0));
    let (_, first) = slow.created().await;
    quick.created().await;
    for i in 0..300 {
        raw.put("p/k", i.to_string(), None).await.unwrap();
    }
    let mut seen = 0;
    while seen < 300 {
        seen += quick.events().await.len();
    }
    server.kill();
    server.restart().await;
    server.raw().await.put("p/k", "last", None).await.unwrap();
    assert_eq!(quick.events().await.len(), 1);
    let mut revisions = Vec::new();
    while revisions.len() < 301 {
        revisions.extend(slow.events().await.iter().map(|(_, kv, _)| kv.mod_revision));
    }
    assert_eq!(revisions, (first..first + 301).collect::<Vec<i64>>());
}
