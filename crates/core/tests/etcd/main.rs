//! The etcd backend on real servers. Each test starts its own, on free ports, with its data in a temporary folder.
//!
//! The server is `ROLLCALL_ETCD_BIN`, else `servers/bin/etcd`, else `/usr/bin/etcd`. With `CI=true` a missing one is a
//! failure, else the tests pass without having run.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on should say where

mod auth;
mod cluster;
mod doubts;
mod elections;
mod exec;
mod faults;
mod leases;
mod locks;
mod presence;
mod reading;
mod support;
mod tls;
mod watch_queue;
mod watches;
