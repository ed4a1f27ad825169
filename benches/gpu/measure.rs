//! Timing by device events, over inputs that take turns so that none is still in L2 when its turn comes again.

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::DType;
use swebench_infer::backend::cuda::{Buffer, CudaDevice, Element, Launcher, Timer};
use swebench_infer::error::Result;

/// Rounds of a measurement: the median counts.
const ROUNDS: usize = 9;

/// What a round takes at least, so that events' resolution and launches do not matter.
const ROUND_SECONDS: f64 = 0.01;

/// Bytes of the copy that states the memory's rate.
const COPY_BYTES: usize = 1 << 30;

/// A device and its clock.
pub struct Bench {
    pub device: Arc<CudaDevice>,
    pub launcher: Arc<dyn Launcher>,
    timer: Timer,
}

impl Bench {
    pub fn new(device: Arc<CudaDevice>) -> Result<Self> {
        let timer = Timer::new(&device)?;
        Ok(Self { launcher: device.clone(), device, timer })
    }

    /// How many inputs of `bytes` take turns: four times what L2 holds.
    pub fn turns(&self, bytes: usize) -> usize {
        (4 * self.launcher.properties().l2_bytes).div_ceil(bytes.max(1)).clamp(2, 64)
    }

    /// Median seconds of `work(turn)`, which launches once on the inputs of that turn.
    pub fn seconds(&self, turns: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<f64> {
        let mut run = |launches: usize| {
            let seconds = self.timer.seconds(|| (0..launches).try_for_each(|launch| work(launch % turns)))?;
            Ok(seconds / launches as f64)
        };
        run(turns)?;
        let once = run(turns)?;
        let launches = ((ROUND_SECONDS / once).ceil() as usize).clamp(turns, 10_000);
        let mut rounds = (0..ROUNDS).map(|_| run(launches)).collect::<Result<Vec<_>>>()?;
        rounds.sort_by(f64::total_cmp);
        Ok(rounds[ROUNDS / 2])
    }

    /// Bytes a second, read and written, of the device's own copy.
    pub fn copy_bandwidth(&self) -> Result<f64> {
        let [from, to] = [(); 2].map(|()| Buffer::zeroed(&self.launcher, Element::E4m3, COPY_BYTES));
        let (from, to) = (from?, to?);
        let seconds = self.seconds(2, |_| self.device.copy(&from.vector(), &to.vector()))?;
        Ok(2.0 * COPY_BYTES as f64 / seconds)
    }

    /// `len` random bf16 numbers in [-1, 1).
    pub fn random(&self, len: usize) -> Result<Buffer> {
        // A pattern of this length repeated: the kernels' speed depends on no value.
        const PATTERN: usize = 1 << 16;
        let mut state = 1_u64;
        let pattern: Vec<bf16> = (0..PATTERN.min(len))
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bf16::from_f32((state >> 33) as f32 / (1_u64 << 30) as f32 - 1.0)
            })
            .collect();
        let values: Vec<bf16> = pattern.iter().copied().cycle().take(len).collect();
        Buffer::from_slice(&self.launcher, &values)
    }

    /// `len` zeros in f32.
    pub fn zeros(&self, len: usize) -> Result<Buffer> {
        Buffer::zeroed(&self.launcher, Element::Float(DType::F32), len)
    }
}
