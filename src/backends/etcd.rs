//! The etcd backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativeEtcdOptions {
    pub hosts: Vec<String>,
    pub prefix: String,
    #[napi(ts_type = "'kratos' | 'metadata' | 'json'")]
    pub codec: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub tls: Option<NativeTlsOptions>,
    pub keep_alive_ms: f64,
    pub keep_alive_timeout_ms: f64,
    pub max_message_bytes: f64,
}

#[cfg(feature = "etcd")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
    use rollcall_core::etcd::EtcdOptions;
    use rollcall_core::instance::Codec;
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeEtcdOptions;
    use crate::call::ms;

    impl NativeEtcdOptions {
        /// The backend of these options.
        #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let records = EtcdRecords {
                codec: match self.codec.as_str() {
                    "metadata" => Codec::Metadata,
                    "json" => Codec::Json,
                    _ => Codec::Kratos,
                },
                prefix: self.prefix,
                ttl: times.ttl,
            };
            let options = EtcdOptions {
                hosts: self.hosts,
                username: self.username,
                password: self.password,
                tls: self.tls.map(Into::into),
                timeout: times.timeout,
                connect_timeout: times.connect,
                keep_alive: ms(self.keep_alive_ms),
                keep_alive_timeout: ms(self.keep_alive_timeout_ms),
                max_message_bytes: self.max_message_bytes as usize,
                ..EtcdOptions::default()
            };
            Ok(Arc::new(EtcdBackend::new(options, &records, log)?))
        }
    }
}
