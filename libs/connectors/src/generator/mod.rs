//! Rows that are made, not read: the same for the same seed, any range of them on its own.

pub mod datagen;
pub mod nexmark;

/// A well-mixed number for each (stream, row): rows can be made in any order and by anyone.
///
/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) over a Weyl sequence
/// that starts at the stream's number.
pub fn draw(stream: u64, row: u64) -> u64 {
    mix(stream.wrapping_add(row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The stream of one purpose (a column, say) under a seed.
pub fn stream(seed: u64, purpose: u64) -> u64 {
    mix(mix(seed ^ 0x6869_6768_7761_7465).wrapping_add(purpose.wrapping_mul(0xd1b5_4a32_d192_ed03)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A draw scaled to `[0, bound)`; `bound` 0 stands for 2^64. Slightly uneven above 2^53 or so, as every scaling without rejection.
pub fn below(draw: u64, bound: u64) -> u64 {
    if bound == 0 { draw } else { ((u128::from(draw) * u128::from(bound)) >> 64) as u64 }
}

/// A draw scaled to `[0, 1)`.
pub fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_and_differ_by_stream() {
        let (a, b) = (stream(0, 0), stream(0, 1));
        assert!(a != b && a != stream(1, 0));
        let mean = (0..10_000).map(|row| unit(draw(a, row))).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let mut buckets = [0u32; 8];
        (0..8_000).for_each(|row| buckets[below(draw(b, row), 8) as usize] += 1);
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
        assert_eq!(below(u64::MAX, 10), 9);
    }
}
