//! The Nacos backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativeNacosOptions {
    pub hosts: Vec<String>,
    pub grpc_port: Option<u32>,
    pub context_path: String,
    pub namespace: String,
    pub group: String,
    pub cluster: String,
    #[napi(ts_type = "'kratos' | 'plain'")]
    pub codec: String,
    pub weight: f64,
    pub username: Option<String>,
    pub password: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub region_id: Option<String>,
    pub tls: Option<NativeTlsOptions>,
}

#[cfg(feature = "nacos")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::nacos::{AccessKey, NacosBackend, NacosForm, NacosOptions};
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeNacosOptions;

    impl NativeNacosOptions {
        /// The backend of these options.
        pub(in crate::backends) fn open(self, times: Times, log: &Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let access_key = self.access_key.zip(self.secret_key);
            let region = self.region_id;
            let options = NacosOptions {
                hosts: self.hosts,
                grpc_port: self.grpc_port.and_then(|port| u16::try_from(port).ok()),
                context_path: self.context_path,
                namespace: self.namespace,
                group: self.group,
                cluster: self.cluster,
                form: if self.codec == "plain" {
                    NacosForm::Plain
                } else {
                    NacosForm::Kratos
                },
                weight: self.weight,
                user: self.username.zip(self.password),
                access_key: access_key.map(|(access_key, secret_key)| AccessKey {
                    access_key,
                    secret_key,
                    region,
                }),
                tls: self.tls.map(Into::into),
                ttl: times.ttl,
                timeout: times.timeout,
                connect_timeout: times.connect,
            };
            Ok(Arc::new(NacosBackend::new(options, log)?))
        }
    }
}
