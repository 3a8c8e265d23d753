//! Which slots a checkpoint has yet to copy, and which changed since the one before.
//!
//! A checkpoint is cut in an instant ([`Marks::begin`]) and copied in pieces ([`Marks::next`]) while changes go on: a slot that is about to
//! change while it waits to be copied is copied first ([`Marks::change`] names it). So every slot is copied once, as it was at the cut.
//! Nothing is noted before the first checkpoint: that copies everything anyway.

use crate::slots::DirtySet;

/// See the module. Of slots alone; whoever holds their values copies them.
#[derive(Debug, Default)]
pub struct Marks {
    /// An earlier checkpoint has what is not marked.
    tracks: bool,
    changed: DirtySet,
    waiting: Waiting,
}

#[derive(Debug, Default)]
enum Waiting {
    #[default]
    Nothing,
    /// Those from `next` to below `end`, but for those that were copied early.
    Range { next: u32, end: u32, early: Vec<bool> },
    /// Those of the list from `next` on that are marked still.
    List { slots: Vec<u32>, next: usize, marked: Vec<bool> },
}

impl Marks {
    /// From now on changes are noted: a checkpoint has what there is.
    pub fn track(&mut self) {
        self.tracks = true;
    }

    pub fn tracks(&self) -> bool {
        self.tracks
    }

    /// Slots that changed since the last cut, or since [`Marks::track`].
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Cuts a checkpoint: of all slots below `slots`, or of those that changed since the last cut. Nothing waits of the cut before.
    pub fn begin(&mut self, slots: usize, whole: bool) {
        assert!(!self.waits(), "a checkpoint is copied before the next one is cut");
        assert!(whole || self.tracks, "changes are noted since the checkpoint that they are added to");
        let (marked, list) = std::mem::take(&mut self.changed).into_parts();
        self.waiting = match whole {
            // Zeroed by the system as it is touched, so that this takes no time.
            true => Waiting::Range { next: 0, end: slots as u32, early: vec![false; slots] },
            false => Waiting::List { slots: list, next: 0, marked },
        };
        self.tracks = true;
        self.changed.grow(slots);
    }

    /// Notes that slots, all below `room`, are about to change. Those that are returned have to be copied before.
    #[must_use]
    pub fn change(&mut self, slots: &[u32], room: usize) -> Vec<u32> {
        if !self.tracks {
            return Vec::new();
        }
        self.changed.grow(room);
        self.changed.mark_all(slots);
        let mut early = Vec::new();
        if self.waits() {
            early.extend(slots.iter().copied().filter(|&slot| self.leave(slot)));
        }
        early
    }

    /// Lets a slot wait no longer that is about to be given up, or to change; returns whether it did, and so has to be copied now.
    #[must_use]
    pub fn leave(&mut self, slot: u32) -> bool {
        match &mut self.waiting {
            Waiting::Nothing => false,
            Waiting::Range { next, end, early } => {
                (*next..*end).contains(&slot) && !std::mem::replace(&mut early[slot as usize], true)
            }
            Waiting::List { marked, .. } => marked.get_mut(slot as usize).is_some_and(std::mem::take),
        }
    }

    /// Whether slots wait to be copied.
    pub fn waits(&self) -> bool {
        !matches!(self.waiting, Waiting::Nothing)
    }

    /// The next slots to copy, at most `max`; they no longer wait. With none left nothing waits any more.
    pub fn next(&mut self, max: usize) -> Vec<u32> {
        let mut slots = Vec::new();
        let done = match &mut self.waiting {
            Waiting::Nothing => true,
            Waiting::Range { next, end, early } => {
                while *next < *end && slots.len() < max {
                    if !early[*next as usize] {
                        slots.push(*next);
                    }
                    *next += 1;
                }
                next == end
            }
            Waiting::List { slots: list, next, marked } => {
                while *next < list.len() && slots.len() < max {
                    let slot = list[*next];
                    if std::mem::take(&mut marked[slot as usize]) {
                        slots.push(slot);
                    }
                    *next += 1;
                }
                *next == list.len()
            }
        };
        if done {
            self.waiting = Waiting::Nothing;
        }
        slots
    }

    /// Heap memory in bytes.
    pub fn bytes(&self) -> usize {
        let waiting = match &self.waiting {
            Waiting::Nothing => 0,
            Waiting::Range { early, .. } => early.capacity(),
            Waiting::List { slots, marked, .. } => slots.capacity() * size_of::<u32>() + marked.capacity(),
        };
        self.changed.bytes() + waiting
    }
}

/// How long the chain of parts of a table has become: says when it is better begun anew.
///
/// Rows stand for bytes. A chain whose changes have as many rows as the table itself is written whole, so that over time no more than
/// twice the changes is written; so is one that is mostly made of what is gone, and one of very many parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Parts, the whole one among them. 0: there is none.
    pub parts: usize,
    /// Rows of the whole one.
    pub base_rows: usize,
    /// Rows of the others, with what they remove.
    pub changed_rows: usize,
}

/// Parts of a chain at most. Each is a file and an entry in every manifest. A table of which less than one row in so many changes between two
/// checkpoints is written whole before its changes have paid for it.
const PARTS_MAX: usize = 256;

impl Chain {
    /// Takes up the next part, of `changed` rows if it holds changes, while the table has `live` rows: says whether it has to be whole.
    pub fn next_is_whole(&mut self, changed: usize, live: usize) -> bool {
        let changes = self.changed_rows + changed;
        let whole = self.parts == 0
            || self.parts >= PARTS_MAX
            || changes >= live
            || self.base_rows + changes > live.saturating_mul(4);
        *self = match whole {
            true => Chain { parts: 1, base_rows: live, changed_rows: 0 },
            false => Chain { parts: self.parts + 1, changed_rows: changes, ..*self },
        };
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::Random;

    /// Random changes, removals and pieces between cuts: each checkpoint has every slot that it is of once, as it was at its cut.
    #[test]
    fn a_checkpoint_has_every_slot_as_it_was_at_the_cut() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let mut marks = Marks::default();
            let mut values: Vec<u64> = Vec::new();
            // What checkpoints add up to; what the open one has, and what it should have.
            let (mut saved, mut copied, mut cut) = (Vec::new(), Vec::<(u32, u64)>::new(), Vec::<u64>::new());
            let mut open = false;
            let finish = |marks: &mut Marks, values: &[u64], copied: &mut Vec<(u32, u64)>, saved: &mut Vec<u64>| {
                while marks.waits() {
                    copied.extend(marks.next(3).into_iter().map(|slot| (slot, values[slot as usize])));
                }
                let mut slots: Vec<u32> = copied.iter().map(|(slot, _)| *slot).collect();
                slots.sort_unstable();
                assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: a slot is copied once");
                for (slot, value) in copied.drain(..) {
                    saved.resize(saved.len().max(slot as usize + 1), 0);
                    saved[slot as usize] = value;
                }
            };
            for step in 1..200u64 {
                match random.below(10) {
                    0 => {
                        finish(&mut marks, &values, &mut copied, &mut saved);
                        if open {
                            saved.resize(cut.len(), 0);
                            assert_eq!(saved, cut, "seed {seed}");
                        }
                        let whole = !marks.tracks() || random.below(3) == 0;
                        if whole {
                            saved = vec![0; values.len()];
                        }
                        marks.begin(values.len(), whole);
                        cut.clone_from(&values);
                        open = true;
                    }
                    1..4 => copied.extend(marks.next(2).into_iter().map(|slot| (slot, values[slot as usize]))),
                    _ => {
                        let room = values.len() + random.below(3) as usize;
                        let slots: Vec<u32> = (0..random.below(6))
                            .filter(|_| room > 0)
                            .map(|_| random.below(room as u64) as u32)
                            .collect();
                        let early = marks.change(&slots, room);
                        copied.extend(early.into_iter().map(|slot| (slot, values[slot as usize])));
                        values.resize(room, 0);
                        slots.iter().for_each(|&slot| values[slot as usize] = step);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_noted_before_the_first_checkpoint() {
        let mut marks = Marks::default();
        assert!(marks.change(&[1, 2], 3).is_empty() && marks.changed() == 0 && !marks.waits());
        marks.begin(3, true);
        assert_eq!(marks.next(10), [0, 1, 2]);
        assert!(marks.change(&[2, 2], 3).is_empty());
        assert_eq!(marks.changed(), 1);
    }

    /// Whatever changes, the parts together have at most twice the rows that changed.
    #[test]
    fn a_chain_is_written_anew_when_its_changes_have_paid_for_it() {
        for (live, changed) in [(1_000, 100), (1_000, 1_000), (1_000, 999), (10, 1), (100_000, 5_000), (100_000, 400)] {
            let mut chain = Chain::default();
            assert!(chain.next_is_whole(0, live));
            let (mut written, mut changes, mut longest) = (0, 0, 0);
            for _ in 0..10_000 {
                changes += changed;
                written += if chain.next_is_whole(changed, live) { live } else { changed };
                longest = longest.max(chain.parts);
            }
            assert!(written <= 2 * changes, "{live} {changed}: {written} rows written, {changes} changed");
            assert!(longest <= PARTS_MAX);
        }
        let mut grows = Chain::default();
        grows.next_is_whole(0, 100);
        assert!((2..50).all(|n| !grows.next_is_whole(50, 50 + n * 50)), "what only grows is never written twice");
        let mut shrinks = Chain { parts: 2, base_rows: 1_000, changed_rows: 10 };
        assert!(shrinks.next_is_whole(1, 100), "most of it is gone");
    }
}
