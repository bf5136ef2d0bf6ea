//! On leases and watches: elections, locks, and who leads.

pub(in crate::etcd) mod campaign;
pub(in crate::etcd) mod candidate;
pub(in crate::etcd) mod elections;
pub(in crate::etcd) mod line;
pub(in crate::etcd) mod lock;
mod machine;
pub(in crate::etcd) mod observer;
mod queue;
pub(in crate::etcd) mod state;
mod tidy;
