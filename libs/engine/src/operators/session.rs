//! Aggregates by key over sessions: rows whose distance is at most the gap share one.
//!
//! A session starts at its first row's time and ends at its last row's time + gap. A row at that very end shares it, so it is complete, and
//! fires, when the watermark reaches its end: one unit later than a window of fixed length. Its `window_time` is end - u all the same; so
//! that what follows never takes it for late, results travel one unit behind the watermark ([`Operator::behind`]). State: per key the sessions that are open, each with a slot of aggregates. A row opens a session, widens one, or joins two.
//!
//! Lateness is decided here, row by row in the order of arrival, because the session that a row would join may still be open: then the row
//! is in time. Else it would be a session by itself, and is late if that one is over.
//!
//! Where keys may lie on disk ([`super::disk_session`]), those that were not touched lately do when there are too many sessions.
//!
//! With allowed lateness fired sessions stay until it is over. A row may change them; at the end of the epoch what was sent before is taken
//! back: as -U/+U if the session is still due, as -D if it was widened beyond the watermark (it fires again later) or joined to another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::mem;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::{Chain, KeyTable, Marks, NO_SLOT, SlotVec, SnapshotReader, SnapshotWriter};

use super::disk::{Disk, loaded_rows};
use super::disk_session::{Back, DiskSessions, SESSIONS, behind};
use super::groups::{Accumulators, Layout};
use super::ledger::{Late, Ledger, SplitNames};
use super::panes::{LENGTH_MAX, Rule};
use super::results::{BATCH_ROWS, Changes, Results, differs, record_batch};
use super::saved::{SAVE_ROWS, load, load_watermark, save, save_changes, save_removal, save_watermark};
use super::times::{Times, timestamps};
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::SessionSpec;

const TABLE: &str = "sessions";
/// Sessions written to disk at once.
const WRITE_ROWS: usize = 64 * 1024;

pub struct SessionAggregate {
    rule: Rule,
    gap: i64,
    time: usize,
    layout: Arc<Layout>,
    ledger: Ledger,
    keys: KeyTable,
    /// By key: how many sessions it has, and the one that starts last.
    of_key: SlotVec<OfKey>,
    /// By slot of the aggregates.
    sessions: Vec<Session>,
    free: Vec<u32>,
    accumulators: Accumulators,
    /// (key, start) to slot.
    by_start: BTreeMap<(u32, i64), u32>,
    /// (instant it closes, slot) of the sessions that have yet to fire, checked when they come up: a session may have been widened since.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// (instant it closes, slot) of the sessions that have fired and stay for late rows, likewise.
    fired: BinaryHeap<Reverse<(i64, u32)>>,
    /// Rows sent of sessions that changed since, in this epoch.
    stale: Vec<Stale>,
    /// What the next checkpoint has to copy of the sessions, and the chain of parts that it is added to.
    marks: Marks,
    chain: Chain,
    /// Rows of the checkpoint that is being copied, from before they changed; and what went of earlier ones: keys and starts.
    early: Vec<RecordBatch>,
    removed: Vec<(Vec<ArrayRef>, ArrayRef)>,
    disk: Option<DiskSessions>,
    /// By key, where some may lie on disk: touched since the hand passed. Where the search for keys to leave goes on.
    touched: SlotVec<bool>,
    hand: u32,
    wm: i64,
    schema: SchemaRef,
    saved: SchemaRef,
}

#[derive(Clone, Copy)]
struct OfKey {
    sessions: u32,
    newest: u32,
}

const NO_SESSIONS: OfKey = OfKey { sessions: 0, newest: NO_SLOT };

#[derive(Clone, Copy)]
struct Session {
    key: u32,
    start: i64,
    /// Time of the last row.
    last: i64,
    state: State,
    /// A checkpoint has it, by this start.
    saved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The slot is free.
    Gone,
    /// Not fired.
    Open,
    Fired,
    /// Fired and changed in this epoch: it has stale rows.
    Changed,
}

/// A row that was sent and no longer holds.
struct Stale {
    /// The session that has taken the place of the one that was sent.
    slot: u32,
    row: RecordBatch,
}

/// What the rows of a batch did.
#[derive(Default)]
struct Moves {
    /// The session of each row.
    slots: Vec<u32>,
    /// Row numbers that came too late, ascending.
    late: Vec<u32>,
    /// (from, to): sessions that were joined to others, in order.
    joined: Vec<(u32, u32)>,
    /// Fired sessions that change, as they were when they were sent.
    changed: Vec<(u32, Session)>,
    /// Sessions that change and wait to be copied for a checkpoint, as they were.
    early: Vec<(u32, Session)>,
    /// (key, start) of sessions that checkpoints have and that now are others.
    removed: Vec<(u32, i64)>,
}

impl SessionAggregate {
    /// With `disk`, what does not fit in memory lies there.
    pub fn new(spec: &SessionSpec, names: SplitNames, disk: Option<Arc<Disk>>) -> Result<SessionAggregate> {
        assert!((1..=LENGTH_MAX).contains(&spec.gap), "planning refuses gaps of 0 or of thousands of years");
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, false)?;
        let number = |name: &str| Arc::new(Field::new(name, DataType::Int64, false)) as FieldRef;
        let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
        let saved: Vec<FieldRef> = columns.chain([number("start"), number("last")]).collect();
        Ok(SessionAggregate {
            rule: Rule { unit: spec.unit, lateness: spec.lateness },
            gap: spec.gap,
            time: spec.time,
            ledger: Ledger::new(&spec.operator, &spec.ledger, &spec.shown, names),
            keys: layout.key_table()?,
            of_key: SlotVec::new(NO_SESSIONS),
            sessions: Vec::new(),
            free: Vec::new(),
            accumulators: layout.accumulators()?,
            by_start: BTreeMap::new(),
            due: BinaryHeap::new(),
            fired: BinaryHeap::new(),
            stale: Vec::new(),
            marks: Marks::default(),
            chain: Chain::default(),
            early: Vec::new(),
            removed: Vec::new(),
            disk: disk.map(|disk| DiskSessions::new(&layout, disk)).transpose()?,
            touched: SlotVec::default(),
            hand: 0,
            wm: i64::MIN,
            schema,
            saved: Arc::new(Schema::new(saved)),
            layout,
        })
    }

    #[cfg(test)]
    pub fn open_sessions(&self) -> usize {
        self.by_start.len()
    }

    #[cfg(test)]
    pub fn known_keys(&self) -> usize {
        self.keys.len()
    }

    /// Whether a row so long after (or before) a session's last (first) row shares it.
    fn shares(&self, distance: i64) -> bool {
        distance <= self.gap
    }

    fn end(&self, session: &Session) -> i64 {
        session.last + self.gap
    }

    /// The first instant at which no row can share a session any more: one after its end, which still does.
    fn closes(&self, session: &Session) -> i64 {
        self.end(session) + self.rule.unit
    }

    /// Puts a row into a session: the common case, it comes after the start of its key's newest session, before the gap has passed.
    fn place(&mut self, key: u32, time: i64, stamp: i64, moves: &mut Moves) -> u32 {
        let newest = self.of_key[key].newest;
        if newest != NO_SLOT {
            let session = self.sessions[newest as usize];
            if session.state == State::Open && time >= session.start && self.shares(time - session.last) {
                self.keep_early(newest, moves);
                self.sessions[newest as usize].last = session.last.max(time);
                return newest;
            }
        }
        self.place_anywhere(key, time, stamp, moves)
    }

    /// The session of a row, or [`NO_SLOT`] if it is late.
    fn place_anywhere(&mut self, key: u32, time: i64, stamp: i64, moves: &mut Moves) -> u32 {
        // Sessions of a key are further apart than the gap, so at most the two beside the row are in reach.
        let open = |slot: &u32| !self.rule.late(self.closes(&self.sessions[*slot as usize]), self.wm);
        let before = self.by_start.range((key, i64::MIN)..=(key, time)).next_back().map(|(_, slot)| *slot);
        let before = before.filter(|slot| self.shares(time - self.sessions[*slot as usize].last)).filter(open);
        let after = self.by_start.range((key, time.saturating_add(1))..=(key, i64::MAX)).next().map(|(_, slot)| *slot);
        let after = after.filter(|slot| self.shares(self.sessions[*slot as usize].start - time)).filter(open);
        match (before, after) {
            (None, None) if self.rule.late(time + self.gap + self.rule.unit, stamp) => NO_SLOT,
            (None, None) => self.open(Session { key, start: time, last: time, state: State::Open, saved: false }),
            (Some(slot), None) => {
                self.change(slot, moves);
                let session = &mut self.sessions[slot as usize];
                session.last = session.last.max(time);
                slot
            }
            (None, Some(slot)) => {
                self.change(slot, moves);
                self.rename(slot, moves);
                let start = mem::replace(&mut self.sessions[slot as usize].start, time);
                self.by_start.remove(&(key, start));
                self.by_start.insert((key, time), slot);
                slot
            }
            (Some(slot), Some(next)) => {
                self.change(slot, moves);
                self.change(next, moves);
                self.rename(next, moves);
                moves.joined.push((next, slot));
                let joined = self.sessions[next as usize];
                let session = &mut self.sessions[slot as usize];
                session.last = joined.last;
                if joined.state == State::Changed {
                    session.state = State::Changed;
                }
                self.forget(next);
                slot
            }
        }
    }

    /// Gives a session a slot.
    fn open(&mut self, session: Session) -> u32 {
        let slot = self.free.pop().unwrap_or(self.sessions.len() as u32);
        // A free slot may wait, of a checkpoint that has nothing of it.
        let _ = self.marks.leave(slot);
        if slot as usize == self.sessions.len() {
            self.sessions.push(session);
        } else {
            self.sessions[slot as usize] = session;
        }
        let due = Reverse((self.closes(&session), slot));
        if session.state == State::Fired {
            self.fired.push(due)
        } else {
            self.due.push(due)
        }
        self.by_start.insert((session.key, session.start), slot);
        let of_key = &mut self.of_key[session.key];
        of_key.sessions += 1;
        if of_key.newest == NO_SLOT || self.sessions[of_key.newest as usize].start < session.start {
            // With sessions but none known as newest there may be a later one.
            let newest = self.by_start.range((session.key, i64::MIN)..=(session.key, i64::MAX)).next_back();
            of_key.newest = newest.map_or(NO_SLOT, |(_, slot)| *slot);
        }
        slot
    }

    /// Takes a session out of the indexes. Its slot keeps its aggregates, and is not given again, until [`SessionAggregate::release`].
    fn forget(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        session.state = State::Gone;
        let (key, start) = (session.key, session.start);
        self.by_start.remove(&(key, start));
        let of_key = &mut self.of_key[key];
        of_key.sessions -= 1;
        if of_key.newest == slot {
            let newest = self.by_start.range((key, i64::MIN)..=(key, i64::MAX)).next_back();
            of_key.newest = newest.map_or(NO_SLOT, |(_, slot)| *slot);
        }
    }

    fn release(&mut self, slots: &[u32]) {
        self.accumulators.clear(slots);
        self.free.extend_from_slice(slots);
    }

    /// Removes those of the keys that have no sessions.
    fn remove_keys(&mut self, mut keys: Vec<u32>) {
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|&key| self.of_key[key].sessions == 0);
        keys.iter().for_each(|&key| self.of_key.reset(key));
        self.keys.remove(&keys);
    }

    /// Keeps a session as it is, if a checkpoint has yet to copy it: it is about to change.
    #[inline(always)]
    fn keep_early(&mut self, slot: u32, moves: &mut Moves) {
        if self.marks.waits() && self.marks.leave(slot) {
            let session = &mut self.sessions[slot as usize];
            session.saved = true;
            moves.early.push((slot, *session));
        }
    }

    /// Notes that checkpoints know a session by a start that it no longer has.
    fn rename(&mut self, slot: u32, moves: &mut Moves) {
        let session = &mut self.sessions[slot as usize];
        if mem::take(&mut session.saved) {
            moves.removed.push((session.key, session.start));
        }
    }

    /// Notes that a session gets another row or another extent.
    fn change(&mut self, slot: u32, moves: &mut Moves) {
        self.keep_early(slot, moves);
        let session = &mut self.sessions[slot as usize];
        if session.state == State::Fired {
            moves.changed.push((slot, *session));
            session.state = State::Changed;
        }
    }

    /// Result rows of sessions: `slots` say where their aggregates are.
    fn rows(&self, sessions: &[Session], slots: &[u32]) -> Result<RecordBatch> {
        let keys: Vec<u32> = sessions.iter().map(|session| session.key).collect();
        let mut columns = self.keys.keys(&keys);
        let fields = self.schema.fields();
        let bounds: [&dyn Fn(&Session) -> i64; 3] =
            [&|session| session.start, &|session| self.end(session), &|session| self.end(session) - self.rule.unit];
        for bound in bounds {
            columns.push(timestamps(sessions.iter().map(bound).collect(), fields[columns.len()].data_type()));
        }
        columns.extend(self.accumulators.values(slots)?);
        record_batch(&self.schema, columns, slots.len())
    }

    fn rows_of(&self, slots: &[u32]) -> Result<RecordBatch> {
        let sessions: Vec<Session> = slots.iter().map(|&slot| self.sessions[slot as usize]).collect();
        self.rows(&sessions, slots)
    }

    /// Fires the sessions that the watermark closes.
    fn fire(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        let mut slots = Vec::new();
        while let Some(&Reverse((closes, slot))) = self.due.peek()
            && self.rule.fires(closes, wm)
        {
            self.due.pop();
            let session = self.sessions[slot as usize];
            if session.state != State::Open {
                continue; // Joined to another, or looked at again at the end of the epoch.
            }
            if self.closes(&session) > closes {
                self.due.push(Reverse((self.closes(&session), slot)));
                continue;
            }
            self.sessions[slot as usize].state = State::Fired;
            slots.push(slot);
        }
        let mut results = Results::new(&self.schema);
        for slots in slots.chunks(BATCH_ROWS) {
            results.push(self.rows_of(slots)?, out)?;
        }
        results.flush(out)?;
        if self.rule.lateness == 0 {
            self.drop_sessions(slots)?;
        } else {
            for slot in slots {
                let closes = self.closes(&self.sessions[slot as usize]);
                self.fired.push(Reverse((closes, slot)));
            }
        }
        Ok(())
    }

    fn drop_sessions(&mut self, slots: Vec<u32>) -> Result<()> {
        let mut moves = Moves::default();
        for &slot in &slots {
            self.keep_early(slot, &mut moves);
            self.rename(slot, &mut moves);
        }
        self.note(&moves)?;
        let keys = slots.iter().map(|&slot| self.sessions[slot as usize].key).collect();
        slots.iter().for_each(|&slot| self.forget(slot));
        self.release(&slots);
        self.remove_keys(keys);
        Ok(())
    }

    /// Writes down what checkpoints have to know of moves, before aggregates and keys change.
    fn note(&mut self, moves: &Moves) -> Result<()> {
        for sessions in moves.early.chunks(BATCH_ROWS) {
            self.copy(sessions)?;
        }
        if !moves.removed.is_empty() {
            let keys: Vec<u32> = moves.removed.iter().map(|(key, _)| *key).collect();
            let starts = Int64Array::from_iter_values(moves.removed.iter().map(|(_, start)| *start));
            self.removed.push((self.keys.keys(&keys), Arc::new(starts)));
        }
        Ok(())
    }

    /// Copies the rows of these sessions, given with their slots, for the checkpoint at hand.
    fn copy(&mut self, sessions: &[(u32, Session)]) -> Result<()> {
        if sessions.is_empty() {
            return Ok(());
        }
        let slots: Vec<u32> = sessions.iter().map(|(slot, _)| *slot).collect();
        let mut columns = self.keys.keys(&sessions.iter().map(|(_, session)| session.key).collect::<Vec<u32>>());
        columns.extend(self.accumulators.states(&slots));
        for of in [|session: &Session| session.start, |session: &Session| session.last] {
            columns.push(Arc::new(Int64Array::from_iter_values(sessions.iter().map(|(_, session)| of(session)))));
        }
        self.early.push(record_batch(&self.saved, columns, slots.len())?);
        Ok(())
    }

    /// Corrects what was sent of sessions that changed.
    fn send_corrections(&mut self, out: &mut Output) -> Result<()> {
        if self.stale.is_empty() {
            return Ok(());
        }
        // Stale rows by the session that replaces them, in the order of the first change.
        let mut order: Vec<u32> = Vec::new();
        let mut rows_of: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (row, stale) in self.stale.iter().enumerate() {
            let rows = rows_of.entry(stale.slot).or_default();
            if rows.is_empty() {
                order.push(stale.slot);
            }
            rows.push(row);
        }
        let before: Vec<RecordBatch> = self.stale.drain(..).map(|stale| stale.row).collect();
        let before = concat_batches(&self.schema, &before).map_err(failed)?;
        let after = self.rows_of(&order)?;
        let mut changes = Changes::new(&before, &after);
        for (row, slot) in order.into_iter().enumerate() {
            let closes = self.closes(&self.sessions[slot as usize]);
            let mut stale = rows_of.remove(&slot).unwrap_or_default().into_iter();
            if self.rule.fires(closes, self.wm) {
                if let Some(first) = stale.next() {
                    let (old, new) = (before.slice(first, 1), after.slice(row, 1));
                    if differs(old.columns(), new.columns(), 1)?[0] {
                        changes.update(first, row);
                    }
                }
                self.sessions[slot as usize].state = State::Fired;
                self.fired.push(Reverse((closes, slot)));
            } else {
                self.sessions[slot as usize].state = State::Open;
                self.due.push(Reverse((closes, slot)));
            }
            stale.for_each(|row| changes.delete(row));
        }
        changes.send(out)
    }

    /// Drops the fired sessions whose allowed lateness is over.
    fn retire(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        while let Some(&Reverse((closes, slot))) = self.fired.peek()
            && self.rule.late(closes, self.wm)
        {
            self.fired.pop();
            let session = self.sessions[slot as usize];
            // An entry may be outdated: the session was widened, joined, or its slot given to another.
            if session.state == State::Fired && self.closes(&session) == closes {
                self.sessions[slot as usize].state = State::Gone;
                gone.push(slot);
            }
        }
        self.drop_sessions(gone)
    }

    /// Puts sessions that came back from disk into slots.
    fn open_back(&mut self, back: Vec<Back>) -> Result<()> {
        for back in back {
            let mut keys = Vec::with_capacity(back.rows);
            self.keys.intern(&back.keys, back.rows, &mut keys);
            self.grow_keys();
            let mut slots = Vec::with_capacity(keys.len());
            for (row, &key) in keys.iter().enumerate() {
                let state = if back.fired().value(row) { State::Fired } else { State::Open };
                let (start, last) = (back.starts()[row], back.lasts()[row]);
                slots.push(self.open(Session { key, start, last, state, saved: false }));
                self.touch(key);
            }
            self.accumulators.resize(self.sessions.len());
            self.accumulators.merge(&slots, &back.values)?;
            self.mark(&slots);
        }
        Ok(())
    }

    fn intern(&mut self, batch: &Batch, keys: &mut Vec<u32>) {
        self.keys.intern(&batch.rows.columns()[..self.layout.keys()], batch.num_rows(), keys);
        self.grow_keys();
    }

    fn grow_keys(&mut self) {
        self.of_key.grow(self.keys.slots_capacity());
        if self.disk.is_some() {
            self.touched.grow(self.keys.slots_capacity());
        }
    }

    fn touch(&mut self, key: u32) {
        if self.disk.is_some() {
            self.touched[key] = true;
        }
    }

    /// Fetches those of the keys that have no sessions in memory but some on disk.
    fn fetch(&mut self, keys: &[u32]) -> Result<()> {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.is_used()) else { return Ok(()) };
        let mut absent: Vec<u32> = keys.iter().copied().filter(|&key| self.of_key[key].sessions == 0).collect();
        absent.sort_unstable();
        absent.dedup();
        let back = disk.take(&self.keys.keys(&absent), absent.len(), None)?;
        self.open_back(back)
    }

    /// Whether sessions may be due that have yet to be brought back and fire.
    fn is_waking(&self) -> bool {
        self.disk.as_ref().is_some_and(DiskSessions::is_waking)
    }

    /// The sessions of a key, in the order of their starts.
    fn sessions_of(&self, key: u32) -> impl Iterator<Item = u32> {
        self.by_start.range((key, i64::MIN)..=(key, i64::MAX)).map(|(_, slot)| *slot)
    }

    /// When something is to be done about the key: a session fires, or its lateness ends. `None` if it has to stay in memory.
    fn due_of(&self, key: u32) -> Option<i64> {
        let mut due = i64::MAX;
        for slot in self.sessions_of(key) {
            let session = &self.sessions[slot as usize];
            due = due.min(match session.state {
                State::Open => self.end(session),
                State::Fired => self.end(session).saturating_add(self.rule.lateness),
                State::Gone | State::Changed => return None,
            });
        }
        // What is due already is looked for no more.
        (due > self.wm).then_some(due)
    }

    /// How many sessions have to leave memory.
    fn excess(&mut self) -> usize {
        let bytes = self.state_bytes();
        self.disk.as_mut().map_or(0, |disk| disk.excess(self.by_start.len(), bytes))
    }

    /// Lets keys go to disk if there are too many sessions.
    fn make_room(&mut self, out: &mut Output) -> Result<()> {
        let excess = self.excess();
        if self.write_out(excess)? < excess && self.rule.lateness > 0 {
            // Sessions that changed in this epoch stay until they are corrected.
            self.settle(out)?;
            self.write_out(excess)?;
        }
        Ok(())
    }

    /// Writes about so many sessions to disk, of keys that were not touched lately; returns how many.
    fn write_out(&mut self, count: usize) -> Result<usize> {
        if count == 0 {
            return Ok(0);
        }
        let slots = self.keys.slots_capacity() as u32;
        // Slots by the number of the session; of the first of each key, when something is due.
        let (mut numbers, mut dues): (Vec<Vec<u32>>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut sessions_of, mut chosen) = (Vec::new(), 0);
        let mut is_chosen = vec![false; slots as usize];
        // The hand goes around twice, because the first time it takes marks away.
        for _ in 0..2 * u64::from(slots) {
            if chosen >= count {
                break;
            }
            self.hand = (self.hand + 1) % slots;
            let key = self.hand;
            if self.of_key[key].sessions == 0 || mem::take(&mut self.touched[key]) || is_chosen[key as usize] {
                continue;
            }
            let Some(due) = self.due_of(key) else { continue };
            is_chosen[key as usize] = true;
            let of_key: Vec<u32> = self.sessions_of(key).collect();
            chosen += of_key.len();
            for (number, &slot) in of_key.iter().enumerate() {
                if number == numbers.len() {
                    numbers.push(Vec::new());
                }
                numbers[number].push(slot);
            }
            sessions_of.push((key, of_key.len() as i64));
            dues.push(due);
        }
        let known: BTreeMap<u32, (i64, i64)> =
            sessions_of.into_iter().zip(dues).map(|((key, sessions), due)| (key, (sessions, due))).collect();
        for (number, slots) in numbers.iter().enumerate() {
            for slots in slots.chunks(WRITE_ROWS) {
                let sessions: Vec<Session> = slots.iter().map(|&slot| self.sessions[slot as usize]).collect();
                let column = |of: &dyn Fn(&Session) -> i64| sessions.iter().map(of).collect::<Vec<i64>>();
                let behind = behind(
                    column(&|session| session.start),
                    column(&|session| session.last),
                    column(&|session| known[&session.key].0),
                    column(&|session| known[&session.key].1),
                    sessions.iter().map(|session| session.state == State::Fired).collect(),
                );
                let keys = self.keys.keys(&sessions.iter().map(|session| session.key).collect::<Vec<u32>>());
                let values = [self.accumulators.states(slots), behind].concat();
                let disk = self.disk.as_mut().expect("only with a disk is there too much");
                disk.put(number as i64, &keys, &values, slots.len())?;
            }
        }
        self.drop_sessions(numbers.concat())?;
        self.forget_stale_times();
        Ok(chosen)
    }

    /// Entries of sessions that left stay until their time; not if they are more than those of sessions that are here.
    fn forget_stale_times(&mut self) {
        if self.due.len() + self.fired.len() <= 2 * self.by_start.len() + BATCH_ROWS {
            return;
        }
        (self.due, self.fired) = (BinaryHeap::new(), BinaryHeap::new());
        for &slot in self.by_start.values() {
            let session = &self.sessions[slot as usize];
            let due = Reverse((self.closes(session), slot));
            match session.state {
                State::Open => self.due.push(due),
                State::Fired => self.fired.push(due),
                // Entered again at the end of the epoch.
                State::Changed | State::Gone => {}
            }
        }
    }

    /// Brings back and fires some of the sessions on disk that are due; returns whether there may be more.
    fn wake(&mut self, out: &mut Output) -> Result<bool> {
        let Some(disk) = &mut self.disk else { return Ok(false) };
        let Some(back) = disk.next_due(self.wm)? else { return Ok(false) };
        self.open_back(back)?;
        self.fire(self.wm, out)?;
        if self.rule.lateness > 0 {
            self.retire()?;
        }
        self.make_room(out)?;
        Ok(true)
    }

    /// Brings what was sent in line with what is there.
    fn settle(&mut self, out: &mut Output) -> Result<()> {
        if self.rule.lateness > 0 {
            self.send_corrections(out)?;
            // Sessions of late rows may be due already.
            self.fire(self.wm, out)?;
            self.retire()?;
        }
        Ok(())
    }

    fn write_ledger(&self, batch: &Batch, times: &Times, late: &[u32], stamp: i64, out: &mut Output) -> Result<()> {
        let event_times = late.iter().map(|&row| times.micros[row as usize]).collect();
        self.ledger.write(batch, Late { rows: late.to_vec(), event_times, missed: vec![1; late.len()] }, stamp, out)
    }

    /// Updates the aggregates as the rows moved.
    fn apply(&mut self, rows: &RecordBatch, mut moves: Moves) -> Result<()> {
        self.accumulators.resize(self.sessions.len());
        self.note(&moves)?;
        for slots_and_sessions in moves.changed.chunks(BATCH_ROWS) {
            let (slots, sessions): (Vec<u32>, Vec<Session>) = slots_and_sessions.iter().copied().unzip();
            let sent = self.rows(&sessions, &slots)?;
            let stale = slots.iter().enumerate().map(|(row, &slot)| Stale { slot, row: sent.slice(row, 1) });
            self.stale.extend(stale);
        }
        if !moves.joined.is_empty() {
            // A session that took another one may have been taken later: its rows belong to the last one.
            let mut heirs: BTreeMap<u32, u32> = BTreeMap::new();
            for &(from, to) in moves.joined.iter().rev() {
                let heir = heirs.get(&to).copied().unwrap_or(to);
                heirs.insert(from, heir);
            }
            let (from, to): (Vec<u32>, Vec<u32>) = heirs.iter().unzip();
            let states = self.accumulators.states(&from);
            self.accumulators.merge(&to, &states)?;
            moves.slots.iter_mut().for_each(|slot| *slot = heirs.get(slot).copied().unwrap_or(*slot));
            self.stale.iter_mut().for_each(|stale| stale.slot = heirs.get(&stale.slot).copied().unwrap_or(stale.slot));
            self.release(&from);
        }
        if moves.late.is_empty() {
            self.mark(&moves.slots);
            return self.accumulators.add(&moves.slots, rows);
        }
        let mut stays = vec![true; rows.num_rows()];
        moves.late.iter().for_each(|&row| stays[row as usize] = false);
        let stays = BooleanArray::new(BooleanBuffer::from(stays), None);
        let rows = arrow::compute::filter_record_batch(rows, &stays).map_err(failed)?;
        moves.slots.retain(|&slot| slot != NO_SLOT);
        self.mark(&moves.slots);
        self.accumulators.add(&moves.slots, &rows)
    }

    /// Notes that sessions changed. Whatever changes without rows, such as that it fires, is told by the watermark.
    fn mark(&mut self, slots: &[u32]) {
        let early = self.marks.change(slots, self.sessions.len());
        assert!(early.is_empty(), "what waits is copied as its session changes");
    }
}

impl Operator for SessionAggregate {
    fn process(&mut self, _port: usize, batch: Batch, stamp: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        let times = Times::read(batch.rows.column(self.time))?;
        let mut keys = Vec::with_capacity(batch.num_rows());
        self.intern(&batch, &mut keys);
        self.fetch(&keys)?;
        if self.is_waking() {
            // Before rows look for sessions those that are due have fired, as if they had never left. Keys may have gone then.
            self.fire(self.wm, out)?;
            keys.clear();
            self.intern(&batch, &mut keys);
        }
        let mut moves = Moves { slots: Vec::with_capacity(keys.len()), ..Moves::default() };
        for (row, (&key, &time)) in keys.iter().zip(times.micros.iter()).enumerate() {
            self.touch(key);
            let slot = self.place(key, time, stamp, &mut moves);
            if slot == NO_SLOT {
                moves.late.push(row as u32);
            }
            moves.slots.push(slot);
        }
        if !moves.late.is_empty() {
            out.counters.late += moves.late.len() as u64;
            self.write_ledger(&batch, &times, &moves.late, stamp, out)?;
        }
        let late_keys = moves.late.iter().map(|&row| keys[row as usize]).collect();
        self.apply(&batch.rows, moves)?;
        self.remove_keys(late_keys);
        self.make_room(out)
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        while self.advance(wm, out)? {}
        Ok(())
    }

    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        // After a restore the watermark may rise up to where it was: those sessions have fired.
        if wm > self.wm {
            self.wm = wm;
            self.fire(wm, out)?;
            self.disk.iter_mut().for_each(|disk| disk.wake(wm));
        }
        self.wake(out)
    }

    fn behind(&self) -> i64 {
        self.rule.unit
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        self.settle(out)
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.stale.is_empty() && !self.is_waking(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        let removed = mem::take(&mut self.removed);
        let changed = self.marks.changed() + removed.iter().map(|(_, starts)| starts.len()).sum::<usize>();
        let whole = self.chain.next_is_whole(changed, self.by_start.len());
        if !whole {
            let keys = self.layout.keys();
            let identity: Vec<usize> = (0..keys).chain([self.saved.fields().len() - 2]).collect();
            save_changes(writer, TABLE, &self.saved, &identity)?;
            for (keys, starts) in removed {
                let rows = starts.len();
                save_removal(writer, TABLE, &keys, [&keys[..], &[starts]].concat(), rows)?;
            }
        }
        self.marks.begin(self.sessions.len(), whole);
        self.disk.iter_mut().try_for_each(|disk| disk.save(writer))
    }

    fn snapshot_more(&mut self, writer: &mut SnapshotWriter) -> Result<bool> {
        let mut sessions = Vec::new();
        for slot in self.marks.next(SAVE_ROWS) {
            let session = &mut self.sessions[slot as usize];
            if session.state != State::Gone {
                session.saved = true;
                sessions.push((slot, *session));
            }
        }
        self.copy(&sessions)?;
        for rows in self.early.drain(..) {
            save(writer, TABLE, &rows.columns()[..self.layout.keys()], rows.clone())?;
        }
        Ok(self.marks.waits())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let mut chain = reader.chain(TABLE);
        if let Some(disk) = &mut self.disk {
            disk.restore(reader)?;
        }
        // Of an operator that had them on disk, and now has not, or of a savepoint.
        let others = loaded_rows(reader, SESSIONS)?;
        if !others.is_empty() {
            chain = None;
        }
        if chain.is_some() {
            // Before any is read: one that leaves below, and comes back with others of its key, has changed for the checkpoints to come.
            self.marks.track();
        }
        let (keys, states) = (self.layout.keys(), self.layout.state_fields().len());
        for rows in load(reader, TABLE)?.into_iter().chain(others) {
            let mut slots = Vec::new();
            self.keys.intern(&rows.columns()[..keys], rows.num_rows(), &mut slots);
            self.grow_keys();
            // Others of a key may have been written out.
            self.fetch(&slots)?;
            let number = |column: usize| rows.column(keys + states + column).as_primitive::<Int64Type>().values();
            let (starts, lasts) = (number(0), number(1));
            for (row, slot) in slots.iter_mut().enumerate() {
                let mut session = Session {
                    key: *slot,
                    start: starts[row],
                    last: lasts[row],
                    state: State::Open,
                    saved: chain.is_some(),
                };
                // A snapshot follows the end of an epoch, so whatever is due at its watermark has fired.
                if self.rule.fires(self.closes(&session), self.wm) {
                    session.state = State::Fired;
                }
                *slot = self.open(session);
            }
            self.accumulators.resize(self.sessions.len());
            self.accumulators.merge(&slots, &rows.columns()[keys..])?;
            let excess = self.excess();
            self.write_out(excess)?;
        }
        self.chain = chain.unwrap_or_default();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.keys.bytes()
            + self.of_key.bytes()
            + self.touched.bytes()
            + self.accumulators.bytes()
            + self.sessions.capacity() * size_of::<Session>()
            + self.by_start.len() * size_of::<((u32, i64), u32)>() * 3 / 2
            + (self.due.capacity() + self.fired.capacity()) * size_of::<(i64, u32)>()
            + self.marks.bytes()
    }
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot build the rows of a session: {error}"))
}
