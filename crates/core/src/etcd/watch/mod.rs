//! The third floor: watches. [`Watches`](watches::Watches) makes them; the task of all is in `hub`.

pub(in crate::etcd) mod events;
mod hub;
pub mod pack;
pub(in crate::etcd) mod queue;
pub(in crate::etcd) mod request;
pub(in crate::etcd) mod sink;
pub(in crate::etcd) mod subscription;
pub(in crate::etcd) mod watches;
