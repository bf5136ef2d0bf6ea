//! One watch as the hub keeps it: where it is in the history, and what its sink has been told.

use etcd_client::proto::{PbEvent, PbKeyValue, PbResponseHeader};
use etcd_client::{WatchFilterType, WatchOptions};

use crate::etcd::error::Fault;
use crate::etcd::watch::events::{Created, Event, Header, KeyValue, Response};
use crate::etcd::watch::request::WatchRequest;
use crate::etcd::watch::sink::{Delivery, WatchEnd, WatchSink};

/// What the sink has been told last about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Connecting,
    Connected,
    Disconnected,
}

/// One watch.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(in crate::etcd::watch) struct Watch {
    pub(in crate::etcd::watch) request: WatchRequest,
    /// The first revision not yet delivered whole; 0 = from now on.
    pub(in crate::etcd::watch) next_revision: i64,
    /// How many events of that revision were handed over already. etcd tells the events of a revision in the same order
    /// each time.
    given: usize,
    /// How many of them this creation has brought so far.
    seen: usize,
    /// Events of a revision that is not whole yet, and their size.
    parts: Vec<Event>,
    parts_bytes: usize,
    /// The last response stopped in the middle of a revision.
    is_within: bool,
    /// The revision of the member when it answered the creation that stands; `None` while there is none.
    created_at: Option<i64>,
    sink: Box<dyn WatchSink>,
    told: Told,
    /// Its id on the stream, while it is or is being created on one.
    pub(in crate::etcd::watch) wire: Option<i64>,
    /// It waits for room in its sink.
    pub(in crate::etcd::watch) is_paused: bool,
    /// Where to start at the next creation, because somebody said so.
    pub(in crate::etcd::watch) rewind: Option<i64>,
    /// Its revision is no more than a wish: nothing was seen yet that says where the cluster is.
    is_wish: bool,
    pub(in crate::etcd::watch) token_refusals: u32,
    /// Whether the stream that it is being created on carries a token that was got after it was asked for.
    pub(in crate::etcd::watch) has_new_token: bool,
}

impl Watch {
    pub(in crate::etcd::watch) fn new(request: WatchRequest, sink: Box<dyn WatchSink>) -> Self {
        Self {
            next_revision: request.from_revision.max(0),
            is_wish: request.may_be_ahead,
            request,
            given: 0,
            seen: 0,
            parts: Vec::new(),
            parts_bytes: 0,
            is_within: false,
            created_at: None,
            sink,
            told: Told::Nothing,
            wire: None,
            is_paused: false,
            rewind: None,
            token_refusals: 0,
            has_new_token: false,
        }
    }

    /// Before it is created on a stream: half a revision is not kept, for the rest will not come, the whole will.
    pub(in crate::etcd::watch) fn restart(&mut self) {
        self.parts.clear();
        self.parts_bytes = 0;
        self.seen = 0;
        self.is_within = false;
        self.created_at = None;
        if let Some(revision) = self.rewind.take() {
            self.next_revision = revision.max(0);
            self.given = 0;
            self.is_wish = true;
        }
    }

    pub(in crate::etcd::watch) fn options(&self, wire: i64) -> WatchOptions {
        let mut options = WatchOptions::new()
            .with_watch_id(wire)
            .with_start_revision(self.next_revision)
            // Revisions that pass without events are told every ten minutes, by every version and in order. Where it is
            // safe we ask more often, see `progress.rs`.
            .with_progress_notify()
            // Without it one large transaction would exceed the decode limit and end the stream, again and again.
            .with_fragment();
        let mut filters = Vec::new();
        if self.request.no_put {
            filters.push(WatchFilterType::NoPut);
        }
        if self.request.no_delete {
            filters.push(WatchFilterType::NoDelete);
        }
        if !filters.is_empty() {
            options = options.with_filters(filters);
        }
        if self.request.prev_kv {
            options = options.with_prev_key();
        }
        if self.request.range_end.is_empty() {
            options
        } else {
            options.with_range(self.request.range_end.clone())
        }
    }

    pub(in crate::etcd::watch) fn is_of_another_cluster(&self, header: &Header) -> bool {
        self.request.cluster != 0 && header.cluster_id != 0 && self.request.cluster != header.cluster_id
    }

    pub(in crate::etcd::watch) fn tell_connecting(&mut self) {
        if matches!(self.told, Told::Nothing | Told::Disconnected) {
            self.told = Told::Connecting;
            self.sink.connecting();
        }
    }

    /// etcd has created it. Returns whether its revision is ahead of `header` and should not be.
    pub(in crate::etcd::watch) fn created(&mut self, header: Header, watch_id: i64) -> bool {
        let is_wish = std::mem::replace(&mut self.is_wish, false);
        self.created_at = Some(header.revision);
        self.token_refusals = 0;
        self.has_new_token = false;
        if self.request.cluster == 0 {
            self.request.cluster = header.cluster_id;
        }
        let is_ahead = is_ahead(self.next_revision, header.revision);
        if self.next_revision == 0 || (is_wish && is_ahead) {
            // From now on; or somebody wished for a revision that is yet to come, and did not come before we resume.
            self.next_revision = header.revision + 1;
        }
        let again = self.told == Told::Connected;
        self.told = Told::Connected;
        self.sink.created(Created {
            header,
            watch_id,
            next_revision: self.next_revision,
            again,
        });
        is_ahead && !is_wish
    }

    pub(in crate::etcd::watch) fn settled(&mut self) {
        if std::mem::take(&mut self.request.settle) {
            self.sink.settled();
        }
    }

    /// Once per drop. False: it is to end.
    pub(in crate::etcd::watch) fn tell_disconnected(&mut self, fault: &Fault) -> bool {
        self.wire = None;
        self.told == Told::Disconnected || {
            self.told = Told::Disconnected;
            self.sink.disconnected(fault)
        }
    }

    /// An answer about the whole stream. It may be to a question that the member took before this watch: then its revision
    /// is not above the one of the creation, and says nothing.
    pub(in crate::etcd::watch) fn progressed(&mut self, header: &Header) {
        let is_later = self.created_at.is_some_and(|created| header.revision > created);
        if is_later && !self.is_paused && !self.is_within && !self.is_of_another_cluster(header) {
            self.passed(header.revision);
        }
    }

    /// Nothing up to this revision is to come any more.
    fn passed(&mut self, revision: i64) {
        if revision >= self.next_revision {
            self.next_revision = revision + 1;
            self.given = 0;
            self.seen = 0;
        }
    }

    /// Everything up to the header's revision has been delivered.
    pub(in crate::etcd::watch) fn progress(&mut self, header: Header, watch_id: i64) -> Delivery {
        self.passed(header.revision);
        self.hand_over(header, watch_id, false, Vec::new())
    }

    /// Events have come; `more` when the last revision goes on in the next response. Nothing is delivered twice: after a
    /// resumption the server may begin earlier than asked for, and repeats a revision of which a part was delivered.
    pub(in crate::etcd::watch) fn take(
        &mut self,
        header: Header,
        watch_id: i64,
        events: Vec<PbEvent>,
        more: bool,
        bytes_most: usize,
    ) -> Delivery {
        self.is_within = more;
        let last = events.iter().rev().find_map(|event| event.kv.as_ref());
        let unfinished = self.parts.last().map_or(0, |event| event.kv.mod_revision);
        let last = last.map_or(unfinished, |kv| kv.mod_revision);
        let mut events: Vec<Event> = events
            .into_iter()
            .filter_map(event_of)
            .filter(|event| self.is_new(event.kv.mod_revision))
            .collect();
        if self.request.fragment {
            self.has_come(
                last,
                more,
                events.iter().rev().take_while(|e| e.kv.mod_revision == last).count(),
            );
        } else {
            if !self.parts.is_empty() {
                let whole = std::mem::take(&mut self.parts);
                events = whole.into_iter().chain(events).collect();
            }
            if more {
                // What is whole goes; of the last revision there may be more.
                let whole = events.partition_point(|event| event.kv.mod_revision < last);
                self.parts = events.split_off(whole);
                self.parts_bytes = self.parts.iter().map(Event::bytes).sum();
                if self.parts_bytes > bytes_most {
                    return Delivery::Lagging;
                }
            }
            self.has_come(last, more, 0);
        }
        if events.is_empty() {
            return Delivery::Taken;
        }
        self.hand_over(header, watch_id, more && self.request.fragment, events)
    }

    fn is_new(&mut self, revision: i64) -> bool {
        if revision == self.next_revision {
            self.seen += 1;
            return self.seen > self.given;
        }
        revision > self.next_revision
    }

    /// Everything before revision `last` is delivered or about to be, and `count` events of it, or all unless `more`.
    fn has_come(&mut self, last: i64, more: bool, count: usize) {
        if !more {
            self.passed(last);
        } else if last > self.next_revision {
            self.next_revision = last;
            self.given = count;
            self.seen = count;
        } else if last == self.next_revision {
            self.given = self.given.max(if self.request.fragment { self.seen } else { 0 });
        }
    }

    fn hand_over(&mut self, header: Header, watch_id: i64, fragment: bool, events: Vec<Event>) -> Delivery {
        let next_revision = self.next_revision;
        let delivery = self.sink.deliver(Response {
            header,
            watch_id,
            fragment,
            events,
            next_revision,
        });
        self.is_paused = delivery == Delivery::Full;
        delivery
    }

    pub(in crate::etcd::watch) fn end(self, why: WatchEnd) {
        self.sink.end(why);
    }
}

/// Whether who waits for `next_revision` has seen more than all there is at `revision`.
pub(in crate::etcd::watch) fn is_ahead(next_revision: i64, revision: i64) -> bool {
    revision + 1 < next_revision
}

pub(in crate::etcd::watch) fn header_of(header: Option<&PbResponseHeader>) -> Header {
    header.map_or_else(Header::default, |header| Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    })
}

/// `None` for what is no change of a key that we know: a later etcd may tell more than puts and deletes.
fn event_of(event: PbEvent) -> Option<Event> {
    let is_delete = match event.r#type {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Event {
        is_delete,
        kv: kv_of(event.kv?),
        previous: event.prev_kv.map(kv_of),
    })
}

fn kv_of(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests;
