//! One watch as the hub keeps it: where it is in the history, and what its sink has been told.

use crate::etcd::error::Fault;
use crate::etcd::messages::{Event, NO_DELETE, NO_PUT, ResponseHeader, WatchCreateRequest};
use crate::etcd::watch::events::{Created, Response};
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

    /// The request that creates it under this id of the stream, from where it is.
    pub(in crate::etcd::watch) fn creation(&self, wire: i64) -> WatchCreateRequest {
        let WatchRequest { key, range_end, .. } = &self.request;
        let filters = [(self.request.no_put, NO_PUT), (self.request.no_delete, NO_DELETE)];
        WatchCreateRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            start_revision: self.next_revision,
            // Revisions that pass without events are told every ten minutes, by every version and in order. Where it is
            // safe we ask more often, see `progress.rs`.
            progress_notify: true,
            filters: filters
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, filter)| filter)
                .collect(),
            prev_kv: self.request.prev_kv,
            watch_id: wire,
            // Without it one large transaction would exceed the decode limit and end the stream, again and again.
            fragment: true,
        }
    }

    pub(in crate::etcd::watch) fn is_of_another_cluster(&self, header: &ResponseHeader) -> bool {
        self.request.cluster != 0 && header.cluster_id != 0 && self.request.cluster != header.cluster_id
    }

    pub(in crate::etcd::watch) fn tell_connecting(&mut self) {
        if matches!(self.told, Told::Nothing | Told::Disconnected) {
            self.told = Told::Connecting;
            self.sink.connecting();
        }
    }

    /// etcd has created it. Returns whether its revision is ahead of `header` and should not be.
    pub(in crate::etcd::watch) fn created(&mut self, header: ResponseHeader, watch_id: i64) -> bool {
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
    pub(in crate::etcd::watch) fn progressed(&mut self, header: &ResponseHeader) {
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
    pub(in crate::etcd::watch) fn progress(&mut self, header: ResponseHeader, watch_id: i64) -> Delivery {
        self.passed(header.revision);
        self.hand_over(header, watch_id, false, Vec::new())
    }

    /// Events have come; `more` when the last revision goes on in the next response. Nothing is delivered twice: after a
    /// resumption the server may begin earlier than asked for, and repeats a revision of which a part was delivered.
    pub(in crate::etcd::watch) fn take(
        &mut self,
        header: ResponseHeader,
        watch_id: i64,
        mut events: Vec<Event>,
        more: bool,
        bytes_most: usize,
    ) -> Delivery {
        self.is_within = more;
        let unfinished = self.parts.last().map_or(0, |event| event.kv.mod_revision);
        let mut revisions = events.iter().rev().map(|event| event.kv.mod_revision);
        let last = revisions.find(|revision| *revision > 0).unwrap_or(unfinished);
        events.retain(|event| event.is_known() && self.is_new(event.kv.mod_revision));
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

    fn hand_over(&mut self, header: ResponseHeader, watch_id: i64, fragment: bool, events: Vec<Event>) -> Delivery {
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

#[cfg(test)]
mod tests;
