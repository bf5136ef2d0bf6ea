//! The second floor: one call, or one stream, over the members of the cluster. What lives longer is above.

mod attempt;
pub(in crate::etcd) mod caller;
pub(in crate::etcd) mod exec;
mod group;
pub(in crate::etcd) mod methods;
pub(in crate::etcd) mod metrics;
pub(in crate::etcd) mod stream;
mod tokens;
pub(in crate::etcd) mod tries;

#[cfg(test)]
mod tests;
