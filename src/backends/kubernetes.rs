//! The backend of Kubernetes.

use napi_derive::napi;

#[napi(object, use_nullable = true)]
pub struct NativeKubernetesOptions {
    pub server: Option<String>,
    pub kubeconfig: Option<String>,
    pub context: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<String>,
    pub ca_file: Option<String>,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    #[napi(ts_type = "'auto' | 'pods' | 'endpointslices'")]
    pub source: String,
    pub selector: Option<String>,
    pub not_ready: bool,
    pub terminating: bool,
    #[napi(ts_type = "'ipv4' | 'ipv6'")]
    pub ip_family: String,
    pub port_name: Option<String>,
    pub watch_timeout_ms: f64,
    pub max_message_bytes: f64,
}

#[cfg(feature = "kubernetes")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::kubernetes::{KubernetesBackend, KubernetesOptions, Source};
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeKubernetesOptions;
    use crate::call::ms;

    impl NativeKubernetesOptions {
        /// The backend of these options.
        #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let options = KubernetesOptions {
                server: self.server,
                kubeconfig: self.kubeconfig.map(Into::into),
                context: self.context,
                token: self.token,
                token_file: self.token_file.map(Into::into),
                ca_file: self.ca_file.map(Into::into),
                namespace: self.namespace,
                pod: self.pod,
                source: match self.source.as_str() {
                    "pods" => Source::Pods,
                    "endpointslices" => Source::Slices,
                    _ => Source::Auto,
                },
                selector: self.selector,
                not_ready: self.not_ready,
                terminating: self.terminating,
                prefers_ipv6: self.ip_family == "ipv6",
                port_name: self.port_name,
                watch_timeout: ms(self.watch_timeout_ms),
                ttl: times.ttl,
                timeout: times.timeout,
                connect_timeout: times.connect,
                max_message_bytes: self.max_message_bytes as usize,
            };
            Ok(Arc::new(KubernetesBackend::new(options, log)?))
        }
    }
}
