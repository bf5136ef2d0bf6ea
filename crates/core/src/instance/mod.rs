//! [`ServiceInstance`], what may be registered, and its JSON form, byte for byte that of Go Kratos.
//!
//! The form is `encoding/json`'s of Go 1.22 and later for Kratos's struct: fields in the order id, name, version,
//! metadata, endpoints; metadata keys sorted by bytes; `&`, `<`, `>`, U+2028 and U+2029 escaped; empty collections
//! written as `null`. See <https://pkg.go.dev/encoding/json#Marshal>.

use std::num::NonZeroU64;
use std::sync::Arc;

use serde_json::Value;
use url::Url;

use crate::error::{Error, Result};

/// One instance of a service, in the words and shape of Kratos's registry.
///
/// Its fields are the tightest that hold them, and the name is shared by a list: a watched fleet has a hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceInstance {
    /// Unique among the instances of `name`. Two registrations with one id are one instance: the newest wins.
    pub id: Box<str>,
    /// The name of the service.
    pub name: Arc<str>,
    /// Any text; empty when unknown.
    pub version: Box<str>,
    /// Pairs sorted by key, no key twice.
    pub metadata: Metadata,
    /// URLs such as `grpc://10.0.0.1:9000`, in the order of the owner.
    pub endpoints: Endpoints,
    /// Since when it is registered, in milliseconds since 1970 by the registry's own clock, where a read tells it
    /// ([`Capabilities::since`](crate::backend::Capabilities::since)). Never written.
    pub since: Option<NonZeroU64>,
}

/// The endpoints of an instance.
pub type Endpoints = Box<[Box<str>]>;

impl Default for ServiceInstance {
    fn default() -> Self {
        Self {
            id: Box::default(),
            name: Arc::from(""),
            version: Box::default(),
            metadata: Metadata::default(),
            endpoints: Box::default(),
            since: None,
        }
    }
}

/// Metadata pairs, sorted by the bytes of their keys, no key twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Metadata(Box<[(Box<str>, Box<str>)]>);

impl Metadata {
    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Metadata {
    /// Of a repeated key the last value counts, as in a JSON object.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0)); // stable: the last of equals stays last
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        Self(pairs.into_boxed_slice())
    }
}

/// The longest name or id, in bytes. Longer ones break keys, logs and DNS labels somewhere on their way.
pub const MAX_NAME: usize = 512;
/// The most metadata pairs of one instance.
pub const MAX_METADATA_PAIRS: usize = 1024;
/// The most endpoints of one instance.
pub const MAX_ENDPOINTS: usize = 64;
/// The largest record, in bytes of its JSON form. etcd refuses a request above 1.5 MiB, ZooKeeper above 1 MiB,
/// Consul's key-value store above 512 KiB; every watcher of the name reads it on every change.
pub const MAX_RECORD: usize = 512 * 1024;

/// Checks the name of a service. `path` is how the caller calls the argument.
pub fn validate_name(path: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!(
            "{path}: expected a service name, got an empty string"
        )));
    }
    if name.len() > MAX_NAME {
        return Err(Error::invalid(format!(
            "{path}: expected at most {MAX_NAME} bytes, got {}",
            name.len()
        )));
    }
    if name.contains('/') {
        return Err(Error::invalid(format!(
            "{path}: must not contain '/', which separates name and id in the registry; got {name:?}"
        )));
    }
    if let Some(c) = name.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(format!(
            "{path}: must not contain control characters, got U+{:04X}",
            c as u32
        )));
    }
    Ok(())
}

impl ServiceInstance {
    /// Checks everything that can be checked before a registry is asked. Errors name the field by its path.
    pub fn validate(&self) -> Result<()> {
        validate_name("instance.name", &self.name)?;
        validate_name("instance.id", &self.id)?;
        if self.metadata.len() > MAX_METADATA_PAIRS {
            return Err(Error::invalid(format!(
                "instance.metadata: expected at most {MAX_METADATA_PAIRS} keys, got {}; every watcher of the service reads them on every change",
                self.metadata.len()
            )));
        }
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(Error::invalid(format!(
                "instance.endpoints: expected at most {MAX_ENDPOINTS}, got {}",
                self.endpoints.len()
            )));
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            validate_endpoint(&format!("instance.endpoints[{i}]"), endpoint)?;
        }
        let size = self.to_json().len();
        if size > MAX_RECORD {
            return Err(Error::invalid(format!(
                "instance: the record is {size} bytes, expected at most {MAX_RECORD}; keep large values elsewhere and put their address into the metadata"
            )));
        }
        Ok(())
    }

    /// The JSON form, byte for byte what Go Kratos writes.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(128);
        out.push_str("{\"id\":");
        push_json_string(&mut out, &self.id);
        out.push_str(",\"name\":");
        push_json_string(&mut out, &self.name);
        out.push_str(",\"version\":");
        push_json_string(&mut out, &self.version);
        out.push_str(",\"metadata\":");
        if self.metadata.is_empty() {
            out.push_str("null");
        } else {
            push_json_metadata(&mut out, &self.metadata);
        }
        out.push_str(",\"endpoints\":");
        if self.endpoints.is_empty() {
            out.push_str("null");
        } else {
            for (i, endpoint) in self.endpoints.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                push_json_string(&mut out, endpoint);
            }
            out.push(']');
        }
        out.push('}');
        out
    }

    /// Reads a record nearly as liberally as Go's decoder does: any order, unknown keys, `null` for what is empty, repeated
    /// keys (the last counts). Only the case of field names counts here, which nobody's encoder changes. What Go refuses (a metadata value that is not a string) is refused with the reason.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        let Value::Object(mut fields) = value else {
            return Err(format!("expected a JSON object, got {}", kind_of(&value)));
        };
        let mut text = |field: &str| match fields.remove(field) {
            None | Some(Value::Null) => Ok(Box::default()),
            Some(Value::String(text)) => Ok(text.into_boxed_str()),
            Some(other) => Err(format!("{field}: expected a string, got {}", kind_of(&other))),
        };
        let (id, name, version) = (text("id")?, text("name")?, text("version")?);
        let metadata = match fields.remove("metadata") {
            None => Metadata::default(),
            Some(value) => metadata_from_value(value).map_err(|e| format!("metadata{e}"))?,
        };
        let endpoints = match fields.remove("endpoints") {
            None | Some(Value::Null) => Box::default(),
            Some(Value::Array(list)) => list
                .into_iter()
                .enumerate()
                .map(|(i, endpoint)| match endpoint {
                    Value::String(text) => Ok(text.into_boxed_str()),
                    Value::Null => Ok(Box::default()),
                    other => Err(format!("endpoints[{i}]: expected a string, got {}", kind_of(&other))),
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(format!("endpoints: expected an array, got {}", kind_of(&other))),
        };
        Ok(Self {
            id,
            name: name.into(),
            version,
            metadata,
            endpoints,
            since: None,
        })
    }
}

/// A record of someone else that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BadRecord {
    /// Where it lies in the registry: key, path or service id.
    pub key: String,
    /// Why it is not a service instance.
    pub reason: String,
}

/// How an instance is written as the value of a key. See section 8 of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// The whole instance, as Go Kratos writes it.
    #[default]
    Kratos,
    /// The bare metadata as a JSON object. Version and endpoints do not travel; name and id are those of the key.
    Metadata,
    /// Any JSON. Its text is the metadata of the empty key, the only one. For programs whose values are not text alone.
    Json,
}

impl Codec {
    /// The value of a record.
    pub fn encode(self, instance: &ServiceInstance) -> String {
        match self {
            Self::Kratos => instance.to_json(),
            Self::Metadata => {
                let mut out = String::with_capacity(64);
                push_json_metadata(&mut out, &instance.metadata);
                out
            }
            Self::Json => instance.metadata.get("").unwrap_or("null").to_owned(),
        }
    }

    /// Reads the record `name`/`id`, which lies at `key` in the registry, as far as it concerns readers of `name`: an
    /// instance, a bad record, or `None` (see [`decode`](Self::decode)).
    pub fn read(
        self,
        name: &Arc<str>,
        id: &str,
        key: &str,
        value: &[u8],
    ) -> Option<Result<ServiceInstance, BadRecord>> {
        let read = self.decode(name, id, value).transpose()?;
        Some(read.map_err(|reason| BadRecord {
            key: key.to_owned(),
            reason,
        }))
    }

    /// Reads the value of the record `name`/`id`. `None` when it is a good record of another name, which a textual
    /// prefix may catch (a Kratos id may contain `/`).
    pub fn decode(self, name: &Arc<str>, id: &str, value: &[u8]) -> Result<Option<ServiceInstance>, String> {
        match self {
            Self::Kratos => {
                let mut instance = ServiceInstance::from_json(value)?;
                if instance.id.is_empty() {
                    instance.id = id.into();
                }
                Ok((instance.name == *name).then(|| {
                    instance.name = name.clone(); // one for the whole list
                    instance
                }))
            }
            Self::Metadata => {
                let value: Value = serde_json::from_slice(value).map_err(|e| format!("not JSON: {e}"))?;
                Ok(Some(ServiceInstance {
                    id: id.into(),
                    name: name.clone(),
                    metadata: metadata_from_value(value).map_err(|e| format!("value{e}"))?,
                    ..ServiceInstance::default()
                }))
            }
            Self::Json => {
                let _: serde::de::IgnoredAny = serde_json::from_slice(value).map_err(|e| format!("not JSON: {e}"))?;
                let text = std::str::from_utf8(value).map_err(|e| format!("not JSON: {e}"))?;
                Ok(Some(ServiceInstance {
                    id: id.into(),
                    name: name.clone(),
                    metadata: [("", text)].into_iter().collect(),
                    ..ServiceInstance::default()
                }))
            }
        }
    }
}

fn metadata_from_value(value: Value) -> Result<Metadata, String> {
    match value {
        Value::Null => Ok(Metadata::default()),
        Value::Object(pairs) => pairs
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key, text)),
                Value::Null => Ok((key, String::new())),
                other => Err(format!("[{key:?}]: expected a string, got {}", kind_of(&other))),
            })
            .collect::<Result<Metadata, _>>(),
        other => Err(format!(": expected an object, got {}", kind_of(&other))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn push_json_metadata(out: &mut String, metadata: &Metadata) {
    out.push('{');
    for (i, (key, value)) in metadata.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_json_string(out, key);
        out.push(':');
        push_json_string(out, value);
    }
    out.push('}');
}

/// A JSON string as Go's `encoding/json` writes it, HTML escaping included.
pub(crate) fn push_json_string(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0}'..='\u{1f}' | '&' | '<' | '>' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32); // writing to a String cannot fail
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Checks that an endpoint is a URL with a host and a usable port. `path` is how the caller calls the argument.
fn validate_endpoint(path: &str, endpoint: &str) -> Result<()> {
    let url = Url::parse(endpoint).map_err(|e| {
        Error::invalid(format!(
            "{path}: expected a URL such as \"grpc://10.0.0.1:9000\", got {endpoint:?} ({e})"
        ))
    })?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Error::invalid(format!(
            "{path}: expected a URL with a host, such as \"grpc://10.0.0.1:9000\", got {endpoint:?}"
        )));
    }
    if url.port() == Some(0) {
        return Err(Error::invalid(format!(
            "{path}: port 0 is no address that others can call; give the port that the server listens on, got {endpoint:?}"
        )));
    }
    if endpoint.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{path}: must not contain control characters")));
    }
    // The parser is a browser's and mends these; that of Go, by which Kratos's clients read, does not.
    if endpoint.trim() != endpoint {
        return Err(Error::invalid(format!(
            "{path}: must not begin or end with a blank, got {endpoint:?}"
        )));
    }
    let authority = endpoint.split_once("://").map_or("", |(_, rest)| rest);
    if authority.is_empty() || authority.starts_with(['/', '\\', '?', '#']) {
        return Err(Error::invalid(format!(
            "{path}: expected the host right after \"://\", as in \"grpc://10.0.0.1:9000\", got {endpoint:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
