//! The etcd backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativeEtcdOptions {
    pub prefix: String,
    #[napi(ts_type = "'kratos' | 'metadata' | 'json'")]
    pub codec: String,
    /// `null` where the registry works on the connection of another client.
    pub connection: Option<NativeEtcdConnection>,
}

#[napi(object, use_nullable = true)]
pub struct NativeEtcdConnection {
    pub hosts: Vec<String>,
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
    use rollcall_core::etcd::{EtcdClient, EtcdOptions};
    use rollcall_core::instance::Codec;
    use rollcall_core::log::Log;
    use rollcall_core::{Error, ErrorKind};

    use super::super::Times;
    use super::NativeEtcdOptions;
    use crate::call::ms;

    impl NativeEtcdOptions {
        /// The backend of these options.
        #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let records = self.records(times);
            let Some(connection) = self.connection else {
                return Err(Error::new(ErrorKind::Internal, "no connection for backend etcd"));
            };
            let options = EtcdOptions {
                hosts: connection.hosts,
                username: connection.username,
                password: connection.password,
                tls: connection.tls.map(Into::into),
                timeout: times.timeout,
                connect_timeout: times.connect,
                keep_alive: ms(connection.keep_alive_ms),
                keep_alive_timeout: ms(connection.keep_alive_timeout_ms),
                max_message_bytes: connection.max_message_bytes as usize,
                ..EtcdOptions::default()
            };
            Ok(Arc::new(EtcdBackend::new(options, &records, log)?))
        }

        /// The backend of these options on the connection of a client.
        pub(in crate::backends) fn open_over(
            self,
            client: &EtcdClient,
            times: Times,
            log: Log,
        ) -> rollcall_core::Result<Arc<dyn Backend>> {
            let records = self.records(times);
            Ok(Arc::new(EtcdBackend::over(client, times.timeout, &records, log)?))
        }

        fn records(&self, times: Times) -> EtcdRecords {
            EtcdRecords {
                codec: match self.codec.as_str() {
                    "metadata" => Codec::Metadata,
                    "json" => Codec::Json,
                    _ => Codec::Kratos,
                },
                prefix: self.prefix.clone(),
                ttl: times.ttl,
            }
        }
    }
}
