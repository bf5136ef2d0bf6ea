//! What crosses the boundary for each backend: its options, and how it is opened. A file each, and a cargo feature each,
//! which leaves out the backend and all that it needs.

use std::sync::Arc;
use std::time::Duration;

use napi_derive::napi;
use rollcall_core::backend::Backend;
use rollcall_core::log::Log;
use rollcall_core::registry::RegistryOptions;
use rollcall_core::{Error, ErrorKind};

use crate::call::ms;

// The options are there without their backend, as the declarations of the addon are the same for each build.
#[cfg_attr(not(feature = "bilibili"), allow(dead_code))]
mod bilibili;
#[cfg_attr(not(feature = "consul"), allow(dead_code))]
mod consul;
#[cfg_attr(not(feature = "etcd"), allow(dead_code))]
mod etcd;
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod kubernetes;
#[cfg_attr(not(feature = "memory"), allow(dead_code))]
mod memory;
#[cfg_attr(not(feature = "nacos"), allow(dead_code))]
mod nacos;
#[cfg_attr(not(feature = "polaris"), allow(dead_code))]
mod polaris;
#[cfg_attr(
    not(any(
        feature = "etcd",
        feature = "consul",
        feature = "zookeeper",
        feature = "nacos",
        feature = "polaris"
    )),
    allow(dead_code)
)]
pub mod tls;
#[cfg_attr(not(feature = "zookeeper"), allow(dead_code))]
mod zookeeper;

use self::bilibili::NativeBilibiliOptions;
use self::consul::NativeConsulOptions;
use self::etcd::NativeEtcdOptions;
use self::kubernetes::NativeKubernetesOptions;
use self::memory::NativeMemoryOptions;
use self::nacos::NativeNacosOptions;
use self::polaris::NativePolarisOptions;
use self::zookeeper::NativeZookeeperOptions;

/// What a client is made of; TypeScript has filled in every default.
#[napi(object, use_nullable = true)]
pub struct NativeOptions {
    pub backend: String,
    pub ttl_ms: f64,
    pub connect_timeout_ms: f64,
    pub timeout_ms: f64,
    pub stall_timeout_ms: f64,
    pub empty_grace_ms: f64,
    pub advertise_host: Option<String>,
    #[napi(ts_type = "'debug' | 'info' | 'warn' | 'error' | 'off'")]
    pub log_level: String,
    pub memory: Option<NativeMemoryOptions>,
    pub etcd: Option<NativeEtcdOptions>,
    pub consul: Option<NativeConsulOptions>,
    pub zookeeper: Option<NativeZookeeperOptions>,
    pub nacos: Option<NativeNacosOptions>,
    pub kubernetes: Option<NativeKubernetesOptions>,
    pub bilibili: Option<NativeBilibiliOptions>,
    pub polaris: Option<NativePolarisOptions>,
}

impl NativeOptions {
    pub fn common(&self) -> RegistryOptions {
        RegistryOptions {
            connect_timeout: ms(self.connect_timeout_ms),
            timeout: ms(self.timeout_ms),
            stall_timeout: ms(self.stall_timeout_ms),
            empty_grace: ms(self.empty_grace_ms),
            advertise_host: self.advertise_host.clone(),
        }
    }

    /// The lowest level that JavaScript wants to hear of; `None` is silence.
    pub fn level(&self) -> Option<rollcall_core::log::Level> {
        crate::convert::level(&self.log_level)
    }
}

/// What all backends are given.
#[derive(Clone, Copy)]
#[allow(dead_code)] // each takes what it wants
struct Times {
    ttl: Duration,
    timeout: Duration,
    connect: Duration,
}

/// What all backends are given, of the options of a client.
fn times_of(options: &NativeOptions) -> Times {
    Times {
        ttl: ms(options.ttl_ms),
        timeout: ms(options.timeout_ms),
        connect: ms(options.connect_timeout_ms),
    }
}

/// Opens the backend that the options name. No I/O. Errors: `InvalidArgument`, naming the option; `Unsupported` when this
/// addon was built without it.
pub fn open(options: NativeOptions, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
    let times = times_of(&options);
    let opened = match options.backend.as_str() {
        #[cfg(feature = "memory")]
        "memory" => options.memory.map(|memory| memory.open(times, log)),
        #[cfg(feature = "etcd")]
        "etcd" => options.etcd.map(|etcd| etcd.open(times, log)),
        #[cfg(feature = "consul")]
        "consul" => options.consul.map(|consul| consul.open(times, log)),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => options.zookeeper.map(|zookeeper| zookeeper.open(times, log)),
        #[cfg(feature = "nacos")]
        "nacos" => options.nacos.map(|nacos| nacos.open(times, &log)),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => options.kubernetes.map(|kubernetes| kubernetes.open(times, log)),
        #[cfg(feature = "bilibili")]
        "bilibili" => options.bilibili.map(|bilibili| bilibili.open(times, log)),
        #[cfg(feature = "polaris")]
        "polaris" => options.polaris.map(|polaris| polaris.open(times, &log)),
        other => {
            let text =
                format!("this addon has no backend {other:?}: it was built without the cargo feature of that name");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    };
    opened.unwrap_or_else(|| Err(none_for(&options.backend)))
}

/// Opens etcd's backend on the connection of a client. No I/O. Errors as those of [`open`].
#[cfg(feature = "etcd")]
pub fn open_over(
    client: &rollcall_core::etcd::EtcdClient,
    options: NativeOptions,
    log: Log,
) -> rollcall_core::Result<Arc<dyn Backend>> {
    let times = times_of(&options);
    let Some(etcd) = options.etcd else {
        return Err(none_for("etcd"));
    };
    etcd.open_over(client, times, log)
}

fn none_for(backend: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("no options for backend {backend:?}"))
}
