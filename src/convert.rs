//! Values that cross the boundary. Options and instances come in as plain objects; lists go out built field by field.

use std::collections::HashMap;

use napi::bindgen_prelude::{Array, JsObjectValue, Object, ToNapiValue};
use napi::{Env, JsString, JsValue, Property, Result, sys};
use napi_derive::napi;
use rollcall_core::ServiceInstance;
use rollcall_core::instance::Endpoints;
use rollcall_core::log::Level;
use rollcall_core::watch::List;

/// A service instance on its way in. An empty `id` asks for a new one.
#[napi(object)]
pub struct NativeInstance {
    pub id: String,
    pub name: String,
    pub version: String,
    pub metadata: HashMap<String, String>,
    pub endpoints: Vec<String>,
    /// Of lists only.
    pub since: Option<f64>,
}

impl From<NativeInstance> for ServiceInstance {
    fn from(instance: NativeInstance) -> Self {
        Self {
            id: instance.id.into(),
            name: instance.name.into(),
            version: instance.version.into(),
            metadata: instance.metadata.into_iter().collect(),
            endpoints: boxed(instance.endpoints),
            since: None,
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
    if let Some(since) = instance.since {
        #[allow(clippy::cast_precision_loss)] // exact to 2^53 ms
        object.set_named_property("since", since.get() as f64)?;
    }
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
    let mut names = LastString::default();
    let mut versions = LastString::default();
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
struct LastString<'env, 'a>(Option<(&'a str, JsString<'env>)>);

impl<'env, 'a> LastString<'env, 'a> {
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
