//! Looks at 16 or 32 bytes at once: SSE2, which every x86-64 has, or words of 8 bytes elsewhere. Both are tested against each other.

/// Bit `i` of the first mask: byte `i` ends a run of plain characters (quote, backslash, control). Of the second: it is not ASCII.
#[inline(always)]
pub(crate) fn classify(chunk: &[u8; 16]) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    return sse2::classify(chunk);
    #[cfg(not(target_arch = "x86_64"))]
    return portable::classify(chunk);
}

/// Bit `i`: byte `i` is a quote, a backslash, a control, or not ASCII.
#[inline(always)]
pub(crate) fn unusual(chunk: &[u8; 32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::unusual(chunk);
    #[cfg(not(target_arch = "x86_64"))]
    return portable::unusual(chunk);
}

/// Bit `i`: byte `i` is the same in both.
#[inline(always)]
pub(crate) fn equal(left: &[u8; 16], right: &[u8; 16]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::equal(left, right);
    #[cfg(not(target_arch = "x86_64"))]
    return portable::equal(left, right);
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };

    #[inline(always)]
    fn load(chunk: &[u8; 16]) -> __m128i {
        // SAFETY: SSE2 is part of x86-64, and the load reads the 16 bytes of `chunk`, which need no alignment.
        unsafe { _mm_loadu_si128(chunk.as_ptr().cast::<__m128i>()) }
    }

    #[inline(always)]
    pub(super) fn classify(chunk: &[u8; 16]) -> (u32, u32) {
        let bytes = load(chunk);
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            let stops = _mm_or_si128(_mm_or_si128(quote, backslash), control);
            (_mm_movemask_epi8(stops) as u32, _mm_movemask_epi8(bytes) as u32)
        }
    }

    #[inline(always)]
    pub(super) fn unusual(chunk: &[u8; 32]) -> u32 {
        let (halves, _) = chunk.as_chunks::<16>();
        let mask = |half| {
            let bytes = load(half);
            // SAFETY: SSE2 is part of x86-64.
            unsafe {
                let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
                let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
                // As signed bytes the non-ASCII ones are below all controls.
                let other = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
                _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), other)) as u32
            }
        };
        mask(&halves[0]) | mask(&halves[1]) << 16
    }

    #[inline(always)]
    pub(super) fn equal(left: &[u8; 16], right: &[u8; 16]) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(load(left), load(right))) as u32 }
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    const ONES: u64 = 0x0101_0101_0101_0101;

    /// The high bit of each byte that is zero, and of no other.
    fn zeros(word: u64) -> u64 {
        const LOW: u64 = 0x7f * ONES;
        !(((word & LOW) + LOW) | word | LOW)
    }

    /// The high bits of the bytes as one bit each.
    fn pack(highs: u64) -> u32 {
        ((highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    }

    fn words(chunk: &[u8; 16]) -> [u64; 2] {
        let (halves, _) = chunk.as_chunks::<8>();
        [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
    }

    pub(super) fn classify(chunk: &[u8; 16]) -> (u32, u32) {
        let masks = words(chunk).map(|word| {
            let special = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
            (pack(special | zeros(word & (ONES * 0xe0))), pack(word & (ONES * 0x80)))
        });
        (masks[0].0 | masks[1].0 << 8, masks[0].1 | masks[1].1 << 8)
    }

    pub(super) fn unusual(chunk: &[u8; 32]) -> u32 {
        let (halves, _) = chunk.as_chunks::<16>();
        let (low, high) = (classify(&halves[0]), classify(&halves[1]));
        low.0 | low.1 | (high.0 | high.1) << 16
    }

    pub(super) fn equal(left: &[u8; 16], right: &[u8; 16]) -> u32 {
        let (left, right) = (words(left), words(right));
        pack(zeros(left[0] ^ right[0])) | pack(zeros(left[1] ^ right[1])) << 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn both_ways_agree_with_the_definition() {
        let mut random = Random(7);
        for _ in 0..100_000 {
            let chunk: [u8; 32] = std::array::from_fn(|_| {
                let byte = random.bits() as u8;
                if random.below(4) == 0 { b"\"\\\x1f\x20\x00\x80\xff\x7f"[usize::from(byte & 7)] } else { byte }
            });
            let low: [u8; 16] = std::array::from_fn(|i| chunk[i]);
            let other: [u8; 16] = std::array::from_fn(|i| if random.below(2) == 0 { chunk[i] } else { chunk[i + 16] });
            let mask = |bytes: &[u8], test: &dyn Fn(usize) -> bool| {
                (0..bytes.len()).fold(0u32, |mask, i| mask | u32::from(test(i)) << i)
            };
            let stops = |i: usize| chunk[i] < 0x20 || chunk[i] == b'"' || chunk[i] == b'\\';
            let masks = (mask(&low, &stops), mask(&low, &|i| chunk[i] >= 0x80));
            assert_eq!((classify(&low), portable::classify(&low)), (masks, masks));
            let masks = mask(&chunk, &|i| stops(i) || chunk[i] >= 0x80);
            assert_eq!((unusual(&chunk), portable::unusual(&chunk)), (masks, masks));
            let masks = mask(&low, &|i| low[i] == other[i]);
            assert_eq!((equal(&low, &other), portable::equal(&low, &other)), (masks, masks));
        }
    }
}
