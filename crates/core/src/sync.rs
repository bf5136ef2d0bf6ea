//! How everybody here locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks without poisoning: nothing panics while holding one of our locks, and if it did, the data is still whole. Never
/// held across an await.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
