//! The Consul backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
#[allow(clippy::struct_excessive_bools)] // mirrors the public type
pub struct NativeConsulOptions {
    pub hosts: Vec<String>,
    pub token: Option<String>,
    pub datacenter: Option<String>,
    pub namespace: Option<String>,
    pub partition: Option<String>,
    pub tls: Option<NativeTlsOptions>,
    #[napi(ts_type = "'off' | 'tcp' | 'http' | 'grpc'")]
    pub health_check: String,
    pub health_check_path: String,
    pub health_check_interval_ms: f64,
    pub health_check_timeout_ms: f64,
    pub heartbeat: bool,
    pub deregister_critical_after_ms: f64,
    pub tags: Vec<String>,
    /// While its checks pass, and while they warn.
    #[napi(ts_type = "[passing: number, warning: number]")]
    pub weights: Option<Vec<u32>>,
    pub passing_only: bool,
    #[napi(ts_type = "'default' | 'stale' | 'consistent'")]
    pub consistency: String,
    pub near: Option<String>,
    pub filter: Option<String>,
    pub wait_ms: f64,
    pub max_watch_connections: u32,
    pub max_message_bytes: f64,
}

#[cfg(feature = "consul")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::consul::{Consistency, ConsulBackend, ConsulOptions, HealthCheck};
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeConsulOptions;
    use crate::call::ms;

    impl NativeConsulOptions {
        /// The backend of these options.
        #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let options = ConsulOptions {
                ttl: times.ttl,
                timeout: times.timeout,
                connect_timeout: times.connect,
                hosts: self.hosts,
                token: self.token,
                datacenter: self.datacenter,
                namespace: self.namespace,
                partition: self.partition,
                tls: self.tls.map(Into::into),
                health_check: match self.health_check.as_str() {
                    "off" => HealthCheck::Off,
                    "http" => HealthCheck::Http,
                    "grpc" => HealthCheck::Grpc,
                    _ => HealthCheck::Tcp,
                },
                health_check_path: self.health_check_path,
                health_check_interval: ms(self.health_check_interval_ms),
                health_check_timeout: ms(self.health_check_timeout_ms),
                heartbeat: self.heartbeat,
                deregister_critical_after: ms(self.deregister_critical_after_ms),
                tags: self.tags,
                weights: match self.weights.as_deref() {
                    Some(&[passing, warning]) => Some((passing, warning)),
                    _ => None,
                },
                passing_only: self.passing_only,
                consistency: match self.consistency.as_str() {
                    "stale" => Consistency::Stale,
                    "consistent" => Consistency::Consistent,
                    _ => Consistency::Default,
                },
                near: self.near,
                filter: self.filter,
                wait: ms(self.wait_ms),
                max_watch_connections: self.max_watch_connections as usize,
                max_message_bytes: self.max_message_bytes as usize,
            };
            Ok(Arc::new(ConsulBackend::new(options, log)?))
        }
    }
}
