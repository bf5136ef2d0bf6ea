//! Keys and values: what lies where, and what of the writing of others is an instance.

use std::sync::Arc;

use crate::backend::BadRecord;
use crate::instance::{Codec, ServiceInstance, validate_name};

/// The layout `{prefix}/{name}/{id}` under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// With a slash at its end.
    prefix: String,
    codec: Codec,
}

impl Keys {
    pub(super) fn new(prefix: &str, codec: Codec) -> Self {
        Self {
            prefix: format!("{}/", prefix.trim_end_matches('/')),
            codec,
        }
    }

    /// The prefix with its slash.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of an instance.
    pub(super) fn instance(&self, name: &str, id: &str) -> String {
        format!("{}{name}/{id}", self.prefix)
    }

    /// What the keys of a name start with. With the slash, so that `orders` does not read `orders-admin`.
    pub(super) fn service_prefix(&self, name: &str) -> String {
        format!("{}{name}/", self.prefix)
    }

    /// The range of a name.
    pub(super) fn service(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        range_of(self.service_prefix(name))
    }

    /// The range of all names.
    pub(super) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        range_of(self.prefix.clone())
    }

    /// The value of an instance.
    pub(super) fn encode(&self, instance: &ServiceInstance) -> String {
        self.codec.encode(instance)
    }

    /// Reads a record of the range of `name`; `None` is a good record of another name.
    pub(super) fn read(&self, name: &Arc<str>, key: &[u8], value: &[u8]) -> Option<Result<ServiceInstance, BadRecord>> {
        let Ok(key) = std::str::from_utf8(key) else {
            return Some(Err(bad(key, "the key is not UTF-8")));
        };
        let id = key.get(self.prefix.len() + name.len() + 1..).unwrap_or_default();
        self.codec.read(name, id, key, value)
    }

    /// The name under which a record would be read, if it is a good one. With Kratos's layout the record says it, since
    /// names and ids may hold a slash there; but it must lie where that name is looked for.
    pub(super) fn name_of(&self, key: &[u8], value: &[u8]) -> Option<String> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        match self.codec {
            Codec::Kratos => {
                let name = ServiceInstance::from_json(value).ok()?.name.to_string();
                let lies_there = rest.strip_prefix(name.as_str())?.starts_with('/');
                (!name.is_empty() && lies_there).then_some(name)
            }
            Codec::Metadata | Codec::Json => {
                let (name, id) = rest.split_once('/')?;
                validate_name("name", name).ok()?;
                self.codec.decode(&name.into(), id, value).ok()?;
                Some(name.to_owned())
            }
        }
    }
}

/// `[prefix, prefix + 1)`. A prefix ends in a slash, so that its last byte can be raised.
fn range_of(prefix: String) -> (Vec<u8>, Vec<u8>) {
    let first = prefix.into_bytes();
    let mut end = first.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (first, end)
}

/// A record of someone else that could not be read.
pub(super) fn bad(key: &[u8], reason: impl Into<String>) -> BadRecord {
    BadRecord {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_where_it_is_looked_for() {
        let keys = Keys::new("/microservices", Codec::Kratos);
        let value = |name: &str| format!(r#"{{"id":"x","name":"{name}"}}"#).into_bytes();
        let at = |key: &str, name: &str| keys.name_of(key.as_bytes(), &value(name));
        assert_eq!(at("/microservices/a/x", "a").as_deref(), Some("a"));
        assert_eq!(at("/microservices/a/b/x", "a/b").as_deref(), Some("a/b"));
        assert_eq!(at("/microservices/a/b/x", "a").as_deref(), Some("a"));
        assert_eq!(at("/microservices/a/x", "b"), None);
        assert_eq!(at("/microservices/ab/x", "a"), None);
        assert_eq!(keys.name_of(b"/microservices/a/x", b"null"), None);
    }

    #[test]
    fn a_prefix_may_end_in_a_slash() {
        for prefix in ["/services", "/services/"] {
            let keys = Keys::new(prefix, Codec::Metadata);
            assert_eq!(keys.instance("a", "x"), "/services/a/x");
            assert_eq!(keys.service("a"), (b"/services/a/".to_vec(), b"/services/a0".to_vec()));
        }
    }

    #[test]
    fn a_strange_key_is_a_bad_record_and_no_panic() {
        let keys = Keys::new("/p", Codec::Kratos);
        assert!(keys.read(&"a".into(), b"/p/a/\xff", b"{}").unwrap().is_err());
        assert!(keys.read(&"a".into(), b"", b"not-json").unwrap().is_err());
        assert!(keys.read(&"a".into(), b"/p/a/x", br#"{"name":"b"}"#).is_none());
    }
}
