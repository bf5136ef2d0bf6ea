//! Values that cross the boundary. Options and instances come in as plain objects; lists go out built field by field.

use std::collections::HashMap;

use napi::bindgen_prelude::{Array, Buffer, JsObjectValue, Object, ToNapiValue};
use napi::{Env, JsString, JsValue, Property, Result, sys};
use napi_derive::napi;
use rollcall_core::ServiceInstance;
use rollcall_core::backends::consul::{Consistency, ConsulOptions, HealthCheck};
use rollcall_core::etcd::TlsOptions;
use rollcall_core::instance::Endpoints;
use rollcall_core::log::Level;
use rollcall_core::registry::RegistryOptions;
use rollcall_core::watch::List;

use crate::call::ms;

/// A service instance on its way in. An empty `id` asks for a new one.
#[napi(object)]
pub struct NativeInstance {
    pub id: String,
    pub name: String,
    pub version: String,
    pub metadata: HashMap<String, String>,
    pub endpoints: Vec<String>,
}

impl From<NativeInstance> for ServiceInstance {
    fn from(instance: NativeInstance) -> Self {
        Self {
            id: instance.id.into(),
            name: instance.name.into(),
            version: instance.version.into(),
            metadata: instance.metadata.into_iter().collect(),
            endpoints: boxed(instance.endpoints),
        }
    }
}

/// Endpoints on their way in.
pub fn boxed(endpoints: Vec<String>) -> Endpoints {
    endpoints.into_iter().map(Into::into).collect()
}

/// A service instance on its way out: `NativeInstance`.
pub fn to_object<'env>(env: &'env Env, instance: &ServiceInstance) -> Result<Object<'env>> {
    let (name, version) = (
        env.create_string(&instance.name)?,
        env.create_string(&instance.version)?,
    );
    object(env, instance, name, version)
}

fn object<'env>(
    env: &'env Env,
    instance: &ServiceInstance,
    name: JsString<'env>,
    version: JsString<'env>,
) -> Result<Object<'env>> {
    let mut metadata = Object::new(env)?;
    for (key, value) in instance.metadata.iter() {
        if key == "__proto__" {
            // Set like any other it would reach the setter of Object.prototype and be lost.
            let value = env.create_string(value)?;
            metadata.define_properties(&[Property::new().with_utf8_name(key)?.with_value(&value)])?;
        } else {
            metadata.set(key, value)?;
        }
    }
    let mut object = Object::new(env)?;
    object.set_named_property("id", &*instance.id)?;
    object.set_named_property("name", name)?;
    object.set_named_property("version", version)?;
    object.set_named_property("metadata", metadata)?;
    object.set_named_property(
        "endpoints",
        instance.endpoints.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
    )?;
    Ok(object)
}

/// Instances on their way out: `NativeInstance[]`.
pub struct ListOut(pub List);

/// Builds the array of some instances. Equal names and versions, which fill a list, become one JavaScript string.
pub fn to_array<'env, 'a>(
    env: &'env Env,
    instances: impl ExactSizeIterator<Item = &'a ServiceInstance>,
) -> Result<Array<'env>> {
    let mut array = env.create_array(u32::try_from(instances.len()).unwrap_or(u32::MAX))?;
    let mut names = Shared::default();
    let mut versions = Shared::default();
    for (i, instance) in (0u32..).zip(instances) {
        let (name, version) = (
            names.string(env, &instance.name)?,
            versions.string(env, &instance.version)?,
        );
        array.set(i, object(env, instance, name, version)?)?;
    }
    Ok(array)
}

/// The last string made, which is often the next one as well.
#[derive(Default)]
struct Shared<'env, 'a>(Option<(&'a str, JsString<'env>)>);

impl<'env, 'a> Shared<'env, 'a> {
    fn string(&mut self, env: &'env Env, text: &'a str) -> Result<JsString<'env>> {
        if let Some((last, string)) = self.0
            && last == text
        {
            return Ok(string);
        }
        let string = env.create_string(text)?;
        self.0 = Some((text, string));
        Ok(string)
    }
}

impl ToNapiValue for ListOut {
    #[allow(unsafe_code)] // the trait's signature
    unsafe fn to_napi_value(raw: sys::napi_env, list: Self) -> Result<sys::napi_value> {
        let env = Env::from_raw(raw);
        Ok(to_array(&env, list.0.iter().map(AsRef::as_ref))?.raw())
    }
}

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
}

#[napi(object)]
pub struct NativeMemoryOptions {
    pub namespace: String,
}

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

#[napi(object, use_nullable = true)]
pub struct NativeTlsOptions {
    pub ca: Option<Buffer>,
    pub cert: Option<Buffer>,
    pub key: Option<Buffer>,
    pub server_name: Option<String>,
    /// The files that `ca`, `cert` and `key` were read from, to be read again.
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
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
    pub fn level(&self) -> Option<Level> {
        level(&self.log_level)
    }
}

/// A level by its name; `None` is silence.
pub fn level(name: &str) -> Option<Level> {
    match name {
        "debug" => Some(Level::Debug),
        "info" => Some(Level::Info),
        "warn" => Some(Level::Warn),
        "error" => Some(Level::Error),
        _ => None,
    }
}

impl From<NativeConsulOptions> for ConsulOptions {
    #[allow(clippy::cast_sign_loss)] // TypeScript has checked the range
    fn from(options: NativeConsulOptions) -> Self {
        Self {
            hosts: options.hosts,
            token: options.token,
            datacenter: options.datacenter,
            namespace: options.namespace,
            partition: options.partition,
            tls: options.tls.map(TlsOptions::from),
            health_check: match options.health_check.as_str() {
                "off" => HealthCheck::Off,
                "http" => HealthCheck::Http,
                "grpc" => HealthCheck::Grpc,
                _ => HealthCheck::Tcp,
            },
            health_check_path: options.health_check_path,
            health_check_interval: ms(options.health_check_interval_ms),
            health_check_timeout: ms(options.health_check_timeout_ms),
            heartbeat: options.heartbeat,
            deregister_critical_after: ms(options.deregister_critical_after_ms),
            tags: options.tags,
            weights: match options.weights.as_deref() {
                Some(&[passing, warning]) => Some((passing, warning)),
                _ => None,
            },
            passing_only: options.passing_only,
            consistency: match options.consistency.as_str() {
                "stale" => Consistency::Stale,
                "consistent" => Consistency::Consistent,
                _ => Consistency::Default,
            },
            near: options.near,
            filter: options.filter,
            wait: ms(options.wait_ms),
            max_watch_connections: options.max_watch_connections as usize,
            max_message_bytes: options.max_message_bytes as usize,
            ..Self::default()
        }
    }
}

impl From<NativeTlsOptions> for TlsOptions {
    fn from(tls: NativeTlsOptions) -> Self {
        Self {
            ca: tls.ca.map(Into::into),
            cert: tls.cert.map(Into::into),
            key: tls.key.map(Into::into),
            server_name: tls.server_name,
            ca_file: tls.ca_file.map(Into::into),
            cert_file: tls.cert_file.map(Into::into),
            key_file: tls.key_file.map(Into::into),
        }
    }
}
