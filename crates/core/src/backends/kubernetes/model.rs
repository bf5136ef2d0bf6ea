//! What is read of the objects of Kubernetes: only the fields that are needed, and each of them may be missing or null.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::or_null;

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(deserialize_with = "or_null")]
    pub name: String,
    #[serde(deserialize_with = "or_null")]
    pub namespace: String,
    #[serde(deserialize_with = "or_null")]
    pub uid: String,
    #[serde(deserialize_with = "or_null")]
    pub resource_version: String,
    #[serde(deserialize_with = "or_null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
    pub deletion_timestamp: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Pod {
    #[serde(deserialize_with = "or_null")]
    pub metadata: Meta,
    #[serde(deserialize_with = "or_null")]
    pub spec: PodSpec,
    #[serde(deserialize_with = "or_null")]
    pub status: PodStatus,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct PodSpec {
    #[serde(deserialize_with = "or_null")]
    pub containers: Vec<Container>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Container {
    #[serde(deserialize_with = "or_null")]
    pub ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct ContainerPort {
    #[serde(deserialize_with = "or_null")]
    pub name: String,
    #[serde(rename = "containerPort", deserialize_with = "or_null")]
    pub port: u32,
    #[serde(deserialize_with = "or_null")]
    pub protocol: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct PodStatus {
    #[serde(deserialize_with = "or_null")]
    pub phase: String,
    #[serde(rename = "podIP", deserialize_with = "or_null")]
    pub ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_null")]
    pub ips: Vec<PodIp>,
    #[serde(deserialize_with = "or_null")]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct PodIp {
    #[serde(deserialize_with = "or_null")]
    pub ip: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type", deserialize_with = "or_null")]
    pub kind: String,
    #[serde(deserialize_with = "or_null")]
    pub status: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    #[serde(deserialize_with = "or_null")]
    pub metadata: Meta,
    #[serde(deserialize_with = "or_null")]
    pub address_type: String,
    #[serde(deserialize_with = "or_null")]
    pub ports: Vec<SlicePort>,
    #[serde(deserialize_with = "or_null")]
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SlicePort {
    #[serde(deserialize_with = "or_null")]
    pub name: String,
    pub port: Option<u32>,
    #[serde(deserialize_with = "or_null")]
    pub app_protocol: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SliceEndpoint {
    #[serde(deserialize_with = "or_null")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub conditions: Conditions,
    #[serde(deserialize_with = "or_null")]
    pub target_ref: Target,
    #[serde(deserialize_with = "or_null")]
    pub node_name: String,
    #[serde(deserialize_with = "or_null")]
    pub zone: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Target {
    #[serde(deserialize_with = "or_null")]
    pub name: String,
    #[serde(deserialize_with = "or_null")]
    pub uid: String,
}

/// An object of which only the head is read.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Head {
    #[serde(deserialize_with = "or_null")]
    pub metadata: Meta,
}

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page {
    pub metadata: PageMeta,
    #[serde(default, deserialize_with = "or_null")]
    pub items: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub resource_version: String,
    #[serde(rename = "continue", default, deserialize_with = "or_null")]
    pub next: String,
}

/// One line of a watch.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// What the server says of a call that failed.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Status {
    #[serde(deserialize_with = "or_null")]
    pub code: u16,
    #[serde(deserialize_with = "or_null")]
    pub kind: String,
    #[serde(deserialize_with = "or_null")]
    pub reason: String,
    #[serde(deserialize_with = "or_null")]
    pub message: String,
}
