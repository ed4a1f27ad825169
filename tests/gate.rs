//! Explores the interleavings of the CPU pool's gate with loom: races, jobs that outlive their call, lost wake-ups.
#![allow(clippy::undocumented_unsafe_blocks, reason = "the test exists to find where these are unsound")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Condvar, Mutex};
    pub use loom::thread::yield_now;

    /// Once is as good as many times: only the order counts.
    pub const SPINS: usize = 1;
    pub const YIELDS: usize = 0;
}

#[path = "../src/backend/cpu/threads/gate.rs"]
mod gate;

use gate::Gate;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sync::UnsafeCell;

/// A gate, and what its jobs refer to.
struct Shared {
    gate: Gate<usize>,
    /// Read by workers at job `i`, written by the caller when job `i` is over: loom reports a worker that is still at it.
    values: [UnsafeCell<usize>; 2],
    arrived: AtomicUsize,
}

unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

/// All interleavings of one worker, and those of more with few preemptions, in which most mistakes show.
fn explore(workers: usize, caller: impl Fn(&Shared) + Send + Sync + 'static) {
    assert!(workers <= gate::MAX_WORKERS);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(if workers == 1 { 3 } else { 1 });
    model.check(move || {
        let shared = Arc::new(Shared {
            gate: Gate::new(),
            values: [UnsafeCell::new(0), UnsafeCell::new(0)],
            arrived: AtomicUsize::new(0),
        });
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut seen = 0;
                    while let Some(entered) = shared.gate.enter(&mut seen) {
                        let value = shared.values[entered.job].with(|value| unsafe { *value });
                        assert_eq!(value, 7 * (entered.job + 1), "what the caller wrote before it opened");
                        shared.arrived.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        caller(&shared);
        shared.gate.stop();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Job `index`: its value is there while it runs and gone afterwards.
fn run(shared: &Shared, index: usize, meanwhile: impl FnOnce()) {
    shared.values[index].with_mut(|value| unsafe { *value = 7 * (index + 1) });
    let open = unsafe { shared.gate.open(index) };
    meanwhile();
    drop(open);
    shared.values[index].with_mut(|value| unsafe { *value = 0 });
}

#[test]
fn a_job_is_over_when_its_gate_is_dropped() {
    for workers in [1, 2] {
        explore(workers, |shared| {
            run(shared, 0, || ());
            run(shared, 1, || ());
        });
    }
}

#[test]
fn a_worker_that_is_waited_for_comes() {
    explore(1, |shared| {
        run(shared, 0, || {
            while shared.arrived.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
        });
    });
}

#[test]
fn workers_that_never_had_a_job_go_home() {
    explore(2, |_| ());
}
