//! A persistent pool of threads that share out the tasks of one job at a time, without an allocation.
//!
//! Workers spin for some tens of microseconds between the operations of a step and sleep when nothing follows, so that an
//! idle engine uses no processor time. They are not pinned: on a machine that others use too, a pinned worker waits for
//! its processor while another one is free.

mod gate;
mod sync;

use std::any::Any;
use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use self::gate::{Gate, MAX_WORKERS};
use crate::error::{Error, ErrorKind, Result};

/// What the threads run, given their index; the lifetime is erased while [`ThreadPool::run`] waits for those that started.
type Job = &'static (dyn Fn(usize) + Sync);

struct Shared {
    gate: Gate<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

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
            shared: Arc::new(Shared { gate: Gate::new(), panic: Mutex::new(None) }),
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
        // SAFETY: only the lifetime changes. Until `open` is dropped, by return or by panic, this call lasts, and then no
        // worker is at the job and none can start it.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: the lock lets one caller at a time open the gate.
        let open = unsafe { shared.gate.open(erased) };
        job(0);
        drop(open);
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
        self.shared.gate.stop();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a job, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(entered) = self.gate.enter(&mut seen) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (entered.job)(index))) {
                *ignore_poison(&self.panic) = Some(payload);
            }
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
    use std::sync::atomic::AtomicBool;

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
        while !pool.shared.gate.has_sleepers() {
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
