//! The messages: <https://github.com/alibaba/nacos/blob/develop/api/src/main/proto/nacos_grpc_service.proto>. The protocol has
//! one, with JSON inside.

use std::collections::HashMap;

use serde_json::Value;
use tonic::codegen::http::uri::PathAndQuery;

/// What every message is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    pub body: Option<Body>,
}

/// What kind of message it is, and whose.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    /// The name of the Java class.
    #[prost(string, tag = "3")]
    pub r#type: String,
    #[prost(map = "string, string", tag = "7")]
    pub headers: HashMap<String, String>,
    #[prost(string, tag = "8")]
    pub client_ip: String,
}

/// `google.protobuf.Any`, whose type is not used.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Body {
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The one unary method.
pub(super) fn request() -> PathAndQuery {
    PathAndQuery::from_static("/Request/request")
}

/// The one stream.
pub(super) fn stream() -> PathAndQuery {
    PathAndQuery::from_static("/BiRequestStream/requestBiStream")
}

impl Payload {
    /// With headers that say whose it is.
    pub(super) fn new(kind: &str, body: &Value, whose: Vec<(&str, String)>) -> Self {
        let mut headers = HashMap::from([("app".to_owned(), "unknown".to_owned())]);
        headers.extend(whose.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Self {
            metadata: Some(Metadata {
                r#type: kind.to_owned(),
                headers,
                client_ip: String::new(),
            }),
            body: Some(Body {
                value: body.to_string().into_bytes(),
            }),
        }
    }

    pub(super) fn kind(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.r#type)
    }

    /// The JSON inside, if it is an object.
    pub(super) fn read(&self) -> Option<Value> {
        let value: Value = serde_json::from_slice(&self.body.as_ref()?.value).ok()?;
        value.is_object().then_some(value)
    }
}
