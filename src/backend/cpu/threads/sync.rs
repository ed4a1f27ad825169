//! What the gate is made of; `tests/gate.rs` puts loom's versions in its place and explores the interleavings.

use std::cell;

pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
pub use std::sync::{Condvar, Mutex};
pub use std::thread::yield_now;

/// Spins before who waits starts to yield: about 50 µs.
pub const SPINS: usize = 2_000;
/// Yields before a waiting worker sleeps.
pub const YIELDS: usize = 20;

/// A cell with loom's interface.
pub struct UnsafeCell<T>(cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(cell::UnsafeCell::new(value))
    }

    /// For reading.
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// For writing.
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
