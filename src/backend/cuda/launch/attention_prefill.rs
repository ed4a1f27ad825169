//! Prefill attention, by Hopper's own kernel where the chip is one and the cache is in the model's type.

use std::sync::Arc;

use super::super::buffer::{Buffer, Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{CacheFormat, Kernel, prefill_query_rows, sm90_rows};
use super::super::launcher::{Launcher, Properties, TensorMapShape};
use super::super::params::{AttentionPrefillParams, AttentionPrefillSm90Params, AttentionTile};
use super::super::schedule::prefill_tiles;
use super::super::sequences::DeviceSequences;
use super::super::upload::Upload;
use super::cache::{Cache, CacheMaps};
use super::{MOST, MOST_GRID_Y, half_type, start};
use crate::backend::HeadLayout;
use crate::error::{Error, Result};

/// What prefill attention reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPrefill<'a> {
    /// Rotated queries `[tokens, num_heads · head_dim]`; rows may be those of a fused QKV matrix.
    pub q: Matrix<'a>,
    /// `[tokens, num_heads · head_dim]`.
    pub out: Matrix<'a>,
    /// Keys and values, those of the step appended.
    pub cache: Cache<'a>,
    /// The cache's maps: with them Hopper's kernel runs, which takes no FP8 cache, without them the one for all chips.
    pub maps: Option<&'a CacheMaps>,
    /// The step's sequences.
    pub sequences: &'a DeviceSequences,
    /// Their tiles, for the same kernel.
    pub tiles: &'a PrefillTiles,
    /// Head counts.
    pub heads: HeadLayout,
    /// A query at position `i` sees keys `j` with `j <= i` and, when set, `i - j < window`.
    pub window: Option<usize>,
    /// Factor on QKᵀ.
    pub softmax_scale: f32,
}

/// Which of the two kernels computes prefill attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefillKernel {
    /// With mma.sync, on all chips, over a cache of either format.
    Portable,
    /// With wgmma and the copy engine, on Hopper, over a cache in the model's type.
    Hopper,
}

impl PrefillKernel {
    /// The faster one of those that run on a device and read a cache of this format.
    pub fn best(properties: Properties, cache: CacheFormat) -> Self {
        match cache {
            CacheFormat::Model if properties.is_hopper() => Self::Hopper,
            CacheFormat::Model | CacheFormat::Fp8 => Self::Portable,
        }
    }

    /// Query rows of a tile. Hopper's kernel counts every head of a group as a row of its own.
    pub fn query_rows(self, heads: &HeadLayout) -> usize {
        let head_dim = heads.head_dim as u32;
        match self {
            Self::Portable => prefill_query_rows(head_dim) as usize,
            Self::Hopper => sm90_rows(head_dim) as usize / heads.group_size(),
        }
    }
}

/// The step's tiles of query rows, longest first, and the counter that hands them out on Hopper, which launches leave at zero.
#[derive(Debug)]
pub struct PrefillTiles {
    launcher: Arc<dyn Launcher>,
    lists: Option<Lists>,
    query_rows: usize,
    /// `(query_len, kv_len)` of the sequences that were cut.
    lens: Vec<(usize, usize)>,
}

/// What kernels read.
#[derive(Debug)]
struct Lists {
    tiles: Buffer,
    counter: Buffer,
}

impl PrefillTiles {
    /// No tiles.
    pub fn new(launcher: &Arc<dyn Launcher>) -> Self {
        Self { launcher: Arc::clone(launcher), lists: None, query_rows: 0, lens: Vec::new() }
    }

    /// Cuts a step's sequences into tiles of `query_rows` query rows: [`PrefillKernel::query_rows`] of the kernel that will run.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub fn fill(&mut self, sequences: &DeviceSequences, query_rows: usize) -> Result<()> {
        let query_lens = sequences.lens().iter().map(|&(query_len, _)| query_len);
        let tiles = query_lens.map(|query_len| query_len.div_ceil(query_rows.max(1))).sum();
        let mut upload = Upload::new(&self.launcher, Self::upload_bytes(tiles))?;
        self.place(sequences, query_rows, &mut upload)?;
        upload.send().inspect_err(|_| self.lists = None)
    }

    /// Bytes of an upload that some tiles take.
    pub(in super::super) fn upload_bytes(tiles: usize) -> usize {
        Upload::bytes::<AttentionTile>(tiles) + Upload::bytes::<i32>(1)
    }

    /// As [`PrefillTiles::fill`], into an upload that has to be sent before they are used.
    ///
    /// # Errors
    /// `InvalidArgument` without room.
    pub(in super::super) fn place(
        &mut self,
        sequences: &DeviceSequences,
        query_rows: usize,
        upload: &mut Upload,
    ) -> Result<()> {
        self.lists = None;
        self.query_rows = query_rows.max(1);
        self.lens.clear();
        let tiles = prefill_tiles(sequences.lens().iter().copied(), self.query_rows);
        self.lists =
            Some(Lists { tiles: upload.place_slice(&tiles)?, counter: upload.place_slice(&[0_i32])? });
        self.lens.extend_from_slice(sequences.lens());
        Ok(())
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.lists.as_ref().map_or(0, |lists| lists.tiles.len())
    }

    /// Checks that they are those of `sequences` for a kernel whose tiles have `query_rows` query rows: another batch's would read and write outside of it.
    fn check(&self, check: Check, sequences: &DeviceSequences, query_rows: usize) -> Result<()> {
        check.that(self.query_rows == query_rows, "tiles.query_rows", query_rows, self.query_rows)?;
        let (cut, given) = (&self.lens, sequences.lens());
        check.that(cut.len() == given.len(), "tiles' sequences", given.len(), cut.len())?;
        let Some((index, (cut, given))) = cut.iter().zip(given).enumerate().find(|(_, (a, b))| a != b) else {
            return Ok(());
        };
        check.that(
            false,
            &format!("tiles of sequence {index}"),
            format_args!("{} query tokens of {}", given.0, given.1),
            format_args!("{} of {}", cut.0, cut.1),
        )
    }
}

/// `out = softmax(q · kᵀ · scale) · v`, causal, over each sequence's context.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub fn attention_prefill(launcher: &dyn Launcher, arguments: &AttentionPrefill<'_>) -> Result<()> {
    let AttentionPrefill { q, out, cache, maps, sequences, tiles, heads, window, softmax_scale } = *arguments;
    let dtype = half_type("attention_prefill", "q", q.element)?;
    let head_dim = heads.head_dim as u32;
    let kernel = match maps {
        Some(_) => Kernel::AttentionPrefillSm90 { dtype, head_dim },
        None => Kernel::AttentionPrefill { dtype, head_dim, cache: cache.format() },
    };
    let check = Check(kernel);
    check_heads(check, &heads, &cache)?;
    check.that(
        maps.is_none() || cache.format() == CacheFormat::Model,
        "cache",
        "keys and values in the model's type",
        cache.keys.element,
    )?;
    let element = Element::Float(dtype);
    check.matrix("q", &q, element, sequences.tokens(), heads.q_width())?;
    check.matrix("out", &out, element, sequences.tokens(), heads.q_width())?;
    let cache_params = cache.params(check, dtype)?;
    cache.holds(check, sequences)?;
    let which = if maps.is_some() { PrefillKernel::Hopper } else { PrefillKernel::Portable };
    let query_rows = which.query_rows(&heads);
    check.that(query_rows > 0, "heads of a group", "at most 128", heads.group_size())?;
    tiles.check(check, sequences, query_rows)?;
    check.that(
        softmax_scale.is_finite() && softmax_scale > 0.0,
        "softmax_scale",
        "a positive number",
        softmax_scale,
    )?;
    let Some(lists) = &tiles.lists else {
        return Err(Error::invalid_argument(format!("{kernel}: tiles"))
            .with_expected("those of the step's sequences", "none"));
    };
    let params = AttentionPrefillParams {
        q: q.address,
        out: out.address,
        tiles: lists.tiles.vector().address,
        cache: cache_params,
        sequences: sequences.params(0..sequences.lens().len()),
        q_stride: q.row_stride as i64,
        out_stride: out.row_stride as i64,
        num_heads: heads.num_heads as i32,
        num_tiles: check.count("tiles", tiles.len(), if maps.is_some() { MOST } else { MOST_GRID_Y })?,
        window: check_window(check, window)?,
        scale_log2e: softmax_scale * std::f32::consts::LOG2_E,
    };
    let Some(maps) = maps else {
        // SAFETY: every view was checked against its buffer, the block tables against the cache.
        return unsafe { start(launcher, kernel, [heads.num_heads, tiles.len(), 1], &params) };
    };
    check.that(
        maps.addresses == [cache.keys.address, cache.values.address],
        "maps",
        "tensor maps of this cache",
        format_args!("those of {:#x} and {:#x}", maps.addresses[0], maps.addresses[1]),
    )?;
    let head_bytes = 2 * heads.head_dim * element.size();
    let longest = sequences.lens().iter().map(|&(_, kv_len)| kv_len).max().unwrap_or(0);
    let row_bytes = (q.row_stride * element.size()) as u64;
    let params = AttentionPrefillSm90Params {
        queries: launcher.tensor_map(&TensorMapShape {
            address: q.address,
            sizes: [heads.head_dim, heads.num_heads, sequences.tokens()].map(|size| size as u64).into(),
            strides: vec![(heads.head_dim * element.size()) as u64, row_bytes],
            tile: vec![64, heads.group_size() as u32, query_rows as u32],
            swizzle_128: true,
        })?,
        keys: maps.keys,
        values: maps.values,
        attention: params,
        tile_counter: lists.counter.vector().address,
        heads_per_section: (l2_share(launcher.properties()) / (longest * head_bytes).max(1))
            .clamp(1, heads.num_kv_heads) as i32,
        reserved: 0,
    };
    let blocks = launcher.resident_blocks(kernel).min(heads.num_kv_heads * tiles.len());
    // SAFETY: as above; the maps are those of the cache and of the queries.
    unsafe { start(launcher, kernel, [blocks, 1, 1], &params) }
}

/// Bytes of L2 that keys and values of heads side by side may take: three fifths. Queries and results pass through it too, the next section begins before the
/// last one's longest tiles end, and Hopper's L2 is two halves, each of which keeps copies of what its multiprocessors read from the other (FlashAttention-3
/// takes 32 of 50 MB).
fn l2_share(properties: Properties) -> usize {
    properties.l2_bytes / 5 * 3
}

/// Head counts that the kernels and this cache allow.
pub(super) fn check_heads(check: Check, heads: &HeadLayout, cache: &Cache<'_>) -> Result<()> {
    check.that(
        super::super::geometry::HEAD_DIMS.contains(&(heads.head_dim as u32)),
        "head_dim",
        "64, 96, 128 or 256",
        heads.head_dim,
    )?;
    check.count("num_heads", heads.num_heads, MOST_GRID_Y)?;
    check.that(
        (cache.num_kv_heads, cache.head_dim) == (heads.num_kv_heads, heads.head_dim),
        "cache's heads",
        format_args!("{} of {}", heads.num_kv_heads, heads.head_dim),
        format_args!("{} of {}", cache.num_kv_heads, cache.head_dim),
    )?;
    check.that(
        heads.num_kv_heads > 0 && heads.num_heads.is_multiple_of(heads.num_kv_heads),
        "num_heads",
        format_args!("a multiple of {} key/value heads", heads.num_kv_heads),
        heads.num_heads,
    )
}

/// As kernels take it: 0 for none.
pub(super) fn check_window(check: Check, window: Option<usize>) -> Result<i32> {
    window.map_or(Ok(0), |window| check.count("window", window, MOST))
}
