//! What keeps the process alive: a strong callback that is never called, while it exists.

use std::sync::Mutex;

use napi::bindgen_prelude::FunctionRef;
use napi::threadsafe_function::ThreadsafeFunction;
use napi::{Env, Result, Status};
use rollcall_core::sync::lock;

type Strong = ThreadsafeFunction<(), (), (), Status, /* callee handles errors: */ false, /* weak: */ false>;

pub struct KeepAlive {
    callback: FunctionRef<(), ()>,
    strong: Mutex<Option<Strong>>,
}

impl KeepAlive {
    pub fn new(callback: FunctionRef<(), ()>) -> Self {
        Self {
            callback,
            strong: Mutex::default(),
        }
    }

    /// From here the process stays alive.
    pub fn hold(&self, env: Env) -> Result<()> {
        let mut strong = lock(&self.strong);
        if strong.is_none() {
            let callback = self.callback.borrow_back(&env)?;
            *strong = Some(callback.build_threadsafe_function::<()>().build()?);
        }
        Ok(())
    }

    /// From here it does not.
    pub fn let_go(&self) {
        *lock(&self.strong) = None;
    }
}
