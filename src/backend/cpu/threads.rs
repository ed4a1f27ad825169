//! A persistent pool of threads that share out the tasks of one job at a time, without an allocation.
//!
//! Workers spin for some tens of microseconds between the operations of a step and sleep when nothing follows, so that an
//! idle engine uses no processor time.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, ErrorKind, Result};

/// Spins before a waiting worker starts to yield: about 50 µs.
const SPINS: usize = 2_000;
/// Yields before a waiting worker sleeps.
const YIELDS: usize = 20;

/// What the threads run, given their index; the lifetime is erased while [`ThreadPool::run`] waits for those that started.
type Job = *const (dyn Fn(usize) + Sync);

/// Set in [`Shared::gate`] while workers may start the current job.
const OPEN: usize = 1 << 16;
/// One job in [`Shared::gate`].
const EPOCH: usize = 1 << 17;
/// Most workers that [`Shared::gate`] can count.
const MAX_WORKERS: usize = OPEN - 1;

struct Shared {
    /// Written by the caller of `run` before the gate opens, read by workers that have passed it.
    job: UnsafeCell<Option<Job>>,
    /// Number of jobs published, whether the last one may be started, and the workers that are at it (see [`EPOCH`],
    /// [`OPEN`], [`MAX_WORKERS`]).
    gate: AtomicUsize,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is only written while the gate is closed and no worker is counted in it, and only read by workers that
// have counted themselves in while it was open; both are acquire and release operations on `gate`. The rest is Sync. A
// job is Sync, so a pointer to it may be used from other threads.
unsafe impl Sync for Shared {}
// SAFETY: as above; `Shared` owns nothing bound to a thread.
unsafe impl Send for Shared {}

/// The threads: the caller of [`ThreadPool::run`] is the first, the others wait for jobs.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    exclusive: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `threads` threads, by default one for each processor this process may use (affinity and cgroup quota).
    ///
    /// # Errors
    /// `InvalidArgument` for none, `OutOfMemory` when the system refuses to start a thread.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads = match threads {
            Some(0) => return Err(Error::invalid_argument("a pool needs at least one thread")),
            Some(threads) => threads.min(MAX_WORKERS),
            None => thread::available_parallelism().map_or(1, NonZero::get),
        };
        let mut pool = Self {
            shared: Arc::new(Shared {
                job: UnsafeCell::new(None),
                gate: AtomicUsize::new(0),
                sleepers: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
                lock: Mutex::new(()),
                wake: Condvar::new(),
                panic: Mutex::new(None),
            }),
            workers: Vec::new(),
            exclusive: Mutex::new(()),
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("swebench-cpu-{index}"))
                .spawn(move || shared.work(index))
                .map_err(|source| {
                    Error::new(ErrorKind::OutOfMemory, format!("cannot start thread {index} of {threads}"))
                        .with_source(source)
                        .with_hint("ask for fewer threads")
                })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Number of threads, the caller's included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread_index)` on the caller and on every worker that comes before the caller has finished.
    ///
    /// The caller does not wait for workers that have not started: on a busy machine one may not get a processor for
    /// milliseconds. So the job has to share out its work, and the caller's run must not end before all is handed out.
    /// A panic of any thread is continued on the caller, after the others have finished.
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let _exclusive = ignore_poison(&self.exclusive);
        let shared = &*self.shared;
        // A worker's panic is left over when the caller's own came first.
        ignore_poison(&shared.panic).take();
        // SAFETY: only the lifetime changes. `CloseGate` keeps this call from ending, by return or by panic, while a
        // worker is at the job, and no other worker can start it afterwards.
        let erased =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job) };
        // SAFETY: the gate is closed and nobody is behind it (see `Shared`).
        unsafe { *shared.job.get() = Some(erased) };
        let epoch = shared.gate.load(Ordering::Relaxed) / EPOCH;
        shared.publish(|| shared.gate.store((epoch.wrapping_add(1) * EPOCH) | OPEN, Ordering::SeqCst));
        let close = CloseGate(shared);
        job(0);
        drop(close);
        if let Some(payload) = ignore_poison(&shared.panic).take() {
            resume_unwind(payload);
        }
    }

    /// Calls `task(thread_index, index)` for every index below `count`; threads take the next index when they are free.
    pub fn for_each(&self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if count <= 1 {
            return (0..count).for_each(|index| task(0, index));
        }
        let next = AtomicUsize::new(0);
        self.run(&|thread| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                task(thread, index);
            }
        });
    }

    /// Calls `task` with ranges that cover `0..count`: one on the caller when `count · cost` elements are too few to be
    /// worth waking the others.
    pub fn for_ranges(&self, count: usize, cost: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        /// Elements that a thread touches in the time that handing out a job takes.
        const WORTH_SHARING: usize = 32_768;
        if count.saturating_mul(cost) < WORTH_SHARING || count == 1 {
            return task(0..count);
        }
        // Several ranges a thread, so that one that was held up does not hold up the others.
        let ranges = (4 * self.num_threads()).min(count);
        self.for_each(ranges, &|_, index| {
            task(count * index / ranges..count * (index + 1) / ranges);
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.publish(|| self.shared.stop.store(true, Ordering::SeqCst));
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a job, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Makes a change visible that workers wait for, and wakes those asleep.
    fn publish(&self, change: impl FnOnce()) {
        change();
        // A worker counts itself among the sleepers before it looks at the gate for the last time. In the single order
        // of these operations either it sees the change or this sees the sleeper.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _lock = ignore_poison(&self.lock);
            self.wake.notify_all();
        }
    }

    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(gate) = self.wait_for_job(seen) {
            seen = gate / EPOCH;
            // Others change the count meanwhile; the gate may close, and even open for the next job.
            let entered = self.gate.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| {
                (now / OPEN == seen * (EPOCH / OPEN) + 1).then_some(now + 1)
            });
            if entered.is_err() {
                continue;
            }
            // SAFETY: this worker is counted in the gate, so the job is there until it has left (see `Shared`).
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(job) = job
                && let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(index)))
            {
                *ignore_poison(&self.panic) = Some(payload);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for another job than the `seen`-th and returns the gate, or nothing when the pool ends.
    fn wait_for_job(&self, seen: usize) -> Option<usize> {
        let changed = || {
            let gate = self.gate.load(Ordering::SeqCst);
            (gate / EPOCH != seen || self.stop.load(Ordering::SeqCst)).then_some(gate)
        };
        let mut gate = None;
        for round in 0..SPINS + YIELDS {
            gate = changed();
            if gate.is_some() {
                break;
            }
            if round < SPINS { spin_loop() } else { thread::yield_now() }
        }
        if gate.is_none() {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let mut lock = ignore_poison(&self.lock);
            loop {
                gate = changed();
                if gate.is_some() {
                    break;
                }
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
            drop(lock);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        gate.filter(|_| !self.stop.load(Ordering::SeqCst))
    }
}

/// Closes the gate when dropped, and waits for the workers behind it.
struct CloseGate<'a>(&'a Shared);

impl Drop for CloseGate<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while !gate.is_multiple_of(OPEN) {
            // A worker that still runs may need this processor.
            if spins < SPINS {
                spin_loop()
            } else {
                thread::yield_now()
            }
            spins += 1;
            gate = self.0.gate.load(Ordering::Acquire);
        }
    }
}

/// The guarded values stay valid when a holder panics: they are replaced whole.
fn ignore_poison<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mutable slice that several threads write disjoint parts of.
pub struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out parts of a `&mut [T]`, which may be sent when T may; `range` makes disjointness the caller's duty.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    /// Shares `slice`.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// Parts that are in use at the same time do not overlap.
    #[expect(clippy::mut_from_ref, reason = "handing out disjoint parts is its purpose")]
    #[inline(always)]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The first element, for strided writes.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut T {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once_and_every_thread_runs() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new(Some(threads)).unwrap();
            let mut counts = vec![0_u32; 1000];
            let shared = SharedSlice::new(&mut counts);
            for round in 0..200 {
                // SAFETY: every index is handed out once.
                pool.for_each(1000 - round, &|_, index| unsafe { shared.range(index..index + 1)[0] += 1 });
            }
            for (index, count) in counts.iter().enumerate() {
                assert_eq!(*count as usize, 200.min(1000 - index), "{index}");
            }
        }
    }

    #[test]
    fn every_thread_takes_part() {
        let pool = ThreadPool::new(Some(4)).unwrap();
        let arrived = AtomicUsize::new(0);
        // Each holds one task until all four have one.
        pool.for_each(4, &|thread, _| {
            arrived.fetch_add(1 << (8 * thread), Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) != 0x0101_0101 {
                thread::yield_now();
            }
        });
    }

    #[test]
    fn ranges_cover_the_count() {
        let pool = ThreadPool::new(Some(3)).unwrap();
        for (count, cost) in [(0, 1), (1, 1 << 20), (5, 1 << 20), (1000, 1), (1000, 1000)] {
            let covered = Mutex::new(vec![0; count]);
            pool.for_ranges(count, cost, &|range| {
                covered.lock().unwrap()[range].iter_mut().for_each(|count| *count += 1);
            });
            assert!(covered.into_inner().unwrap().iter().all(|&count| count == 1), "{count} {cost}");
        }
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let pool = ThreadPool::new(Some(2)).unwrap();
        while pool.shared.sleepers.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let woken = AtomicBool::new(false);
        pool.for_each(2, &|thread, _| {
            if thread == 0 {
                while !woken.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
            }
            woken.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(Some(3)).unwrap();
        for guilty in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(3, &|_, index| assert_ne!(index, guilty, "planted"));
            }));
            assert!(result.is_err());
            let ran = AtomicUsize::new(0);
            pool.for_each(100, &|_, _| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 100);
        }
    }

    #[test]
    fn a_pool_of_nothing_is_refused() {
        assert!(ThreadPool::new(Some(0)).is_err());
    }
}
