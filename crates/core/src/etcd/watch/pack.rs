//! What a watch tells, written for a reader on another thread: numbers of 32 bits in one area, bytes in another.
//!
//! A batch is the count of numbers, the numbers (both little-endian), then the bytes of all keys and values in their order.
//! A 64-bit number is two, the lower half first. The numbers are records:
//!
//! | Record | Numbers |
//! |---|---|
//! | [`RESPONSE`] | kind, 1 if the last revision goes on, count of events, next revision (2), watch id (2), header (8), then the events |
//! | [`CONNECTING`] | kind |
//! | [`CREATED`] | kind, 1 if again, next revision (2), watch id (2), header (8) |
//! | [`SETTLED`] | kind |
//! | [`DISCONNECTED`], [`END`] | kind; the error waits in [`WatchQueue::failure`](super::queue::WatchQueue::failure) |
//!
//! A header is cluster, member, revision and raft term. An event is its flags ([`DELETE`], [`PREVIOUS`]) and a key-value,
//! and a second one if there is a previous one; a key-value is its mod revision, create revision, version and lease (2
//! each), and how many bytes of key and of value come next.

use super::events::{Created, Response};
use crate::etcd::messages::{KeyValue, ResponseHeader};

/// A response with its events.
pub const RESPONSE: i32 = 0;
/// The watch is being created.
pub const CONNECTING: i32 = 1;
/// The watch has been created.
pub const CREATED: i32 = 2;
/// The revision to start from is there.
pub const SETTLED: i32 = 3;
/// The connection is lost.
pub const DISCONNECTED: i32 = 4;
/// The watch is over.
pub const END: i32 = 5;

/// Flag of an event: a deletion.
pub const DELETE: i32 = 1;
/// Flag of an event: a previous key-value follows.
pub const PREVIOUS: i32 = 2;

/// One batch that is being written.
#[derive(Debug, Default)]
pub(super) struct Pack {
    numbers: Vec<i32>,
    bytes: Vec<u8>,
    /// How many events are in it.
    pub(super) events: usize,
}

impl Pack {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        4 + self.numbers.len() * 4 + self.bytes.len()
    }

    pub(super) fn record(&mut self, kind: i32) {
        self.numbers.push(kind);
    }

    pub(super) fn created(&mut self, created: &Created) {
        self.numbers.push(CREATED);
        self.numbers.push(i32::from(created.again));
        self.long(created.next_revision);
        self.long(created.watch_id);
        self.header(&created.header);
    }

    pub(super) fn response(&mut self, response: &Response) {
        self.numbers.push(RESPONSE);
        self.numbers.push(i32::from(response.fragment));
        self.length(response.events.len());
        self.long(response.next_revision);
        self.long(response.watch_id);
        self.header(&response.header);
        for event in &response.events {
            let delete = if event.is_delete() { DELETE } else { 0 };
            let previous = if event.prev_kv.is_some() { PREVIOUS } else { 0 };
            self.numbers.push(delete | previous);
            self.key_value(&event.kv);
            if let Some(previous) = &event.prev_kv {
                self.key_value(previous);
            }
        }
        self.events += response.events.len();
    }

    fn key_value(&mut self, kv: &KeyValue) {
        self.long(kv.mod_revision);
        self.long(kv.create_revision);
        self.long(kv.version);
        self.long(kv.lease);
        self.length(kv.key.len());
        self.length(kv.value.len());
        self.bytes.extend_from_slice(&kv.key);
        self.bytes.extend_from_slice(&kv.value);
    }

    fn header(&mut self, header: &ResponseHeader) {
        self.long(header.cluster_id.cast_signed());
        self.long(header.member_id.cast_signed());
        self.long(header.revision);
        self.long(header.raft_term.cast_signed());
    }

    fn long(&mut self, value: i64) {
        let (lower, upper) = (value & 0xFFFF_FFFF, value >> 32);
        self.numbers.push(lower as i32); // the lower half as it is
        self.numbers.push(upper as i32);
    }

    fn length(&mut self, length: usize) {
        // A message is far smaller than 2 GiB: the decode limit and gRPC's own see to it.
        self.numbers.push(i32::try_from(length).unwrap_or(i32::MAX));
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut batch = Vec::with_capacity(self.size());
        let count = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        batch.extend_from_slice(&count.to_le_bytes());
        batch.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
        batch.extend_from_slice(&self.bytes);
        batch
    }
}
