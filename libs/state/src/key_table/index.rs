//! The hash index of a key table: from a key's hash to its slot.
//!
//! Open addressing with linear probing over entries of (32 bits of hash, slot), 8 bytes each; keys lie elsewhere, by slot.
//! A batch is probed in chunks and two steps: first the home entries of the whole chunk are loaded, independent loads that the
//! processor overlaps, then each row is compared. With tables beyond the cache this is what hides the memory latency.
//! Removal shifts entries back, so there are no tombstones.

/// Rows probed together: enough to overlap their cache misses, few enough for the stack.
const CHUNK: usize = 128;
const EMPTY: u64 = u64::MAX;

/// The keys that an index points to, together with the batch that is looked up.
pub(super) trait Keys {
    /// Whether the key of `slot` is the key of `row`.
    fn same(&self, slot: u32, row: usize) -> bool;
    /// Stores the key of `row` under a new slot, or gives [`super::NO_SLOT`] to leave it out.
    fn insert(&mut self, row: usize) -> u32;
}

#[derive(Default)]
pub(super) struct Index {
    /// A power of two many, or none.
    entries: Vec<u64>,
    len: usize,
}

impl Index {
    /// Appends the slot of each row; `hashes` has one hash per row of the batch behind `keys`.
    #[inline(always)]
    pub fn probe(&mut self, hashes: &[u32], keys: &mut impl Keys, out: &mut Vec<u32>) {
        out.reserve(hashes.len());
        let mut home = [EMPTY; CHUNK];
        let mut base = 0;
        for chunk in hashes.chunks(CHUNK) {
            self.reserve(chunk.len());
            let mask = self.entries.len() - 1;
            for (entry, &hash) in home.iter_mut().zip(chunk) {
                *entry = self.entries[hash as usize & mask];
            }
            for (at, &hash) in chunk.iter().enumerate() {
                let entry = home[at];
                let slot = entry as u32;
                let row = base + at;
                out.push(if (entry >> 32) as u32 == hash && entry != EMPTY && keys.same(slot, row) {
                    slot
                } else {
                    self.probe_on(hash, row, keys)
                });
            }
            base += chunk.len();
        }
    }

    #[inline(never)]
    fn probe_on(&mut self, hash: u32, row: usize, keys: &mut impl Keys) -> u32 {
        let mask = self.entries.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let entry = self.entries[at];
            if entry == EMPTY {
                let slot = keys.insert(row);
                if slot != super::NO_SLOT {
                    self.entries[at] = u64::from(hash) << 32 | u64::from(slot);
                    self.len += 1;
                }
                return slot;
            }
            if (entry >> 32) as u32 == hash && keys.same(entry as u32, row) {
                return entry as u32;
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes room for `more` keys, so that entries stay where they are meanwhile. At most 5/8 full.
    pub fn reserve(&mut self, more: usize) {
        let wanted = self.len + more;
        if wanted * 8 <= self.entries.len() * 5 {
            return;
        }
        let capacity = (wanted * 8 / 5 + 1).next_power_of_two();
        let old = std::mem::replace(&mut self.entries, vec![EMPTY; capacity]);
        for entry in old.into_iter().filter(|&entry| entry != EMPTY) {
            let mut at = (entry >> 32) as usize & (capacity - 1);
            while self.entries[at] != EMPTY {
                at = (at + 1) & (capacity - 1);
            }
            self.entries[at] = entry;
        }
    }

    /// Removes the entry of a slot that is in the index, with the hash it was interned by.
    pub fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.entries.len() - 1;
        let wanted = u64::from(hash) << 32 | u64::from(slot);
        let mut hole = hash as usize & mask;
        while self.entries[hole] != wanted {
            assert!(self.entries[hole] != EMPTY, "slot {slot} holds no key to remove");
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        // Each following entry moves into the hole unless that would put it before its home.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry == EMPTY {
                break;
            }
            let home = (entry >> 32) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = EMPTY;
    }

    /// Forgets all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.fill(EMPTY);
        self.len = 0;
    }

    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<u64>()
    }
}
