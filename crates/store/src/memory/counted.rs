//! What all devices together may have.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

/// A part of a device that counts in a bound of all devices.
pub(super) trait Counts {
    /// How much.
    fn count(&self) -> usize;
}

/// Such a part, locked; what it counts more or less afterwards goes into the total.
pub(super) struct Counted<'a, T: Counts> {
    part: MutexGuard<'a, T>,
    before: usize,
    total: &'a AtomicUsize,
}

impl<'a, T: Counts> Counted<'a, T> {
    pub(super) fn lock(part: &'a Mutex<T>, total: &'a AtomicUsize) -> Self {
        let part = part.lock();
        let before = part.count();
        Self {
            part,
            before,
            total,
        }
    }
}

impl<T: Counts> Deref for Counted<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T: Counts> DerefMut for Counted<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.part
    }
}

impl<T: Counts> Drop for Counted<'_, T> {
    fn drop(&mut self) {
        let after = self.part.count();
        if after >= self.before {
            let more = after - self.before;
            self.total.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = self.before - after;
            self.total.fetch_sub(less, Ordering::Relaxed);
        }
    }
}
