//! Where the rows of panes are kept, and which of these places a window reads: [`super::panes`] over what there is.
//!
//! A place is a pane and, for rows that count only from a later window on, the end of that window. Places are in the order in which they
//! are needed no longer.

use std::collections::BTreeMap;

use super::panes::{Panes, Rule};
use crate::plan::Windows;

/// (pane, from), or (end, start) of an attached window.
pub type Place = (i64, i64);

/// Ordered by end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    pub end: i64,
    pub start: i64,
}

/// The windows of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub rule: Rule,
    /// `None`: windows are attached, each is a pane.
    grid: Option<Panes>,
}

impl Places {
    pub fn new(windows: Windows, rule: Rule) -> Places {
        Places { rule, grid: Panes::new(windows, rule) }
    }

    /// Where the rows of a pane are kept.
    pub fn place(&self, (pane, from): (i64, i64)) -> Place {
        if self.grid.is_some() { (pane, from) } else { (from, pane) }
    }

    /// The inverse of [`Places::place`].
    pub fn pane_of(&self, place: Place) -> (i64, i64) {
        // It turns two numbers around, or nothing.
        self.place(place)
    }

    /// End of the last window that needs the place.
    pub fn last_end(&self, place: Place) -> i64 {
        self.grid.map_or(place.0, |grid| grid.last_end(place.0))
    }

    /// Whether each window holds what the ones before with the same start hold, so that they may grow from one to the next. Not with
    /// allowed lateness: then earlier ones are read again.
    pub fn grow(&self) -> bool {
        self.rule.lateness == 0 && self.grid.is_some_and(|grid| grid.grows())
    }

    /// The windows that count rows of the place and have fired up to the watermark, in the order of their ends.
    pub fn fired(&self, place: Place, wm: i64) -> Vec<Window> {
        let Some(grid) = self.grid else {
            let window = Window { end: place.0, start: place.1 };
            return if self.rule.fires(window.end, wm) { vec![window] } else { Vec::new() };
        };
        let ends = (0..grid.windows_of(place.0)).map(|n| grid.first_end(place.0) + n * grid.end_step());
        let fired = ends.filter(|end| *end >= place.1).take_while(|end| self.rule.fires(*end, wm));
        fired.map(|end| Window { end, start: grid.start(end) }).collect()
    }

    /// Whether any window has fired that counts rows of the place.
    pub fn has_fired(&self, place: Place, wm: i64) -> bool {
        let first = self.grid.map_or(place.0, |grid| grid.first_end(place.0).max(place.1));
        self.rule.fires(first, wm)
    }

    /// The first and the last pane with `from` that a window may read, as a checkpoint names them.
    pub fn span(&self, window: Window) -> [(i64, i64); 2] {
        match self.grid {
            None => [(window.start, window.end); 2],
            Some(_) => [(window.start, i64::MIN), (window.end - 1, i64::MAX)],
        }
    }

    /// Whether a window reads the place.
    pub fn reads(&self, window: Window, place: Place) -> bool {
        match self.grid {
            None => place == (window.end, window.start),
            Some(_) => (window.start..window.end).contains(&place.0) && place.1 <= window.end,
        }
    }

    /// The places of those there are that a window reads.
    pub fn read_by<T>(&self, window: Window, there: &BTreeMap<Place, T>) -> Vec<Place> {
        let range = match self.grid {
            None => (window.end, window.start)..=(window.end, window.start),
            Some(_) => (window.start, i64::MIN)..=(window.end - 1, i64::MAX),
        };
        there.range(range).map(|(place, _)| *place).filter(|place| self.reads(window, *place)).collect()
    }

    /// The windows with the next end after those that have fired up to `fired`, if the watermark closes them; never none, and one of their
    /// places is there.
    pub fn next<T>(&self, fired: i64, wm: i64, there: &BTreeMap<Place, T>) -> Option<Vec<Window>> {
        let Some(grid) = self.grid else {
            let (&(end, _), _) = there.range((fired.saturating_add(self.rule.unit + 1), i64::MIN)..).next()?;
            let windows = there.range((end, i64::MIN)..=(end, i64::MAX));
            return self.rule.fires(end, wm).then(|| windows.map(|(&(end, start), _)| Window { end, start }).collect());
        };
        let (&(first, _), _) = there.first_key_value()?;
        let mut end = match fired {
            i64::MIN => grid.first_end(first),
            fired => grid.next_end(fired + self.rule.unit).max(grid.first_end(first)),
        };
        // Windows without rows are skipped: the next one worth a look covers the next pane there is.
        let (&(pane, _), _) = there.range((grid.start(end), i64::MIN)..).next()?;
        if pane >= end {
            end = grid.first_end(pane);
        }
        self.rule.fires(end, wm).then(|| vec![Window { end, start: grid.start(end) }])
    }
}
