//! The gate between the pool's caller and its workers: one job at a time for those that come while it is open.
//!
//! Nobody waits for workers that have not come, and none can come once the gate is closed. Workers spin in front of it
//! for some tens of microseconds and then sleep.

use std::sync::PoisonError;

use super::sync::{
    AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, SPINS, UnsafeCell, YIELDS, fence, spin_loop, yield_now,
};

/// Set in [`Gate::state`] while workers may start the current job.
const OPEN: usize = 1 << 16;
/// One job in [`Gate::state`].
const EPOCH: usize = 1 << 17;
/// Most workers that [`Gate::state`] can count.
pub const MAX_WORKERS: usize = OPEN - 1;

/// Hands jobs of type `J` to workers.
pub struct Gate<J> {
    /// Written by the caller before the gate opens, read by workers that have passed it.
    job: UnsafeCell<Option<J>>,
    /// Number of jobs so far, whether the gate is open, and the workers behind it (see [`EPOCH`], [`OPEN`],
    /// [`MAX_WORKERS`]).
    state: AtomicUsize,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    stopped: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is only written while the gate is closed and no worker is counted behind it, and only read by workers that
// have counted themselves in while it was open; both are acquire and release operations on `state`. A job is sent to the
// workers by copy. The rest is Sync.
unsafe impl<J: Copy + Send> Sync for Gate<J> {}

impl<J: Copy + Send> Gate<J> {
    /// A closed gate.
    pub fn new() -> Self {
        Self {
            job: UnsafeCell::new(None),
            state: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Lets workers start `job` until the result is dropped, which waits for those that did.
    ///
    /// # Safety
    /// The gate is not open already, and the result is dropped before anything that `job` refers to goes away.
    pub unsafe fn open(&self, job: J) -> OpenGate<'_, J> {
        // SAFETY: the gate is closed and nobody is behind it (see `Sync`).
        self.job.with_mut(|place| unsafe { *place = Some(job) });
        let epoch = self.state.load(Ordering::Relaxed) / EPOCH;
        self.state.store((epoch.wrapping_add(1) * EPOCH) | OPEN, Ordering::Release);
        self.wake_sleepers();
        OpenGate(self)
    }

    /// Sends all workers home.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake_sleepers();
    }

    /// Whether a worker sleeps or is about to.
    pub fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::Relaxed) > 0
    }

    /// A worker counts itself among the sleepers before it looks at the gate for the last time, with a fence between
    /// them as here. So either it sees the change that was made before this, or this sees the sleeper.
    fn wake_sleepers(&self) {
        fence(Ordering::SeqCst);
        if self.has_sleepers() {
            let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    /// Waits for a job after the `seen`-th, which it counts up, and starts it; `None` when the gate has stopped.
    pub fn enter(&self, seen: &mut usize) -> Option<Entered<'_, J>> {
        loop {
            let state = self.wait(*seen)?;
            *seen = state / EPOCH;
            // Others change the count meanwhile; the gate may close, and even open for the next job.
            let open = *seen * (EPOCH / OPEN) + 1;
            let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| {
                (now / OPEN == open).then_some(now + 1)
            });
            if entered.is_ok() {
                // SAFETY: this worker is counted, so nobody writes the job until it has left (see `Sync`).
                let job = self.job.with(|job| unsafe { *job });
                return job.map(|job| Entered { gate: self, job });
            }
        }
    }

    /// Waits for another job than the `seen`-th and returns the state, or `None` when the gate has stopped.
    fn wait(&self, seen: usize) -> Option<usize> {
        let changed = || {
            let state = self.state.load(Ordering::Acquire);
            (state / EPOCH != seen || self.stopped.load(Ordering::Acquire)).then_some(state)
        };
        let mut state = None;
        for round in 0..SPINS + YIELDS {
            state = changed();
            if state.is_some() {
                break;
            }
            if round < SPINS { spin_loop() } else { yield_now() }
        }
        if state.is_none() {
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                state = changed();
                if state.is_some() {
                    break;
                }
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
            drop(lock);
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }
        state.filter(|_| !self.stopped.load(Ordering::Acquire))
    }
}

/// Closes the gate when dropped, and waits for the workers behind it.
pub struct OpenGate<'a, J>(&'a Gate<J>);

impl<J> Drop for OpenGate<'_, J> {
    fn drop(&mut self) {
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while !state.is_multiple_of(OPEN) {
            // A worker that still runs may need this processor.
            if spins < SPINS {
                spin_loop()
            } else {
                yield_now()
            }
            spins += 1;
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

/// A worker behind the gate; leaves when dropped.
pub struct Entered<'a, J> {
    gate: &'a Gate<J>,
    /// What to do.
    pub job: J,
}

impl<J> Drop for Entered<'_, J> {
    fn drop(&mut self) {
        self.gate.state.fetch_sub(1, Ordering::Release);
    }
}
