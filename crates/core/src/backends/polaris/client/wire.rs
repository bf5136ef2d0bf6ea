//! The messages, as far as they are used: <https://github.com/polarismesh/specification/tree/main/api/v1/service_manage>. What
//! may be absent is wrapped there, and an `Option` here.

use std::collections::BTreeMap;

use tonic::codegen::http::uri::PathAndQuery;

/// A service, and in questions what of it is known already.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Service {
    #[prost(message, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub namespace: Option<String>,
    #[prost(message, optional, tag = "15")]
    pub revision: Option<String>,
}

/// A record: a place, which is host and port, of a service.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Instance {
    /// The server makes it of namespace, service, host and port. It is never sent: with one of another place that moves.
    #[prost(message, optional, tag = "1")]
    pub id: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub service: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub namespace: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub host: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub port: Option<u32>,
    #[prost(message, optional, tag = "6")]
    pub protocol: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub version: Option<String>,
    #[prost(message, optional, tag = "9")]
    pub weight: Option<u32>,
    #[prost(message, optional, tag = "10")]
    pub health_check: Option<HealthCheck>,
    #[prost(message, optional, tag = "11")]
    pub healthy: Option<bool>,
    #[prost(message, optional, tag = "12")]
    pub isolate: Option<bool>,
    #[prost(btree_map = "string, string", tag = "14")]
    pub metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "20")]
    pub enable_health_check: Option<bool>,
}

/// By what the server knows that an instance lives.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct HealthCheck {
    /// 1 is heartbeats.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub heartbeat: Option<Heartbeat>,
}

/// How often an instance has to be heard, in seconds.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Heartbeat {
    #[prost(message, optional, tag = "1")]
    pub ttl: Option<u32>,
}

/// The answer to a write or a heartbeat.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub code: Option<u32>,
    #[prost(message, optional, tag = "2")]
    pub info: Option<String>,
}

/// Asks for the instances of a service.
pub(super) const INSTANCES: i32 = 1;
/// Asks for the services of a namespace.
pub(super) const SERVICES: i32 = 6;

/// A question.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DiscoverRequest {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub service: Option<Service>,
}

/// The answer to a question.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DiscoverResponse {
    #[prost(message, optional, tag = "1")]
    pub code: Option<u32>,
    #[prost(message, optional, tag = "2")]
    pub info: Option<String>,
    #[prost(int32, tag = "3")]
    pub r#type: i32,
    #[prost(message, optional, tag = "4")]
    pub service: Option<Service>,
    #[prost(message, repeated, tag = "5")]
    pub instances: Vec<Instance>,
    #[prost(message, repeated, tag = "9")]
    pub services: Vec<Service>,
    /// The service itself, with a revision that its instances don't change.
    #[prost(message, optional, tag = "21")]
    pub alias_for: Option<Service>,
}

/// What is called, of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    Register,
    Deregister,
    Beat,
}

impl Method {
    pub(super) fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Register => "/v1.PolarisGRPC/RegisterInstance",
            Self::Deregister => "/v1.PolarisGRPC/DeregisterInstance",
            Self::Beat => "/v1.PolarisGRPC/Heartbeat",
        })
    }
}

/// The stream of questions.
pub(super) fn discover() -> PathAndQuery {
    PathAndQuery::from_static("/v1.PolarisGRPC/Discover")
}
