//! Values per slot, and which slots changed.

use std::ops::{Index, IndexMut};

/// One value per slot of a [`crate::KeyTable`]. Slots that were never written hold the initial value.
#[derive(Debug, Clone)]
pub struct SlotVec<T> {
    values: Vec<T>,
    initial: T,
}

impl<T: Clone> SlotVec<T> {
    pub fn new(initial: T) -> Self {
        Self { values: Vec::new(), initial }
    }

    /// Makes room for slots `0..slots`; never shrinks.
    pub fn grow(&mut self, slots: usize) {
        if slots > self.values.len() {
            self.values.resize(slots, self.initial.clone());
        }
    }

    /// Gives the slot its initial value back, as its key is removed.
    pub fn reset(&mut self, slot: u32) {
        self.values[slot as usize] = self.initial.clone();
    }

    /// Forgets all slots.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// All values, by slot.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values, by slot, for loops that want no bounds checks.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Heap memory in bytes, without what the values own themselves.
    pub fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>()
    }
}

impl<T: Clone + Default> Default for SlotVec<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Index<u32> for SlotVec<T> {
    type Output = T;
    #[inline(always)]
    fn index(&self, slot: u32) -> &T {
        &self.values[slot as usize]
    }
}

impl<T> IndexMut<u32> for SlotVec<T> {
    #[inline(always)]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.values[slot as usize]
    }
}

/// The slots that changed since the last [`DirtySet::drain`], in the order of their first mark: what an epoch end has to emit
/// and a checkpoint has to upload.
#[derive(Debug, Default)]
pub struct DirtySet {
    marked: Vec<bool>,
    order: Vec<u32>,
}

impl DirtySet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for slots `0..slots`.
    pub fn grow(&mut self, slots: usize) {
        if self.marked.is_empty() {
            // Zeroed by the system as it is touched: of many slots few may be marked.
            self.marked = vec![false; slots];
        } else if slots > self.marked.len() {
            self.marked.resize(slots, false);
        }
    }

    /// Which slots are marked, and the marked ones in order.
    pub(crate) fn into_parts(self) -> (Vec<bool>, Vec<u32>) {
        (self.marked, self.order)
    }

    /// Marks a slot below the size last given to [`DirtySet::grow`].
    #[inline(always)]
    pub fn mark(&mut self, slot: u32) {
        let marked = &mut self.marked[slot as usize];
        if !*marked {
            *marked = true;
            self.order.push(slot);
        }
    }

    pub fn mark_all(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.mark(slot));
    }

    /// Takes the marked slots out, in the order of their first mark.
    pub fn drain(&mut self) -> Vec<u32> {
        let order = std::mem::take(&mut self.order);
        order.iter().for_each(|&slot| self.marked[slot as usize] = false);
        order
    }

    /// The marked slots, in the order of their first mark.
    pub fn slots(&self) -> &[u32] {
        &self.order
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.marked.get(slot as usize).copied().unwrap_or(false)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Heap memory in bytes.
    pub fn bytes(&self) -> usize {
        self.marked.capacity() + self.order.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dirty_set_lists_each_slot_once_in_the_order_of_its_first_mark() {
        let mut dirty = DirtySet::new();
        dirty.grow(10);
        dirty.mark_all(&[7, 2, 7, 9, 2]);
        assert_eq!(dirty.slots(), [7, 2, 9]);
        assert!(dirty.contains(2) && !dirty.contains(3) && !dirty.contains(99));
        assert_eq!(dirty.drain(), [7, 2, 9]);
        assert!(dirty.is_empty());
        dirty.mark(2);
        assert_eq!(dirty.drain(), [2], "a drained slot can be marked again");
    }

    #[test]
    fn a_slot_vector_starts_and_resets_to_its_initial_value() {
        let mut values = SlotVec::new(i64::MIN);
        values.grow(3);
        values[1] = 5;
        values.grow(2);
        assert_eq!(values.values(), [i64::MIN, 5, i64::MIN]);
        values.reset(1);
        assert_eq!(values[1], i64::MIN);
    }
}
