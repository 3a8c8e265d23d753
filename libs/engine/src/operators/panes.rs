//! Which windows a time belongs to: the arithmetic of panes, and nothing else.
//!
//! A *pane* is the longest stretch of time that no window's start or end cuts: every window is a whole number of panes, so rows are
//! aggregated once per pane and panes are combined into windows. Everything is in microseconds since the Unix epoch; windows are
//! `[start, end)`. The ends of the windows that cover a pane are `first_end, first_end + end_step, ..., last_end`, and an end names
//! its window. With `u` the unit of the time attribute's declared precision, a window fires when the watermark W >= end - u, and a
//! row is late for it iff end - u + allowed lateness <= the stamp of the row's batch.

use crate::plan::Windows;

/// Times that a time attribute can hold: 0001-01-01 00:00:00 up to and with 9999-12-31 23:59:59.999999. Sums of such times and
/// [`LENGTH_MAX`] do not overflow.
pub const TIME_MIN: i64 = -62_135_596_800_000_000;
pub const TIME_MAX: i64 = 253_402_300_799_999_999;
/// The longest window, about 18,000 years.
pub const LENGTH_MAX: i64 = i64::MAX / 16;

/// The panes of tumbling, hopping or cumulating windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    shape: Shape,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Hop { size: i64, slide: i64, offset: i64, pane: i64 },
    Cumulate { size: i64, step: i64, offset: i64 },
}

/// When windows fire and when rows are late for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unit of the time attribute.
    pub unit: i64,
    /// Allowed lateness.
    pub lateness: i64,
}

impl Rule {
    /// Whether the watermark closes the window with this end.
    pub fn fires(self, end: i64, wm: i64) -> bool {
        end - self.unit <= wm
    }

    /// Whether a row stamped so is late for the window with this end; also whether the window's state can go at this watermark.
    pub fn late(self, end: i64, stamp: i64) -> bool {
        (end - self.unit).saturating_add(self.lateness) <= stamp
    }

    /// Rows stamped so are late for windows that end up to here.
    pub fn last_late_end(self, stamp: i64) -> i64 {
        stamp.saturating_add(self.unit).saturating_sub(self.lateness)
    }
}

impl Panes {
    /// `None` for attached windows: they have no arithmetic, each is a pane of its own.
    pub fn new(windows: Windows, rule: Rule) -> Option<Panes> {
        let shape = match windows {
            Windows::Hop { size, slide, offset } => {
                assert!(size > 0 && slide > 0, "planning refuses windows of length or slide 0");
                Shape::Hop { size, slide, offset: offset.rem_euclid(slide), pane: gcd(size, slide) }
            }
            Windows::Cumulate { size, step, offset } => {
                assert!(step > 0 && size % step == 0, "planning refuses a step that does not divide the size");
                Shape::Cumulate { size, step, offset: offset.rem_euclid(size) }
            }
            Windows::Attached { .. } => return None,
        };
        let panes = Panes { shape, rule };
        assert!(panes.size().max(panes.end_step()) <= LENGTH_MAX, "planning refuses windows of thousands of years");
        Some(panes)
    }

    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Length of a pane.
    pub fn length(&self) -> i64 {
        match self.shape {
            Shape::Hop { pane, .. } => pane,
            Shape::Cumulate { step, .. } => step,
        }
    }

    /// Length of the longest window.
    pub fn size(&self) -> i64 {
        match self.shape {
            Shape::Hop { size, .. } | Shape::Cumulate { size, .. } => size,
        }
    }

    /// Distance of the ends of successive windows.
    pub fn end_step(&self) -> i64 {
        match self.shape {
            Shape::Hop { slide, .. } => slide,
            Shape::Cumulate { step, .. } => step,
        }
    }

    /// Whether the windows up to some end hold a prefix of the panes of every later window with the same start.
    pub fn grows(&self) -> bool {
        matches!(self.shape, Shape::Cumulate { .. })
    }

    /// Start of the pane of a time.
    pub fn pane(&self, time: i64) -> i64 {
        match self.shape {
            Shape::Hop { pane, offset, .. } => floor(time, pane, offset),
            Shape::Cumulate { step, offset, .. } => floor(time, step, offset),
        }
    }

    /// End of the first window that covers the pane.
    pub fn first_end(&self, pane: i64) -> i64 {
        match self.shape {
            Shape::Hop { size, slide, offset, .. } => floor(pane - size, slide, offset) + slide + size,
            Shape::Cumulate { step, .. } => pane + step,
        }
    }

    /// End of the last window that covers the pane; before [`Panes::first_end`] if none does (a slide longer than the size).
    pub fn last_end(&self, pane: i64) -> i64 {
        match self.shape {
            Shape::Hop { size, slide, offset, .. } => floor(pane, slide, offset) + size,
            Shape::Cumulate { size, offset, .. } => floor(pane, size, offset) + size,
        }
    }

    /// How many windows cover the pane.
    pub fn windows_of(&self, pane: i64) -> i64 {
        (self.last_end(pane) - self.first_end(pane)).div_euclid(self.end_step()) + 1
    }

    /// Start of the window with this end. Its panes are those from there, excluding the end.
    pub fn start(&self, end: i64) -> i64 {
        match self.shape {
            Shape::Hop { size, .. } => end - size,
            Shape::Cumulate { size, offset, .. } => floor(end - 1, size, offset),
        }
    }

    /// End of the first window that ends after this time.
    pub fn next_end(&self, time: i64) -> i64 {
        match self.shape {
            Shape::Hop { size, slide, offset, .. } => floor(time, slide, (offset + size) % slide) + slide,
            Shape::Cumulate { step, offset, .. } => floor(time, step, offset) + step,
        }
    }

    /// End of the first window covering the pane for which a row stamped so is not late; `None` if it is late for all.
    pub fn first_open_end(&self, pane: i64, stamp: i64) -> Option<i64> {
        let late = self.rule.last_late_end(stamp);
        let (first, last) = (self.first_end(pane), self.last_end(pane));
        if late >= last || first > last {
            return None;
        }
        // Both lie among the window ends of one grid, so the next one after `late` covers the pane too.
        Some(if late < first {
            first
        } else {
            first + (late - first) / self.end_step() * self.end_step() + self.end_step()
        })
    }
}

/// The largest multiple of `length`, shifted by `offset`, that is not after `time`; also for negative times.
pub fn floor(time: i64, length: i64, offset: i64) -> i64 {
    time - (time - offset).rem_euclid(length)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// All windows by definition, without any arithmetic of panes.
    fn brute(windows: Windows, around: std::ops::Range<i64>) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        for start in around {
            match windows {
                Windows::Hop { size, slide, offset } if (start - offset).rem_euclid(slide) == 0 => {
                    all.push((start, start + size));
                }
                Windows::Cumulate { size, step, offset } if (start - offset).rem_euclid(size) == 0 => {
                    all.extend((1..=size / step).map(|n| (start, start + n * step)));
                }
                _ => {}
            }
        }
        all.sort_by_key(|&(start, end)| (end, start));
        all
    }

    fn shapes() -> Vec<Windows> {
        let mut shapes = Vec::new();
        for size in 1..=12 {
            for slide in 1..=14 {
                for offset in [-25, -3, 0, 1, 7] {
                    shapes.push(Windows::Hop { size, slide, offset });
                    if size % slide == 0 {
                        shapes.push(Windows::Cumulate { size, step: slide, offset });
                    }
                }
            }
        }
        shapes
    }

    #[test]
    fn panes_and_windows_agree_with_the_definition() {
        for windows in shapes() {
            let panes = Panes::new(windows, Rule { unit: 1, lateness: 0 }).unwrap();
            let all = brute(windows, -80..80);
            for time in -25..25 {
                let covering: Vec<(i64, i64)> = all.iter().copied().filter(|(s, e)| (*s..*e).contains(&time)).collect();
                let pane = panes.pane(time);
                assert!((pane..pane + panes.length()).contains(&time), "{windows:?} {time}");
                let (first, last) = (panes.first_end(pane), panes.last_end(pane));
                let found: Vec<(i64, i64)> = (0..panes.windows_of(pane))
                    .map(|n| first + n * panes.end_step())
                    .map(|end| (panes.start(end), end))
                    .collect();
                assert_eq!(found, covering, "{windows:?} {time}");
                assert!(covering.is_empty() || last == covering.last().unwrap().1);
                // No window cuts the pane, so its rows need not be told apart.
                assert!(
                    all.iter().all(|(s, e)| (*s <= pane || *s >= pane + panes.length())
                        && (*e <= pane || *e >= pane + panes.length()))
                );
                assert_eq!(
                    panes.next_end(time),
                    all.iter().map(|w| w.1).find(|end| *end > time).unwrap(),
                    "{windows:?}"
                );
            }
            for (start, end) in all.iter().filter(|w| w.0 > -40 && w.1 < 40) {
                assert_eq!(panes.start(*end), *start);
                assert_eq!(panes.pane(*start), *start, "windows are whole panes");
                assert_eq!((end - start) % panes.length(), 0);
            }
        }
    }

    #[test]
    fn lateness_agrees_with_the_definition() {
        for windows in shapes() {
            for (unit, lateness) in [(1, 0), (1, 5), (2, 0), (2, 3)] {
                let rule = Rule { unit, lateness };
                let panes = Panes::new(windows, rule).unwrap();
                let all = brute(windows, -80..80);
                for time in [-13, 0, 6] {
                    for stamp in -40..40 {
                        let open = all
                            .iter()
                            .filter(|(s, e)| (*s..*e).contains(&time))
                            .map(|w| w.1)
                            .find(|end| end - unit + lateness > stamp);
                        assert_eq!(
                            panes.first_open_end(panes.pane(time), stamp),
                            open,
                            "{windows:?} {rule:?} {time} {stamp}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_fires_one_unit_before_its_end() {
        let rule = Rule { unit: 1_000, lateness: 0 };
        assert!(!rule.fires(10_000, 8_999) && rule.fires(10_000, 9_000));
        assert!(!rule.late(10_000, 8_999) && rule.late(10_000, 9_000));
        let rule = Rule { unit: 1_000, lateness: 2_000 };
        assert!(rule.fires(10_000, 9_000));
        assert!(!rule.late(10_000, 10_999) && rule.late(10_000, 11_000));
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let hop = Windows::Hop { size: LENGTH_MAX, slide: LENGTH_MAX / 3, offset: -1 };
        let day = 86_400_000_000;
        for windows in [
            hop,
            Windows::Cumulate { size: LENGTH_MAX / 2 * 2, step: LENGTH_MAX / 2, offset: i64::MIN },
            Windows::Hop { size: day, slide: day, offset: 0 },
        ] {
            let panes = Panes::new(windows, Rule { unit: 1_000_000, lateness: LENGTH_MAX }).unwrap();
            for time in [TIME_MIN, -1, 0, TIME_MAX] {
                let pane = panes.pane(time);
                assert!(pane <= time && time - pane < panes.length());
                assert!(panes.windows_of(pane) >= 1);
                assert_eq!(
                    panes.first_open_end(pane, i64::MIN),
                    Some(panes.first_end(pane)),
                    "nothing is late at first"
                );
                assert_eq!(panes.first_open_end(pane, i64::MAX), None, "all is late after the end");
                assert!(panes.rule().fires(panes.last_end(pane), i64::MAX));
                assert!(!panes.rule().fires(panes.first_end(pane), i64::MIN));
                assert!(panes.start(panes.last_end(pane)) <= time);
            }
        }
        let days =
            Panes::new(Windows::Hop { size: day, slide: day, offset: 0 }, Rule { unit: 1, lateness: 0 }).unwrap();
        assert_eq!(days.pane(TIME_MIN), TIME_MIN, "year 0001 begins with a day");
        assert_eq!(days.last_end(days.pane(TIME_MAX)), TIME_MAX + 1);
    }
}
