//! The embedded registry: its options, and the registry itself, for demos and people's own tests.

use napi_derive::napi;

#[napi(object)]
pub struct NativeMemoryOptions {
    pub namespace: String,
}

#[cfg(feature = "memory")]
mod opening {
    use std::sync::Arc;

    use rollcall_core::backend::Backend;
    use rollcall_core::backends::memory::MemoryBackend;
    use rollcall_core::log::Log;

    use super::super::Times;
    use super::NativeMemoryOptions;

    impl NativeMemoryOptions {
        /// The backend of these options.
        #[allow(clippy::unnecessary_wraps)] // as the others
        pub(in crate::backends) fn open(self, times: Times, _log: Log) -> rollcall_core::Result<Arc<dyn Backend>> {
            Ok(Arc::new(MemoryBackend::new(&self.namespace, times.ttl)))
        }
    }
}

#[cfg(feature = "memory")]
mod server {
    use std::sync::Arc;

    use napi_derive::napi;
    use rollcall_core::backends::memory::MemoryServer;

    /// The embedded registry itself.
    #[napi]
    pub struct MemoryServerHandle {
        server: Arc<MemoryServer>,
    }

    #[napi]
    impl MemoryServerHandle {
        #[napi(factory, catch_unwind)]
        pub fn of(namespace: String) -> Self {
            Self {
                server: MemoryServer::of(&namespace),
            }
        }

        #[napi(catch_unwind)]
        pub fn crash(&self, name: String, id: String) -> bool {
            self.server.crash(&name, &id)
        }

        #[napi(catch_unwind)]
        pub fn expire(&self, name: String, id: String) -> bool {
            self.server.expire(&name, &id)
        }

        #[napi(catch_unwind)]
        pub fn set_away(&self, away: bool) {
            self.server.set_away(away);
        }

        #[napi(catch_unwind)]
        pub fn wipe(&self) {
            self.server.wipe();
        }

        #[napi(catch_unwind)]
        pub fn put(&self, name: String, id: String, value: String) {
            self.server.put(&name, &id, &value);
        }

        #[napi(catch_unwind)]
        pub fn remove(&self, name: String, id: String) -> bool {
            self.server.remove(&name, &id)
        }
    }
}
