//! What is worked out once and then shared by everybody who holds the same thing.

use std::sync::OnceLock;

/// A value that follows from its neighbours in the same struct. It is no part of what the struct
/// says: equality passes over it, and a copy, which may be changed, works it out anew.
#[derive(Debug)]
pub(crate) struct Memo<T>(OnceLock<T>);

impl<T> Memo<T> {
    pub fn of(value: T) -> Self {
        Self(OnceLock::from(value))
    }

    /// What was worked out, if that was done.
    pub fn known(&self) -> Option<&T> {
        self.0.get()
    }

    pub fn get(&self, work_out: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(work_out)
    }
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Memo<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Memo<T> {}
