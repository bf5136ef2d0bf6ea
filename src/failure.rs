//! Why something failed, as JavaScript is told: one form, whether a promise rejects with it, a handle gives it out, an
//! event brings it, or a page of answers carries it as JSON. `lib/common/failure.ts` reads it, for the errors of
//! `lib/errors.ts` and of `lib/etcd/errors.ts`.

use napi::bindgen_prelude::{FromNapiValue, JsObjectValue, JsValue, Object, ToNapiValue, Unknown};
use napi::{Env, Status};
use napi_derive::napi;
use rollcall_core::Error;
#[cfg(feature = "etcd")]
use rollcall_core::{ErrorKind, etcd::Fault};

/// A failure: what core's error says, and what is known besides where a call of etcd failed.
#[napi(object, object_from_js = false, use_nullable = true)]
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NativeFailure {
    /// One of `ErrorCode`.
    pub code: &'static str,
    pub message: String,
    pub retryable: bool,
    /// The public method; empty where the one who asked names it.
    pub operation: &'static str,
    pub endpoint: Option<String>,
    pub key: Option<String>,
    /// Decimal.
    pub revision: Option<String>,
    /// What lies below, outermost first.
    pub causes: Vec<String>,
    /// The status of gRPC and its text, as the server gave them.
    pub grpc_code: Option<i32>,
    pub details: String,
    /// Of a write: whether it may have been applied all the same.
    pub outcome_unknown: bool,
    /// The members that were asked before, and what came of each.
    pub tried: Vec<NativeTried>,
}

/// What was wrong with one member.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone, serde::Serialize)]
pub struct NativeTried {
    pub host: String,
    pub message: String,
}

impl From<&Error> for NativeFailure {
    fn from(error: &Error) -> Self {
        Self {
            code: error.kind().code(),
            message: error.message().to_owned(),
            retryable: error.is_retryable(),
            operation: error.operation(),
            endpoint: error.endpoint().map(str::to_owned),
            key: error.key().map(str::to_owned),
            revision: error.revision().map(|revision| revision.to_string()),
            causes: error.causes(),
            grpc_code: None,
            details: String::new(),
            outcome_unknown: error.is_outcome_unknown(),
            tried: Vec::new(),
        }
    }
}

#[cfg(feature = "etcd")]
impl From<&Fault> for NativeFailure {
    fn from(fault: &Fault) -> Self {
        // What the transport makes up, such as "2 UNKNOWN: transport error", is no word of the server, and hides the cause.
        let status = fault
            .status()
            .filter(|status| std::error::Error::source(status).is_none());
        // A member that was asked again and again, with the same outcome, is named once.
        let mut tried: Vec<NativeTried> = Vec::new();
        for (host, message) in &fault.tried {
            if !tried.iter().any(|one| &one.host == host && &one.message == message) {
                let (host, message) = (host.clone(), message.clone());
                tried.push(NativeTried { host, message });
            }
        }
        let told = Self::from(&fault.error);
        Self {
            retryable: told.retryable && !fault.outcome_unknown,
            grpc_code: status.map(|status| i32::from(status.code())),
            details: status.map_or_else(String::new, |status| status.message().to_owned()),
            outcome_unknown: fault.outcome_unknown,
            tried,
            ..told
        }
    }
}

impl NativeFailure {
    /// What a call throws or rejects with: an `Error`, since napi throws nothing else as it is, with what is known on it.
    pub fn thrown(self, env: Env) -> napi::Error {
        match self.into_error(env) {
            Ok(error) => error.to_unknown().into(),
            Err(error) => error,
        }
    }

    fn into_error(self, env: Env) -> napi::Result<Object<'static>> {
        let reason = napi::Error::new(Status::GenericFailure, self.message.clone());
        let mut error = Object::from_raw(env.raw(), env.create_error(reason)?.raw());
        let known = Object::from_unknown(self.into_unknown(&env)?)?;
        for name in Object::keys(&known)? {
            error.set_named_property(&name, known.get_named_property::<Unknown>(&name)?)?;
        }
        Ok(error)
    }
}

#[cfg(feature = "etcd")]
impl NativeFailure {
    /// Of a call of a closed client.
    pub fn closed() -> Self {
        Self::from(&Error::new(ErrorKind::Closed, "the client was closed"))
    }

    /// Of a call that nobody waits for any more.
    pub fn given_up() -> Self {
        Self::from(&Error::new(ErrorKind::Aborted, "the operation was aborted"))
    }

    /// As a page of answers carries it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings and numbers: it cannot fail
    }
}

#[cfg(all(test, feature = "etcd"))]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_once_for_each_outcome() {
        let told = |(host, message): (&str, &str)| (host.to_owned(), message.to_owned());
        let tried = [("a", "refused"), ("b", "refused"), ("a", "refused"), ("a", "late")];
        let fault = Fault {
            cause: rollcall_core::etcd::Cause::NotSent,
            error: Error::invalid("no"),
            outcome_unknown: false,
            tried: tried.map(told).to_vec(),
        };
        let told = NativeFailure::from(&fault).tried;
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.host.as_str(), one.message.as_str()))
            .collect();
        assert_eq!(told, [("a", "refused"), ("b", "refused"), ("a", "late")]);
    }

    #[test]
    fn a_page_carries_the_names_that_javascript_reads() {
        let error = Error::new(ErrorKind::Timeout, "no answer")
            .at("http://a:2379")
            .about("/k")
            .of_revision(7)
            .caused_by(std::io::Error::other("below"));
        let json: serde_json::Value = serde_json::from_slice(&NativeFailure::from(&error).to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "code": "ERR_TIMEOUT", "message": "no answer", "retryable": true, "operation": "",
                "endpoint": "http://a:2379", "key": "/k", "revision": "7", "causes": ["below"],
                "grpcCode": null, "details": "", "outcomeUnknown": false, "tried": [],
            })
        );
    }
}
