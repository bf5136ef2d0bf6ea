//! The call loop without etcd.

mod attempts;
mod tokens;
