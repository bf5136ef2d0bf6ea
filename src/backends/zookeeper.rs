//! The ZooKeeper backend.

use napi_derive::napi;

use super::tls::NativeTlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativeZookeeperOptions {
    pub hosts: Vec<String>,
    pub chroot: String,
    pub prefix: String,
    #[napi(ts_type = "'kratos' | 'metadata'")]
    pub codec: String,
    pub username: Option<String>,
    pub password: Option<String>,
    #[napi(ts_type = "'digest' | 'sasl'")]
    pub auth: String,
    #[napi(ts_type = "'anyone' | 'creator' | 'creator-anyone-reads'")]
    pub acl: String,
    pub tls: Option<NativeTlsOptions>,
}

#[cfg(feature = "zookeeper")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::zookeeper::{Authentication, NodeAcl, User, ZookeeperBackend, ZookeeperOptions};
    use rollcall_core::instance::Codec;
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeZookeeperOptions;

    impl NativeZookeeperOptions {
        /// The backend of these options.
        pub(in crate::backends) fn open(self, times: Times, log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            let by = if self.auth == "sasl" {
                Authentication::Sasl
            } else {
                Authentication::Digest
            };
            let options = ZookeeperOptions {
                ttl: times.ttl,
                connect_timeout: times.connect,
                hosts: self.hosts,
                chroot: self.chroot,
                prefix: self.prefix,
                codec: if self.codec == "metadata" {
                    Codec::Metadata
                } else {
                    Codec::Kratos
                },
                user: self
                    .username
                    .zip(self.password)
                    .map(|(name, password)| User { name, password, by }),
                acl: match self.acl.as_str() {
                    "creator" => NodeAcl::Creator,
                    "creator-anyone-reads" => NodeAcl::CreatorAnyoneReads,
                    _ => NodeAcl::Anyone,
                },
                tls: self.tls.map(Into::into),
                ..ZookeeperOptions::default()
            };
            Ok(Arc::new(ZookeeperBackend::new(options, log)?))
        }
    }
}
