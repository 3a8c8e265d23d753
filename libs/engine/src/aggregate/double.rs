//! Sums of doubles with about 106 bits: a total and what it lost to rounding.
//!
//! Double precision alone would make a sum depend on the order of its rows, and taking back a large value would leave noise.
//! Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971; D. E. Knuth, TAOCP 2, 4.2.2 (TwoSum).

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Double {
    pub high: f64,
    pub low: f64,
}

impl Double {
    #[inline(always)]
    pub fn of(value: f64) -> Self {
        Self { high: value, low: 0.0 }
    }

    /// The exact product of two doubles, unless it overflows.
    #[inline(always)]
    pub fn product(a: f64, b: f64) -> Self {
        let high = a * b;
        let (a1, a2) = split(a);
        let (b1, b2) = split(b);
        Self { high, low: ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2 }
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        let (sum, lost) = two_sum(self.high, other.high);
        let (low, lost_low) = two_sum(self.low, other.low);
        let (high, rest) = quick_two_sum(sum, lost + low);
        let (high, low) = quick_two_sum(high, rest + lost_low);
        Self { high, low }
    }

    #[inline(always)]
    pub fn minus(self) -> Self {
        Self { high: -self.high, low: -self.low }
    }

    pub fn times(self, other: Self) -> Self {
        let product = Self::product(self.high, other.high);
        let (high, low) = quick_two_sum(product.high, product.low + (self.high * other.low + self.low * other.high));
        Self { high, low }
    }

    pub fn over(self, divisor: f64) -> Self {
        let first = self.high / divisor;
        let rest = self.add(Self::product(first, divisor).minus());
        let (high, low) = quick_two_sum(first, (rest.high + rest.low) / divisor);
        Self { high, low }
    }

    #[inline(always)]
    pub fn value(self) -> f64 {
        self.high + self.low
    }
}

/// The sum and its rounding error, exactly.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// As [`two_sum`], where `a` is not the smaller one.
#[inline(always)]
fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// Two halves of 26 bits.
#[inline(always)]
fn split(value: f64) -> (f64, f64) {
    let scaled = 134_217_729.0 * value; // 2^27 + 1
    let high = scaled - (scaled - value);
    (high, value - high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_taken_back_leaves_next_to_nothing() {
        let values = [0.1, 1e16, -3.7e-5, 123.456, 1e20];
        let total = values.iter().fold(Double::default(), |sum, &value| sum.add(Double::of(value)));
        let back = values[1..].iter().fold(total, |sum, &value| sum.add(Double::of(-value)));
        // 106 bits of 1e20 end at about 1e-12.
        assert!((back.value() - 0.1).abs() < 1e-12, "{back:?}");
        let plain = values[1..].iter().fold(values.iter().sum::<f64>(), |sum, value| sum - value);
        assert!((plain - 0.1).abs() > 1e-3, "plain doubles would have done: {plain}");
    }

    #[test]
    fn products_and_quotients_keep_the_rounding_error() {
        let third = Double::of(1.0).over(3.0);
        assert!(third.times(Double::of(3.0)).add(Double::of(-1.0)).value().abs() < 1e-31);
        let square = Double::product(1e8 + 1.0, 1e8 + 1.0);
        assert_eq!(square.add(Double::of(-1e16)).add(Double::of(-2e8)).value(), 1.0);
    }
}
