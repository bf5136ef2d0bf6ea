//! What an answer looks like to JavaScript: as it came, or packed so that reading it costs little.

use bytes::Bytes;
use prost::Message as _;
use rollcall_core::etcd::{HeaderOnly, KeyValue, RangeResponse, ResponseHeader};
use rollcall_core::{Error, ErrorKind};

use crate::failure::NativeFailure;

/// Key-values in one chunk of a long list, and about how many bytes of keys and values.
const CHUNK: usize = 1024;
const CHUNK_BYTES: usize = 1 << 20;
/// A longer answer is read apart from the I/O thread, which carries renewals too.
const READ_APART: usize = 1 << 20;

/// The form that a caller wants an answer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The message as it came, encoded.
    Raw,
    /// Of a range of one key: its value, or that it is not there.
    Value,
    /// Of a range: its key-values, packed, in chunks.
    List,
    /// Of a write: its header.
    Header,
}

impl Want {
    pub fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Value,
            2 => Self::List,
            3 => Self::Header,
            _ => Self::Raw,
        }
    }
}

/// One answer, or a part of one.
pub enum Reply {
    /// Form 0: the message.
    Raw(Bytes),
    /// Forms 1 to 3: a value of bytes that are no UTF-8, of ASCII, of other UTF-8.
    Value(Bytes),
    /// Form 4: no such key.
    Absent,
    /// Form 5: the header in eight words (cluster, member, revision, term; each its high word first).
    Header(ResponseHeader),
    /// Form 6, and 7 for the last one: key-values, and how many.
    List {
        packed: Vec<u8>,
        count: usize,
        is_last: bool,
    },
    /// Form 8: why there is none, a `NativeFailure` in JSON.
    Failed(Bytes),
}

impl Reply {
    pub fn failed(failure: &NativeFailure) -> Self {
        Self::Failed(failure.to_json().into())
    }

    /// What reading it costs JavaScript, in answers of a single value.
    pub fn weight(&self) -> usize {
        match self {
            Self::List { count, .. } => 1 + count / 4,
            Self::Raw(body) => 1 + body.len() / 512,
            _ => 1,
        }
    }

    pub fn into_record(self) -> (u32, Bytes) {
        match self {
            Self::Raw(body) => (0, body),
            Self::Value(value) => {
                let form = if value.is_ascii() {
                    2
                } else if std::str::from_utf8(&value).is_ok() {
                    3
                } else {
                    1
                };
                (form, value)
            }
            Self::Absent => (4, Bytes::new()),
            Self::Header(header) => {
                let mut packed = Vec::with_capacity(32);
                put_header(&mut packed, &header);
                (5, packed.into())
            }
            Self::List { packed, is_last, .. } => (if is_last { 7 } else { 6 }, packed.into()),
            Self::Failed(json) => (8, json),
        }
    }
}

/// The last reply to an answer; those before it go to `part`.
pub async fn of(want: Want, answer: Bytes, part: impl Fn(Reply)) -> Reply {
    let range = match want {
        Want::Raw => return Reply::Raw(answer),
        Want::Header => {
            return match HeaderOnly::decode(answer) {
                Ok(answer) => Reply::Header(answer.header.unwrap_or_default()),
                Err(e) => unreadable(&e),
            };
        }
        Want::Value | Want::List if answer.len() > READ_APART => {
            let read = tokio::task::spawn_blocking(move || RangeResponse::decode(answer)).await;
            match read {
                Ok(range) => range,
                Err(_) => return Reply::failed(&NativeFailure::given_up()), // the runtime is shutting down
            }
        }
        Want::Value | Want::List => RangeResponse::decode(answer),
    };
    let range = match range {
        Ok(range) => range,
        Err(e) => return unreadable(&e),
    };
    if want == Want::Value {
        return of_one(want, &range);
    }
    let mut from = 0;
    loop {
        let end = chunk_end(&range.kvs, from);
        let is_last = end == range.kvs.len();
        let list = Reply::List {
            packed: pack(&range, from, end),
            count: end - from,
            is_last,
        };
        if is_last {
            return list;
        }
        part(list);
        from = end;
        tokio::task::yield_now().await; // packing a million keys must not hold up the renewal of a lease
    }
}

/// The reply to a range of one key.
pub fn of_one(want: Want, range: &RangeResponse) -> Reply {
    match range.kvs.first() {
        Some(kv) if want == Want::Value => Reply::Value(kv.value.clone()),
        None if want == Want::Value => Reply::Absent,
        _ => Reply::List {
            packed: pack(range, 0, range.kvs.len()),
            count: range.kvs.len(),
            is_last: true,
        },
    }
}

fn unreadable(why: &prost::DecodeError) -> Reply {
    let text = format!("the answer of etcd cannot be read: {why}");
    Reply::failed(&NativeFailure::from(&Error::new(ErrorKind::Internal, text)))
}

fn chunk_end(kvs: &[KeyValue], from: usize) -> usize {
    let mut bytes = 0;
    let mut end = from;
    while end < kvs.len() && end - from < CHUNK && bytes < CHUNK_BYTES {
        bytes += kvs[end].key.len() + kvs[end].value.len();
        end += 1;
    }
    end
}

/// Words: how many; whether there are more keys than were asked for; their count (two words); the header (eight). Then for
/// each its length of key and value, whether these are ASCII (bits 0 and 1), and the revisions of creation and
/// modification, version and lease (two words each). Then all keys and values.
fn pack(range: &RangeResponse, from: usize, end: usize) -> Vec<u8> {
    let kvs = &range.kvs[from..end];
    let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let mut packed = Vec::with_capacity(48 + kvs.len() * 44 + bytes);
    put(&mut packed, u32::try_from(kvs.len()).unwrap_or(u32::MAX));
    put(&mut packed, u32::from(range.more));
    put_long(&mut packed, range.count);
    put_header(&mut packed, &range.header.unwrap_or_default());
    for kv in kvs {
        put(&mut packed, u32::try_from(kv.key.len()).unwrap_or(u32::MAX));
        put(&mut packed, u32::try_from(kv.value.len()).unwrap_or(u32::MAX));
        let ascii = u32::from(kv.key.is_ascii()) | u32::from(kv.value.is_ascii()) << 1;
        put(&mut packed, ascii);
        for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
            put_long(&mut packed, number);
        }
    }
    for kv in kvs {
        packed.extend_from_slice(&kv.key);
        packed.extend_from_slice(&kv.value);
    }
    packed
}

fn put(packed: &mut Vec<u8>, word: u32) {
    packed.extend_from_slice(&word.to_ne_bytes());
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the two halves
fn put_long(packed: &mut Vec<u8>, number: i64) {
    put(packed, (number >> 32) as u32);
    put(packed, number as u32);
}

#[allow(clippy::cast_possible_wrap)] // bits
fn put_header(packed: &mut Vec<u8>, header: &ResponseHeader) {
    put_long(packed, header.cluster_id as i64);
    put_long(packed, header.member_id as i64);
    put_long(packed, header.revision);
    put_long(packed, header.raft_term as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(packed: &[u8]) -> Vec<u32> {
        packed
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_ne_bytes(*word))
            .collect()
    }

    #[test]
    fn a_list_is_packed_as_javascript_reads_it() {
        let range = RangeResponse {
            header: Some(ResponseHeader {
                cluster_id: u64::MAX,
                member_id: 2,
                revision: 1 << 40,
                raft_term: 3,
            }),
            kvs: vec![KeyValue {
                key: "k".into(),
                value: "ä".into(),
                mod_revision: 5,
                lease: -1,
                ..KeyValue::default()
            }],
            more: true,
            count: 9,
        };
        let packed = pack(&range, 0, 1);
        let words = words(&packed[..48 + 44]);
        assert_eq!(words[..4], [1, 1, 0, 9]);
        assert_eq!(words[4..12], [u32::MAX, u32::MAX, 0, 2, 1 << 8, 0, 0, 3]);
        assert_eq!(words[12..15], [1, 2, 1]);
        assert_eq!(words[15..], [0, 0, 0, 5, 0, 0, u32::MAX, u32::MAX]);
        assert_eq!(&packed[92..], "kä".as_bytes());
    }

    #[test]
    fn a_long_list_comes_in_chunks() {
        let range = RangeResponse {
            kvs: vec![KeyValue::default(); CHUNK + 1],
            ..RangeResponse::default()
        };
        let parts = std::sync::Mutex::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let last = runtime.block_on(of(Want::List, range.encode_to_vec().into(), |part| {
            parts.lock().unwrap().push(part);
        }));
        let parts = parts.into_inner().unwrap();
        assert!(matches!(
            parts[..],
            [Reply::List {
                count: CHUNK,
                is_last: false,
                ..
            }]
        ));
        assert!(matches!(
            last,
            Reply::List {
                count: 1,
                is_last: true,
                ..
            }
        ));
    }

    #[test]
    fn hostile_bytes_are_a_failure() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for want in [Want::Value, Want::List, Want::Header] {
            let reply = runtime.block_on(of(want, Bytes::from_static(b"\xff\xff\xff"), |_| {}));
            assert!(matches!(reply, Reply::Failed(_)), "{want:?}");
        }
    }
}
