//! What goes over the wire: the records of ZooKeeper's `zookeeper.jute`, big-endian, each frame behind its length.
//!
//! Nothing that a server sends is believed: a length that does not fit its frame, a text that is none, a number that
//! nothing stands for end in [`Malformed`], and no length makes room for itself before its bytes are there.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The longest frame that is taken. A list of a hundred thousand children is 4 MB; a node holds what its server's
/// `jute.maxbuffer` let in, 1 MiB by default.
pub(super) const LONGEST_FRAME: usize = 64 << 20;

/// Numbers of the requests.
pub(super) mod op {
    pub(in super::super) const CREATE: i32 = 1;
    pub(in super::super) const DELETE: i32 = 2;
    pub(in super::super) const EXISTS: i32 = 3;
    pub(in super::super) const GET_DATA: i32 = 4;
    pub(in super::super) const SET_DATA: i32 = 5;
    pub(in super::super) const GET_CHILDREN: i32 = 8;
    pub(in super::super) const SYNC: i32 = 9;
    pub(in super::super) const PING: i32 = 11;
    pub(in super::super) const GET_CHILDREN2: i32 = 12;
    pub(in super::super) const CHECK: i32 = 13;
    pub(in super::super) const MULTI: i32 = 14;
    pub(in super::super) const CREATE2: i32 = 15;
    pub(in super::super) const REMOVE_WATCHES: i32 = 18;
    pub(in super::super) const MULTI_READ: i32 = 22;
    pub(in super::super) const AUTH: i32 = 100;
    pub(in super::super) const SASL: i32 = 102;
    pub(in super::super) const GET_EPHEMERALS: i32 = 103;
    pub(in super::super) const SET_WATCHES2: i32 = 105;
    pub(in super::super) const CLOSE: i32 = -11;
    /// In the answer to a transaction: this part has failed.
    pub(in super::super) const ERROR: i32 = -1;
}

/// Numbers that stand in place of the number of a request.
pub(super) mod xid {
    pub(in super::super) const EVENT: i32 = -1;
    pub(in super::super) const PING: i32 = -2;
    pub(in super::super) const AUTH: i32 = -4;
}

/// What came is no answer of a ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A record being written.
pub(super) trait Write {
    fn int(&mut self, value: i32);
    fn long(&mut self, value: i64);
    fn bool(&mut self, value: bool);
    fn bytes(&mut self, value: &[u8]);
    fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }
}

impl Write for BytesMut {
    fn int(&mut self, value: i32) {
        self.put_i32(value);
    }

    fn long(&mut self, value: i64) {
        self.put_i64(value);
    }

    fn bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    fn bytes(&mut self, value: &[u8]) {
        // A request of 2 GiB is refused by its size before it comes here.
        self.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.put_slice(value);
    }
}

/// A record being read. Buffers share its memory, texts do not.
#[derive(Debug, Clone)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(frame: Bytes) -> Self {
        Self(frame)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| Malformed)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.0.try_get_i64().map_err(|_| Malformed)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.0.try_get_u8().map_err(|_| Malformed)? != 0)
    }

    /// A buffer; what is no buffer at all (-1) is an empty one.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.int()?;
        if length == -1 {
            return Ok(Bytes::new());
        }
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Malformed)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.int()?;
        if count == -1 {
            return Ok(Vec::new());
        }
        let count = usize::try_from(count).map_err(|_| Malformed)?;
        // Each takes four bytes at least, so the count makes no more room than the frame has.
        if count > self.0.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.text()).collect()
    }

    pub(super) fn stat(&mut self) -> Result<Stat, Malformed> {
        let czxid = self.long()?;
        let mzxid = self.long()?;
        let (ctime, _mtime) = (self.long()?, self.long()?);
        let version = self.int()?;
        let (cversion, _aversion) = (self.int()?, self.int()?);
        let ephemeral_owner = self.long()?;
        let _data_length = self.int()?;
        let num_children = self.int()?;
        let pzxid = self.long()?;
        Ok(Stat {
            czxid,
            mzxid,
            pzxid,
            ctime,
            version,
            cversion,
            ephemeral_owner,
            num_children,
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What ZooKeeper knows of a node, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Stat {
    /// The transaction that made it.
    pub(in super::super) czxid: i64,
    /// The one that wrote its data last.
    pub(in super::super) mzxid: i64,
    /// The one that changed the list of its children last.
    pub(in super::super) pzxid: i64,
    /// When it was made, in milliseconds since 1970 by the server's clock.
    pub(in super::super) ctime: i64,
    /// How often its data were written.
    pub(in super::super) version: i32,
    /// How often its list of children has changed: twice the number of nodes that were ever made in it, less those that are there.
    pub(in super::super) cversion: i32,
    /// The session that it ends with; 0 for none.
    pub(in super::super) ephemeral_owner: i64,
    pub(in super::super) num_children: i32,
}

/// Who may do what with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Acl {
    pub(in super::super) permissions: i32,
    pub(in super::super) scheme: &'static str,
    pub(in super::super) id: &'static str,
}

impl Acl {
    pub(in super::super) const READ: i32 = 1;
    pub(in super::super) const ALL: i32 = 31;
}

pub(super) fn put_acls(out: &mut BytesMut, acls: &[Acl]) {
    out.int(i32::try_from(acls.len()).unwrap_or(i32::MAX));
    for acl in acls {
        out.int(acl.permissions);
        out.text(acl.scheme);
        out.text(acl.id);
    }
}

/// What happened to a node, or to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
}

/// A word of the server about a watch. `None`: about something that nobody here watches.
pub(super) fn event(reader: &mut Reader) -> Result<Option<(EventKind, String)>, Malformed> {
    let kind = reader.int()?;
    let _state = reader.int()?;
    let path = reader.text()?;
    let kind = match kind {
        1 => EventKind::Created,
        2 => EventKind::Deleted,
        3 => EventKind::DataChanged,
        4 => EventKind::ChildrenChanged,
        _ => return Ok(None),
    };
    Ok(Some((kind, path)))
}

/// What has come, from one length to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Whole(Bytes),
    /// One that is not taken, but for its head; so many bytes of it are to be passed over.
    TooLong {
        head: Bytes,
        rest: usize,
    },
}

/// How long the head of an answer is: its number, the newest transaction, an error.
const HEAD: usize = 16;

/// Takes a frame from what has come; `None` if it is not whole yet.
pub(super) fn frame(came: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let Some(length) = came.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Malformed)?;
    let is_too_long = length > LONGEST_FRAME;
    let taken = if is_too_long { HEAD } else { length };
    if came.len() < 4 + taken {
        return Ok(None);
    }
    came.advance(4);
    let bytes = came.split_to(taken).freeze();
    Ok(Some(if is_too_long {
        let rest = length - taken;
        Frame::TooLong { head: bytes, rest }
    } else {
        Frame::Whole(bytes)
    }))
}

/// Appends a frame; `fill` writes what is in it.
pub(super) fn put_frame(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    fill(out);
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| {
            out.int(-7);
            out.long(1 << 40);
            out.bool(true);
            out.text("/a/ü");
            out.bytes(b"");
        });
        let mut half = BytesMut::from(&out[..out.len() - 1]);
        assert_eq!(frame(&mut half), Ok(None));
        let Some(Frame::Whole(whole)) = frame(&mut out).unwrap() else {
            panic!("it is whole");
        };
        let mut reader = Reader::new(whole);
        assert!(out.is_empty());
        assert_eq!(reader.int(), Ok(-7));
        assert_eq!(reader.long(), Ok(1 << 40));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.text().as_deref(), Ok("/a/ü"));
        assert_eq!(reader.bytes(), Ok(Bytes::new()));
        assert!(reader.is_empty());
        assert_eq!(reader.int(), Err(Malformed));
    }

    #[test]
    fn a_length_makes_no_room_before_its_bytes_are_there() {
        let mut huge = BytesMut::new();
        huge.put_i32(i32::MAX);
        assert_eq!(frame(&mut huge), Ok(None));
        huge.put_slice(&[7; 20]);
        let head = Bytes::from_static(&[7; HEAD]);
        let rest = i32::MAX as usize - HEAD;
        assert_eq!(frame(&mut huge), Ok(Some(Frame::TooLong { head, rest })));
        assert_eq!(huge.len(), 4, "what is passed over");
        for count in [i32::MAX, 1 << 20, -2] {
            let mut list = BytesMut::new();
            list.put_i32(count);
            list.put_slice(&[0; 16]);
            assert_eq!(
                Reader::new(list.clone().freeze()).texts(),
                Err(Malformed),
                "{count} texts"
            );
            assert_eq!(Reader::new(list.freeze()).bytes(), Err(Malformed), "{count} bytes");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_whatever_comes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut came = BytesMut::from(&bytes[..]);
            let _ = frame(&mut came);
            let all = Bytes::from(bytes);
            let _ = event(&mut Reader::new(all.clone()));
            let _ = Reader::new(all.clone()).texts();
            let _ = Reader::new(all.clone()).stat();
            let _ = Reader::new(all).text();
        }
    }
}
