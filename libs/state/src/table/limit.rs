//! How many rows may be in memory: as many as have room there.

/// Follows from the bytes that rows take, so that it rises again when they take fewer.
pub struct Limit {
    bytes_max: usize,
    /// Slots there were when half of that was taken: vectors by slot double together and do not shrink, so there must not be more.
    slots_max: Option<usize>,
    rows_max: Option<usize>,
    /// The most bytes that were taken since there was room for all.
    peak: usize,
}

impl Limit {
    pub fn new(bytes_max: usize) -> Limit {
        Limit { bytes_max, slots_max: None, rows_max: None, peak: bytes_max }
    }

    /// How many of the rows have to go. `slots` is how many there may be without more memory, at least as many as there ever were at once,
    /// `bytes` what all of these take.
    pub fn excess(&mut self, rows: usize, slots: usize, bytes: usize) -> usize {
        self.slots_max = if bytes > self.bytes_max / 2 { self.slots_max.or(Some(slots)) } else { None };
        // What a row holds may grow too. Slots count, not rows: else there would be fewer each time that some have gone.
        let fit = slots as u128 * self.bytes_max as u128 / bytes.max(1) as u128;
        self.rows_max = self.slots_max.map(|max| max.min(fit as usize).max(1));
        // What rows have beside their slots goes with them, so that all of these say too little: then some go each time that there is more.
        let grows = bytes > self.peak + self.peak / 8;
        self.peak = if bytes <= self.bytes_max {
            self.bytes_max
        } else if grows {
            bytes
        } else {
            self.peak
        };
        // A quarter at once, so that what is written is large and sorted.
        let too_many = self.rows_max.filter(|max| rows > *max).map_or(0, |max| rows - (max - max / 4));
        if grows { too_many.max(rows.div_ceil(4).min(rows.saturating_sub(1))) } else { too_many }
    }

    /// The most rows that may be in memory now; `None` while there is room for twice as many.
    pub fn rows_max(&self) -> Option<usize> {
        self.rows_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_stay_as_have_room() {
        let mut limit = Limit::new(1_000);
        assert_eq!(limit.excess(40, 40, 500), 0, "half is left");
        assert_eq!(limit.excess(60, 60, 900), 0, "so many as there are");
        assert_eq!(limit.excess(70, 70, 900), 70 - 45, "and no more: a quarter of those goes");
        // They take more and more, and some go each time.
        let left: Vec<usize> = [1_100, 2_000, 2_200, 8_000, 100_000, 200_000]
            .into_iter()
            .map(|bytes| 70 - limit.excess(70, 70, bytes))
            .collect();
        assert_eq!(left, [45, 27, 24, 6, 1, 1], "never all of them");
        assert_eq!(limit.excess(1, 70, 200_000), 0);
        assert_eq!(limit.excess(60, 70, 900), 0, "they take less: there is room for as many as at first");
        assert_eq!(limit.excess(1_000, 1_000, 500), 0, "and for more once half is left again");
    }

    /// Few rows of many slots grow, each by itself.
    #[test]
    fn rows_that_take_more_and_more_leave() {
        let (mut limit, slots, mut rows, mut each) = (Limit::new(100_000), 1_000, 100, 100);
        let mut most = 0;
        for _ in 0..150 {
            let bytes = slots * 10 + rows * each;
            most = most.max(bytes);
            rows -= limit.excess(rows, slots, bytes);
            each += each / 20;
            assert!(rows > 0);
        }
        assert!(rows < 10 && most < 250_000, "{rows} rows left, up to {most} bytes");
    }

    /// However often it is asked, with vectors that do not shrink, it gives the same.
    #[test]
    fn it_does_not_creep() {
        let mut limit = Limit::new(1_000);
        let mut rows = 100;
        for bytes in 2_000..2_100 {
            rows -= limit.excess(rows, 100, bytes);
            assert!(rows >= 35, "{rows} left at {bytes}");
        }
    }
}
