//! Panes in memory, and what a checkpoint has yet to copy of them.
//!
//! A checkpoint names groups by their keys, the place and, since a sealed table and the one after it may both have a key, by the number of
//! the layer. What changes, is sealed or goes while it waits to be copied is copied as it was at the cut.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use arrow::array::ArrayRef;

use super::groups::{Groups, Layer, Pool, Sealed};
use super::places::Place;
use crate::error::Result;

#[derive(Default)]
pub struct Pane {
    /// Groups as columns, made when the first of several windows that share the pane fires.
    pub layers: Vec<Sealed>,
    /// Groups that came since.
    pub table: Option<Groups>,
    /// There are groups on disk too.
    pub is_on_disk: bool,
}

impl Pane {
    /// Groups in memory.
    pub fn rows(&self) -> usize {
        self.layers.iter().map(|layer| layer.layer.rows).sum::<usize>() + self.table.as_ref().map_or(0, Groups::len)
    }

    pub fn unsaved(&self) -> usize {
        self.layers.iter().map(Sealed::unsaved).sum::<usize>() + self.table.as_ref().map_or(0, Groups::unsaved)
    }

    pub fn bytes(&self) -> usize {
        let columns = |columns: &[ArrayRef]| columns.iter().map(|c| c.get_array_memory_size()).sum::<usize>();
        let layer = |Sealed { layer, .. }: &Sealed| columns(&layer.keys) + columns(&layer.states);
        self.layers.iter().map(layer).sum::<usize>() + self.table.as_ref().map_or(0, Groups::bytes)
    }

    pub fn begin_save(&mut self, whole: bool) {
        self.layers.iter_mut().for_each(|layer| layer.begin_save(whole));
        self.table.iter_mut().for_each(|table| table.begin_save(whole));
    }
}

/// Groups that belong together in a checkpoint: a place and the number of a layer.
pub type Name = (Place, i64);

/// What is left to copy of a checkpoint.
#[derive(Default)]
pub struct PaneCopies {
    /// Panes to look at, in the order of their places when it was cut.
    places: VecDeque<Place>,
    /// Panes that have gone since.
    gone: VecDeque<(Name, Gone)>,
    /// What is copied and not handed over.
    copied: Vec<(Name, Layer)>,
}

enum Gone {
    Table(Groups),
    Layer(Sealed),
}

impl PaneCopies {
    /// A checkpoint is cut: all of these are to be looked at.
    pub fn begin(&mut self, places: impl Iterator<Item = Place>) {
        self.places = places.collect();
    }

    /// Whether there is something left to copy.
    pub fn wait(&self) -> bool {
        !self.places.is_empty() || !self.gone.is_empty()
    }

    /// What was copied since the last call.
    pub fn take(&mut self) -> Vec<(Name, Layer)> {
        mem::take(&mut self.copied)
    }

    /// A table is about to be sealed: of what waits only that which was copied early is handed over here, the rest waits as a layer.
    pub fn seal(&mut self, name: Name, table: &mut Groups) {
        self.copied.extend(table.save(0).into_iter().map(|layer| (name, layer)));
    }

    /// A table is about to get another name: the checkpoint at hand knows it by the old one, the next by the new one.
    pub fn rename(&mut self, name: Name, table: &mut Groups) {
        self.copied.extend(table.save(usize::MAX).into_iter().map(|layer| (name, layer)));
        table.is_new();
    }

    /// A table is no longer needed, but for a checkpoint that has yet to copy it.
    pub fn let_go(&mut self, name: Name, table: Groups, pool: &mut Pool) {
        if table.waits() {
            self.gone.push_back((name, Gone::Table(table)));
        } else {
            pool.recycle(table);
        }
    }

    /// A pane is no longer needed, likewise.
    pub fn let_pane_go(&mut self, place: Place, pane: Pane, pool: &mut Pool) {
        let number = pane.layers.len() as i64;
        for (number, layer) in pane.layers.into_iter().enumerate() {
            if layer.waits() {
                self.gone.push_back(((place, number as i64), Gone::Layer(layer)));
            }
        }
        if let Some(table) = pane.table {
            self.let_go((place, number), table, pool);
        }
    }

    /// Takes all groups out of a pane, as layers; what waits of them is copied.
    pub fn take_out(&mut self, place: Place, pane: &mut Pane) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        for (number, mut layer) in mem::take(&mut pane.layers).into_iter().enumerate() {
            self.copied.extend(layer.save(usize::MAX)?.into_iter().map(|copied| ((place, number as i64), copied)));
            layers.push(layer.layer);
        }
        if let Some(mut table) = pane.table.take() {
            let name = (place, layers.len() as i64);
            self.copied.extend(table.save(usize::MAX).into_iter().map(|copied| (name, copied)));
            layers.push(table.layer());
        }
        Ok(layers)
    }

    /// Copies about as many groups of the checkpoint at hand.
    pub fn copy(&mut self, mut room: usize, panes: &mut BTreeMap<Place, Pane>, pool: &mut Pool) -> Result<()> {
        let PaneCopies { places, gone, copied } = self;
        let mut keep = |name: Name, layers: Vec<Layer>, room: &mut usize| {
            *room = room.saturating_sub(layers.iter().map(|layer| layer.rows).sum());
            copied.extend(layers.into_iter().map(|layer| (name, layer)));
        };
        while let Some((name, what)) = gone.front_mut().filter(|_| room > 0) {
            let (layers, waits) = match what {
                Gone::Table(table) => (table.save(room), table.waits()),
                Gone::Layer(layer) => (layer.save(room)?, layer.waits()),
            };
            keep(*name, layers, &mut room);
            if !waits && let Some((_, Gone::Table(table))) = gone.pop_front() {
                pool.recycle(table);
            }
        }
        while let Some(&place) = places.front().filter(|_| room > 0) {
            let mut waits = false;
            // One that is not there any more went with all that waited.
            if let Some(pane) = panes.get_mut(&place) {
                for (number, layer) in pane.layers.iter_mut().enumerate() {
                    keep((place, number as i64), layer.save(room)?, &mut room);
                    waits |= layer.waits();
                }
                if let Some(table) = &mut pane.table {
                    keep((place, pane.layers.len() as i64), table.save(room), &mut room);
                    waits |= table.waits();
                }
            }
            if !waits {
                places.pop_front();
            }
        }
        Ok(())
    }
}
