//! A watch between a server by script and a sink that takes notes.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::etcd::messages::KeyValue;

/// What was handed over: a revision and which of its events, by delivery.
type Delivered = Vec<Vec<(i64, u8)>>;

#[derive(Clone, Default)]
struct Notes {
    delivered: Arc<Mutex<Delivered>>,
    is_full: Arc<Mutex<bool>>,
}

impl WatchSink for Notes {
    fn deliver(&mut self, response: Response) -> Delivery {
        let events = response.events.iter();
        let events: Vec<_> = events.map(|event| (event.kv.mod_revision, event.kv.key[0])).collect();
        if !events.is_empty() {
            self.delivered.lock().unwrap().push(events);
        }
        if std::mem::take(&mut *self.is_full.lock().unwrap()) {
            Delivery::Full
        } else {
            Delivery::Taken
        }
    }

    fn end(self: Box<Self>, _: WatchEnd) {}
}

fn header(revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: 7,
        revision,
        ..ResponseHeader::default()
    }
}

fn event(revision: i64, which: u8) -> Event {
    Event {
        kv: KeyValue {
            key: vec![which].into(),
            mod_revision: revision,
            ..KeyValue::default()
        },
        ..Event::default()
    }
}

fn watch(request: WatchRequest) -> (Watch, Notes) {
    let notes = Notes::default();
    (Watch::new(request, Box::new(notes.clone())), notes)
}

/// A server and the watch on it.
struct Bench {
    watch: Watch,
    notes: Notes,
    /// How many events each revision from 1 on has in the range of the watch.
    history: Vec<u8>,
    head: i64,
    created_at: i64,
    /// The first revision that was not made ready to be sent.
    next: i64,
    /// What is ready to be sent, and whether its answer goes on behind it.
    ready: Vec<(Vec<Event>, bool)>,
    is_within: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many revisions are written.
    Write(i64),
    /// An answer with the events of so many revisions is made, in parts of so many events, and its first part is sent; or
    /// the next part of the one that is under way.
    Send(i64, usize),
    /// The stream breaks, and the watch is created again from so many revisions before what was asked for.
    Break(i64),
    /// The server says by itself how far the watch is.
    Progress,
    /// The server says how far the stream is. It does not while the watch is behind.
    Whole,
    /// The answer to a question that was taken before the watch was created comes late.
    Stale,
    /// The sink is full with the next delivery.
    Fill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (1..4_i64).prop_map(Step::Write),
        6 => (1..4_i64, 1..5_usize).prop_map(|(revisions, part)| Step::Send(revisions, part)),
        1 => (0..3_i64).prop_map(Step::Break),
        1 => Just(Step::Progress),
        2 => Just(Step::Whole),
        1 => Just(Step::Stale),
        1 => Just(Step::Fill),
    ];
    prop::collection::vec(step, 0..60)
}

impl Bench {
    fn new(history: Vec<u8>, fragment: bool) -> Self {
        let request = WatchRequest {
            from_revision: 1,
            fragment,
            ..WatchRequest::default()
        };
        let (watch, notes) = watch(request);
        let mut bench = Self {
            watch,
            notes,
            history,
            head: 0,
            created_at: 0,
            next: 1,
            ready: Vec::new(),
            is_within: false,
        };
        bench.create(0);
        bench
    }

    fn create(&mut self, earlier: i64) {
        self.watch.restart();
        self.next = (self.watch.next_revision - earlier).max(1);
        self.ready.clear();
        self.is_within = false;
        self.created_at = self.head;
        self.watch.created(header(self.head), 1);
    }

    fn count(&self, revision: i64) -> u8 {
        self.history[usize::try_from(revision).unwrap() - 1]
    }

    fn events(&self, from: i64, to: i64) -> Vec<(i64, u8)> {
        (from..=to)
            .flat_map(|revision| (0..self.count(revision)).map(move |which| (revision, which)))
            .collect()
    }

    fn send(&mut self, revisions: i64, part: usize) {
        if self.ready.is_empty() {
            let last = (self.next + revisions - 1).min(self.head);
            let events = self.events(self.next, last);
            self.next = self.next.max(last + 1);
            let parts: Vec<_> = events.chunks(part).collect();
            let parts = parts.iter().enumerate().map(|(i, part)| {
                let events = part.iter().map(|(revision, which)| event(*revision, *which)).collect();
                (events, i + 1 < parts.len())
            });
            self.ready = parts.collect();
        }
        if !self.ready.is_empty() {
            let (events, more) = self.ready.remove(0);
            self.is_within = more;
            if self.watch.take(header(self.head), 1, events, more, usize::MAX) == Delivery::Full {
                self.resume();
            }
        }
    }

    /// There is room again.
    fn resume(&mut self) {
        assert!(self.watch.is_paused);
        let before = self.watch.next_revision;
        self.watch.progressed(&header(self.head + 100));
        assert_eq!(self.watch.next_revision, before, "what comes meanwhile is for others");
        self.watch.is_paused = false;
        self.create(0);
    }

    fn is_behind(&self) -> bool {
        self.next <= self.head || !self.ready.is_empty()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(revisions) => {
                self.head = (self.head + revisions).min(i64::try_from(self.history.len()).unwrap());
            }
            Step::Send(revisions, part) => self.send(revisions, part),
            Step::Break(earlier) => self.create(earlier),
            Step::Progress if !self.is_behind() => {
                if self.watch.progress(header(self.head), 1) == Delivery::Full {
                    self.resume();
                }
                assert!(self.watch.next_revision > self.head);
            }
            // In the middle of a revision it is not believed whatever it says.
            Step::Whole if !self.is_behind() || self.is_within => {
                self.watch.progressed(&header(self.head));
                let is_told = self.is_within || self.head == self.created_at;
                assert!(is_told || self.watch.next_revision > self.head);
            }
            Step::Stale => self.watch.progressed(&header(self.created_at)),
            Step::Fill => *self.notes.is_full.lock().unwrap() = true,
            Step::Progress | Step::Whole => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_breaks_nothing_is_lost_or_comes_twice(
        history in prop::collection::vec(0..5_u8, 1..20),
        fragment in any::<bool>(),
        steps in steps(),
    ) {
        let mut bench = Bench::new(history, fragment);
        for step in &steps {
            let before = bench.watch.next_revision;
            bench.step(step);
            prop_assert!(bench.watch.next_revision >= before, "it never goes back");
        }
        let last = i64::try_from(bench.history.len()).unwrap();
        bench.step(&Step::Write(last));
        while bench.is_behind() {
            bench.step(&Step::Send(3, 4));
        }
        let delivered = bench.notes.delivered.lock().unwrap().clone();
        if !fragment {
            for events in &delivered {
                let (from, to) = (events[0].0, events[events.len() - 1].0);
                prop_assert_eq!(events, &bench.events(from, to), "whole revisions");
            }
        }
        prop_assert_eq!(delivered.concat(), bench.events(1, last));
    }
}

#[test]
fn it_begins_where_it_was_asked_to() {
    for (from_revision, may_be_ahead, next, is_ahead) in [
        (0, false, 11, false),  // from now on
        (4, false, 4, false),   // what was
        (11, false, 11, false), // what comes next
        (12, false, 12, true),  // what was seen elsewhere, and is not here
        (12, true, 11, false),  // what somebody wished for
        (-1, false, 11, false),
    ] {
        let (mut watch, _) = watch(WatchRequest {
            from_revision,
            may_be_ahead,
            ..WatchRequest::default()
        });
        assert_eq!(watch.created(header(10), 1), is_ahead, "{from_revision}");
        assert_eq!(watch.next_revision, next, "{from_revision}");
    }
}

#[test]
fn where_it_is_told_to_begin_counts_from_the_next_creation_on() {
    let (mut watch, notes) = watch(WatchRequest::default());
    watch.created(header(10), 1);
    watch.take(header(12), 1, vec![event(11, 0), event(12, 0)], false, usize::MAX);
    watch.rewind = Some(11);
    assert_eq!(watch.next_revision, 13);
    watch.restart();
    assert!(!watch.created(header(12), 2));
    watch.take(header(12), 2, vec![event(11, 0), event(12, 0)], false, usize::MAX);
    assert_eq!(
        notes.delivered.lock().unwrap().concat(),
        [(11, 0), (12, 0), (11, 0), (12, 0)]
    );
}

#[test]
fn one_revision_that_is_too_large_ends_it() {
    let (mut watch, notes) = watch(WatchRequest::default());
    watch.created(header(10), 1);
    let part = || (0..10).map(|which| event(12, which)).collect::<Vec<_>>();
    let mut first = part();
    first.insert(0, event(11, 0));
    assert_eq!(watch.take(header(12), 1, first, true, 15), Delivery::Taken);
    assert_eq!(
        notes.delivered.lock().unwrap().concat(),
        [(11, 0)],
        "what is whole was handed over"
    );
    assert_eq!(watch.take(header(12), 1, part(), true, 15), Delivery::Lagging);
}

#[test]
fn another_cluster_says_nothing_about_it() {
    let (mut watch, _) = watch(WatchRequest::default());
    watch.created(header(10), 1);
    let other = ResponseHeader {
        cluster_id: 8,
        ..header(99)
    };
    assert!(watch.is_of_another_cluster(&other));
    watch.progressed(&other);
    assert_eq!(watch.next_revision, 11);
    watch.progressed(&header(99));
    assert_eq!(watch.next_revision, 100);
}

#[test]
fn what_is_no_change_that_we_know_is_passed_over() {
    let (mut watch, notes) = watch(WatchRequest::default());
    watch.created(header(10), 1);
    let mut unknown = event(11, 0);
    unknown.r#type = 2;
    assert_eq!(
        watch.take(header(11), 1, vec![unknown], false, usize::MAX),
        Delivery::Taken
    );
    assert_eq!(watch.next_revision, 12);
    assert!(notes.delivered.lock().unwrap().is_empty());
}
