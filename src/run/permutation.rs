//! The random order that Python's `datasets` splits a dataset in: NumPy's `default_rng(seed).permutation(n)`.

/// The numbers below `len` in the order that NumPy (PCG64, seeded through `SeedSequence`) puts them.
pub(super) fn permutation(seed: u32, len: usize) -> Vec<usize> {
    let mut random = Pcg64::new(seed);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, random.at_most(last));
    }
    order
}

/// PCG XSL RR 128/64, <https://www.pcg-random.org>, as NumPy's `PCG64` seeds and reads it.
struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, which 32-bit draws use up first.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Pcg64 {
    fn new(seed: u32) -> Self {
        let [a, b, c, d] = seed_sequence(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let mut random = Self { state: 0, increment: wide(c, d) << 1 | 1, half: None };
        random.step();
        random.state = random.state.wrapping_add(wide(a, b));
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let (high, low) = ((self.state >> 64) as u64, self.state as u64);
        (high ^ low).rotate_right((high >> 58) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let bits = self.next_u64();
        self.half = Some((bits >> 32) as u32);
        bits as u32
    }

    /// A number from 0 to `max`: masked draws until one is not above it.
    fn at_most(&mut self, max: usize) -> usize {
        let max = max as u64;
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let bits = if max <= u64::from(u32::MAX) { u64::from(self.next_u32()) } else { self.next_u64() };
            let value = bits & mask;
            if value <= max {
                return usize::try_from(value).unwrap_or(usize::MAX);
            }
        }
    }
}

/// The first 256 bits that NumPy's `SeedSequence(seed)` generates.
fn seed_sequence(seed: u32) -> [u64; 4] {
    const POOL: usize = 4;
    let mut constant = 0x43b0_d7e5_u32;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mut pool = [hash(seed), hash(0), hash(0), hash(0)];
    for source in 0..POOL {
        for target in (0..POOL).filter(|target| *target != source) {
            let mixed = pool[target]
                .wrapping_mul(0xca01_f9dd)
                .wrapping_sub(hash(pool[source]).wrapping_mul(0x4973_f715));
            pool[target] = mixed ^ mixed >> 16;
        }
    }
    let mut constant = 0x8b51_f9dd_u32;
    let mut word = |index: usize| {
        let value = pool[index % POOL] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        u64::from(value ^ value >> 16)
    };
    let words: [u64; 8] = std::array::from_fn(&mut word);
    std::array::from_fn(|index| words[2 * index] | words[2 * index + 1] << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_numpys() {
        assert_eq!(permutation(42, 0), [0; 0]);
        assert_eq!(permutation(42, 1), [0]);
        assert_eq!(permutation(42, 5), [4, 2, 3, 1, 0]);
        assert_eq!(permutation(42, 12), [0, 7, 6, 9, 11, 3, 5, 2, 4, 10, 1, 8]);
        let large = permutation(42, 1000);
        assert_eq!(large[..8], [978, 933, 859, 916, 127, 608, 856, 260]);
        let mut sorted = large;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
    }
}
