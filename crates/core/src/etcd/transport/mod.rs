//! The first floor: one member, its connection, and what is said over it.

pub(in crate::etcd) mod bytes;
pub(in crate::etcd) mod endpoints;
mod link;
pub(in crate::etcd) mod listening;
