//! The third floor: leases. [`Leases`](leases::Leases) makes them, a [`Lease`](lease::Lease) is one that is kept, a
//! [`Session`](session::Session) one from the moment it is wanted. The task of all is in `keeper`.

mod book;
mod dial;
mod door;
mod keeper;
#[allow(clippy::module_inception)] // the lease among what leases are made of
pub(in crate::etcd) mod lease;
pub(in crate::etcd) mod leases;
pub(in crate::etcd) mod session;
pub(in crate::etcd) mod slot;
