//! Paths and values: what lies where, and what of the writing of others is an instance.
//!
//! `{prefix}/{name}/{id}`, name and id as they are, which is where Kratos writes and reads them. What ZooKeeper allows
//! in no path (`.` and `..` alone, some ranges of Unicode, all beyond U+FFFF) is written as `%~` and the text with `%`,
//! `.` and those characters in percent encoding. A text that begins with `%~` by itself is encoded as well, so that no
//! two texts share a path; it is the one legal text that Kratos would look for elsewhere.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::backend::BadRecord;
use crate::error::{Error, Result};
use crate::instance::{Codec, ServiceInstance};

/// What an encoded name or id begins with.
const ENCODED: &str = "%~";

/// The layout under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// Without a slash at its end; empty is the root.
    prefix: String,
    codec: Codec,
}

impl Paths {
    pub(super) fn new(prefix: &str, codec: Codec) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            codec,
        }
    }

    /// The parent of all names.
    pub(super) fn prefix(&self) -> &str {
        if self.prefix.is_empty() { "/" } else { &self.prefix }
    }

    /// The parent of the instances of a name.
    pub(super) fn service(&self, name: &str) -> String {
        format!("{}/{}", self.prefix, encode(name))
    }

    /// The node of an instance.
    pub(super) fn instance(&self, name: &str, id: &str) -> String {
        format!("{}/{}", self.service(name), encode(id))
    }

    /// Whether a name would lie on what belongs to ZooKeeper itself.
    pub(super) fn is_reserved(&self, name: &str, chroot: &str) -> bool {
        self.prefix.is_empty() && chroot.is_empty() && name == "zookeeper"
    }

    /// The value of an instance.
    pub(super) fn value(&self, instance: &ServiceInstance) -> String {
        self.codec.encode(instance)
    }

    /// Reads the node `child` of a name; `None` is what concerns no reader of it: a good record of another name, or a
    /// parent of deeper nodes.
    pub(super) fn read(
        &self,
        name: &Arc<str>,
        child: &str,
        value: &[u8],
        has_children: bool,
    ) -> Option<Result<ServiceInstance, BadRecord>> {
        if value.is_empty() && has_children {
            return None;
        }
        self.codec.read(name, &decode(child), &self.child(name, child), value)
    }

    /// A bad record, by the name of its node.
    pub(super) fn bad(&self, name: &str, child: &str, reason: &str) -> BadRecord {
        BadRecord {
            key: self.child(name, child),
            reason: reason.to_owned(),
        }
    }

    fn child(&self, name: &str, child: &str) -> String {
        format!("{}/{child}", self.service(name))
    }
}

/// A name or id as part of a path.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    if !text.starts_with(ENCODED) && !matches!(text, "." | "..") && text.chars().all(is_allowed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::from(ENCODED);
    for c in text.chars() {
        if c == '%' || c == '.' || !is_allowed(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The name or id of a part of a path. What only looks encoded stays as it is.
pub(super) fn decode(part: &str) -> Cow<'_, str> {
    let decoded = part.strip_prefix(ENCODED).and_then(|rest| {
        let mut bytes = Vec::with_capacity(rest.len());
        let mut left = rest.as_bytes();
        while let Some((&first, after)) = left.split_first() {
            left = after;
            if first == b'%' {
                let hex = std::str::from_utf8(left.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                left = left.get(2..)?;
            } else {
                bytes.push(first);
            }
        }
        String::from_utf8(bytes).ok()
    });
    // Only what we would write so ourselves.
    match decoded {
        Some(text) if encode(&text) == part => Cow::Owned(text),
        _ => Cow::Borrowed(part),
    }
}

/// Whether ZooKeeper takes a character in a path. See its programmer's guide, "The ZooKeeper Data Model". Its servers look
/// at Java's characters, and one beyond U+FFFF is two of those, both surrogates, which they refuse.
fn is_allowed(c: char) -> bool {
    !matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// Checks a path that a person wrote; `option` is how it is called.
pub(super) fn check_path(option: &str, path: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid(format!("{option}: {why}, got {path:?}")));
    let Some(rest) = path.strip_prefix('/') else {
        return wrong("expected a path that begins with \"/\"");
    };
    for part in rest.split('/') {
        match part {
            "" => return wrong("expected no empty part (\"//\")"),
            "." | ".." => return wrong("expected no part \".\" or \"..\""),
            part if !part.chars().all(is_allowed) => {
                return wrong("expected none of the characters that ZooKeeper does not allow");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_lie_where_kratos_looks_for_them() {
        let paths = Paths::new("/microservices/", Codec::Kratos);
        assert_eq!(
            paths.instance("helloworld", "5f8d-1"),
            "/microservices/helloworld/5f8d-1"
        );
        for plain in ["a.b", "...", ".a", "100%", "%41", "a b", "ä", "%"] {
            assert_eq!(encode(plain), plain);
        }
        assert_eq!(Paths::new("/", Codec::Kratos).service("a"), "/a");
        assert_eq!(Paths::new("/", Codec::Kratos).prefix(), "/");
    }

    #[test]
    fn what_zookeeper_refuses_is_encoded() {
        assert_eq!(encode("."), "%~%2E");
        assert_eq!(encode(".."), "%~%2E%2E");
        assert_eq!(encode("a\u{e000}b"), "%~a%EE%80%80b");
        assert_eq!(encode("%~a"), "%~%25~a");
        assert_eq!(encode("a😀"), "%~a%F0%9F%98%80");
        for odd in ["%~", "%~%", "%~%4", "%~%zz", "%~a", "%~%2e", "%~%FF"] {
            assert_eq!(decode(odd), odd, "nobody's encoding");
        }
    }

    #[test]
    fn paths_of_options_are_checked() {
        for good in ["/a", "/a/b", "/a.b/ä"] {
            assert!(check_path("options.prefix", good).is_ok());
        }
        for bad in ["a", "/a//b", "/a/../b", "/.", "/a\u{1}", "/\u{f8ff}"] {
            let error = check_path("options.prefix", bad).unwrap_err();
            assert!(error.message().starts_with("options.prefix: "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_text_has_a_path_of_its_own(text in "[^/]{1,20}", other in "[%~.A-F0-9a\u{e000}]{1,8}") {
            for text in [&text, &other] {
                let part = encode(text);
                prop_assert_eq!(&decode(&part), text.as_str());
                let path = format!("/{part}");
                prop_assert!(check_path("x", &path).is_ok());
            }
            prop_assert_eq!(encode(&text) == encode(&other), text == other);
        }
    }
}
