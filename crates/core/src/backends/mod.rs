//! The registries: one file or folder each, a cargo feature each.

#[cfg(feature = "bilibili")]
pub mod bilibili;
#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "nacos")]
pub mod nacos;
#[cfg(feature = "polaris")]
pub mod polaris;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;
