//! The backend of bilibili's discovery.

use napi_derive::napi;

#[napi(object, use_nullable = true)]
pub struct NativeBilibiliOptions {
    pub hosts: Vec<String>,
    pub zone: String,
    pub env: String,
    pub region: String,
    pub zone_fallback: bool,
    pub discover_nodes: bool,
    pub max_message_bytes: f64,
}

#[cfg(feature = "bilibili")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::bilibili::{BilibiliBackend, BilibiliOptions};
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeBilibiliOptions;

    impl NativeBilibiliOptions {
        /// The backend of these options.
        #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let options = BilibiliOptions {
                ttl: times.ttl,
                timeout: times.timeout,
                connect_timeout: times.connect,
                hosts: self.hosts,
                zone: self.zone,
                env: self.env,
                region: self.region,
                zone_fallback: self.zone_fallback,
                discover_nodes: self.discover_nodes,
                max_message_bytes: self.max_message_bytes as usize,
            };
            Ok(Arc::new(BilibiliBackend::new(options, log)?))
        }
    }
}
