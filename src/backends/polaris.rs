//! The Polaris backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativePolarisOptions {
    pub hosts: Vec<String>,
    pub namespace: String,
    pub token: Option<String>,
    #[napi(ts_type = "'polaris' | 'registry'")]
    pub layout: String,
    pub weight: u32,
    pub tls: Option<NativeTlsOptions>,
}

#[cfg(feature = "polaris")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::polaris::{PolarisBackend, PolarisLayout, PolarisOptions};
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativePolarisOptions;

    impl NativePolarisOptions {
        /// The backend of these options.
        pub(in crate::backends) fn open(self, times: Times, log: &Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let options = PolarisOptions {
                hosts: self.hosts,
                namespace: self.namespace,
                token: self.token,
                layout: if self.layout == "registry" {
                    PolarisLayout::Registry
                } else {
                    PolarisLayout::Polaris
                },
                weight: self.weight,
                tls: self.tls.map(Into::into),
                ttl: times.ttl,
                timeout: times.timeout,
                connect_timeout: times.connect,
            };
            Ok(Arc::new(PolarisBackend::new(options, log)?))
        }
    }
}
