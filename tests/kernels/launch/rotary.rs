//! Norm, rotation and append through the launch layer: queries in place, keys and values in the paged cache.

use half::bf16;
use swebench_infer::backend::HeadLayout;
use swebench_infer::backend::cuda::Indices;
use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{QkNormWeights, RotaryAppend, rotary_append};

use super::{DeviceCache, Pool, Step, run_in_every_order, to_f64, upload};
use crate::numerics::{Random, check_error};

/// Normalises a head when there are weights, then turns pair `i`, `half + i` by `cos` and `sin`.
pub fn rotate(head: &mut [f64], norm: Option<(&[f64], f64)>, cos: &[f32], sin: &[f32]) {
    if let Some((weights, eps)) = norm {
        let mean = head.iter().map(|x| x * x).sum::<f64>() / head.len() as f64;
        head.iter_mut().zip(weights).for_each(|(x, weight)| *x *= weight / (mean + eps).sqrt());
    }
    let half = head.len() / 2;
    for i in 0..half {
        let (cos, sin) = (f64::from(cos[i]), f64::from(sin[i]));
        (head[i], head[half + i]) =
            (head[i] * cos - head[half + i] * sin, head[half + i] * cos + head[i] * sin);
    }
}

/// Cosines and sines `[positions.len(), head_dim / 2]` of the plain rotary embedding.
pub fn angles(positions: &[usize], head_dim: usize) -> (Vec<f32>, Vec<f32>) {
    let half = head_dim / 2;
    let of = |(position, i)| position as f64 * 10_000_f64.powf(-(i as f64) / half as f64);
    let places = positions.iter().flat_map(|&position| (0..half).map(move |i| (position, i)));
    places.map(of).map(|angle: f64| (angle.cos() as f32, angle.sin() as f32)).unzip()
}

#[test]
fn rotation_and_append_run_through_the_launch_layer() {
    const HEADS: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 96 };
    const EPS: f32 = 1e-5;
    let step = Step::new(&[(3, 40), (1, 17), (20, 20)], 16);
    let tokens = step.tokens();
    let positions: Vec<usize> =
        step.lens.iter().flat_map(|&(query_len, kv_len)| kv_len - query_len..kv_len).collect();
    let (cos, sin) = angles(&positions, HEADS.head_dim);
    let mut random = Random(21);
    let qkv: Vec<bf16> = random.values(tokens * HEADS.qkv_width());
    let weights: [Vec<bf16>; 2] = [0, 1].map(|_| random.values(HEADS.head_dim));
    for (format, normed) in
        [(CacheFormat::Model, true), (CacheFormat::Model, false), (CacheFormat::Fp8, true)]
    {
        let what = format!("rotary_append {format:?}, norm {normed}");
        let empty = Pool::new(format, HEADS, &step);
        let (mut keys, mut values, mut rounded) =
            (empty.clone(), empty.clone(), [empty.clone(), empty.clone()]);
        let mut queries = Vec::new();
        for (token, slot) in step.slots().into_iter().enumerate() {
            let row = to_f64(&qkv[token * HEADS.qkv_width()..][..HEADS.qkv_width()]);
            for (head, x) in row.chunks_exact(HEADS.head_dim).enumerate() {
                let (mut x, is_key) = (x.to_vec(), head < HEADS.num_heads + HEADS.num_kv_heads);
                if is_key {
                    let weights = to_f64(&weights[usize::from(head >= HEADS.num_heads)]);
                    let at = token * HEADS.head_dim / 2;
                    rotate(&mut x, normed.then_some((&weights, EPS.into())), &cos[at..], &sin[at..]);
                }
                if head < HEADS.num_heads {
                    queries.extend(x);
                    continue;
                }
                let kv_head = (head - HEADS.num_heads) % HEADS.num_kv_heads;
                let stored: Vec<f64> = x.iter().map(|&x| empty.rounded(kv_head, x)).collect();
                rounded[usize::from(!is_key)].set(slot as usize, kv_head, &stored);
                if is_key { &mut keys } else { &mut values }.set(slot as usize, kv_head, &x);
            }
        }
        let got = run_in_every_order(&what, |launcher| {
            let cache = DeviceCache::new(launcher, &empty, &empty);
            let (rows, slots) = (upload(launcher, &qkv), Indices::new(launcher, &step.slots()).unwrap());
            let [cos, sin] = [&cos, &sin].map(|angles| upload(launcher, angles));
            let [q, k] = [&weights[0], &weights[1]].map(|weights| upload(launcher, weights));
            let angles = HEADS.head_dim / 2;
            let arguments = RotaryAppend {
                qkv: rows.matrix(0, tokens, HEADS.qkv_width(), HEADS.qkv_width()).unwrap(),
                cos: cos.matrix(0, tokens, angles, angles).unwrap(),
                sin: sin.matrix(0, tokens, angles, angles).unwrap(),
                norm: normed.then(|| QkNormWeights { q: q.vector(), k: k.vector(), eps: EPS }),
                slots: &slots,
                cache: cache.view(),
                heads: HEADS,
            };
            rotary_append(launcher.as_ref(), &arguments).unwrap();
            let written = [&cache.keys, &cache.values].map(|buffer| empty.download(buffer));
            let rows = to_f64(&rows.to_vec().unwrap());
            let queries =
                rows.chunks_exact(HEADS.qkv_width()).flat_map(|row| row[..HEADS.q_width()].to_vec());
            let all: Vec<f64> = queries.chain(written.concat()).collect();
            all.into_iter().map(f64::to_bits).collect()
        });
        let got: Vec<f32> = got.into_iter().map(|bits| f64::from_bits(bits) as f32).collect();
        let (got_queries, got_cache) = got.split_at(queries.len());
        let once: Vec<f64> = queries.iter().map(|&x| bf16::from_f64(x).to_f64()).collect();
        check_error(&what, got_queries, &queries, &once, 1e-5).unwrap();
        // Only the step's slots were written: everywhere else lies what was there.
        let exact = [keys.values, values.values].concat();
        let written: Vec<bool> = exact.iter().map(|x| !x.is_nan()).collect();
        let pick = |all: &[f64]| -> Vec<f64> {
            all.iter().zip(&written).filter(|(_, written)| **written).map(|(&x, _)| x).collect()
        };
        let wide: Vec<f64> = got_cache.iter().map(|&x| x.into()).collect();
        let stored: Vec<f32> = pick(&wide).into_iter().map(|x| x as f32).collect();
        let plain = pick(&rounded.map(|pool| pool.values).concat());
        check_error(&what, &stored, &pick(&exact), &plain, 1e-5).unwrap();
        let untouched = match format {
            CacheFormat::Model => |x: f64, _: f64| x.is_nan(),
            CacheFormat::Fp8 => |x: f64, scale: f64| x == 448.0 * scale,
        };
        for (index, (&x, _)) in wide.iter().zip(&written).enumerate().filter(|(_, (_, written))| !**written) {
            let scale = empty.scale(empty.head_of(index % empty.values.len()));
            assert!(untouched(x, scale), "{what}: {x} was written at {index}, which is no slot of the step");
        }
    }
}
