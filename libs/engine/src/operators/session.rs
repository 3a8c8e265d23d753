//! Aggregates by key over sessions: rows whose distance is at most the gap share one.
//!
//! A session starts at its first row's time and ends at its last row's time + gap. A row at that very end shares it, so it is complete, and
//! fires, when the watermark reaches its end: one unit later than a window of fixed length. Its `window_time` is end - u all the same; so
//! that what follows never takes it for late, results travel one unit behind the watermark ([`Operator::behind`]). State: per key the sessions that are open, each with a slot of aggregates. A row opens a session, widens one, or joins two.
//!
//! Lateness is decided here, row by row in the order of arrival, because the session that a row would join may still be open: then the row
//! is in time. Else it would be a session by itself, and is late if that one is over.
//!
//! With allowed lateness fired sessions stay until it is over. A row may change them; at the end of the epoch what was sent before is taken
//! back: as -U/+U if the session is still due, as -D if it was widened beyond the watermark (it fires again later) or joined to another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::{KeyTable, NO_SLOT, SlotVec, SnapshotReader, SnapshotWriter};

use super::groups::{Accumulators, Layout};
use super::ledger::{Late, Ledger, SplitNames};
use super::panes::{LENGTH_MAX, Rule};
use super::results::{BATCH_ROWS, Changes, Results, differs, record_batch};
use super::saved::{load, load_watermark, save, save_watermark};
use super::times::{Times, timestamps};
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::SessionSpec;

const TABLE: &str = "sessions";

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
}

impl SessionAggregate {
    pub fn new(spec: &SessionSpec, names: SplitNames) -> Result<SessionAggregate> {
        assert!((1..=LENGTH_MAX).contains(&spec.gap), "planning refuses gaps of 0 or of thousands of years");
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, false)?;
        let number = |name: &str| Arc::new(Field::new(name, DataType::Int64, false)) as FieldRef;
        let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
        let fired: FieldRef = Arc::new(Field::new("fired", DataType::Boolean, false));
        let saved: Vec<FieldRef> = columns.chain([number("start"), number("last"), fired]).collect();
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
            (None, None) => self.open(Session { key, start: time, last: time, state: State::Open }),
            (Some(slot), None) => {
                self.change(slot, moves);
                let session = &mut self.sessions[slot as usize];
                session.last = session.last.max(time);
                slot
            }
            (None, Some(slot)) => {
                self.change(slot, moves);
                let start = mem::replace(&mut self.sessions[slot as usize].start, time);
                self.by_start.remove(&(key, start));
                self.by_start.insert((key, time), slot);
                slot
            }
            (Some(slot), Some(next)) => {
                self.change(slot, moves);
                self.change(next, moves);
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

    /// Notes that a session gets another row or another extent.
    fn change(&mut self, slot: u32, moves: &mut Moves) {
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
            self.drop_sessions(slots);
        } else {
            for slot in slots {
                let closes = self.closes(&self.sessions[slot as usize]);
                self.fired.push(Reverse((closes, slot)));
            }
        }
        Ok(())
    }

    fn drop_sessions(&mut self, slots: Vec<u32>) {
        let keys = slots.iter().map(|&slot| self.sessions[slot as usize].key).collect();
        slots.iter().for_each(|&slot| self.forget(slot));
        self.release(&slots);
        self.remove_keys(keys);
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
    fn retire(&mut self) {
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
        self.drop_sessions(gone);
    }

    fn write_ledger(&self, batch: &Batch, times: &Times, late: &[u32], stamp: i64, out: &mut Output) -> Result<()> {
        let event_times = late.iter().map(|&row| times.micros[row as usize]).collect();
        self.ledger.write(batch, Late { rows: late.to_vec(), event_times, missed: vec![1; late.len()] }, stamp, out)
    }

    /// Updates the aggregates as the rows moved.
    fn apply(&mut self, rows: &RecordBatch, mut moves: Moves) -> Result<()> {
        self.accumulators.resize(self.sessions.len());
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
            return self.accumulators.add(&moves.slots, rows);
        }
        let mut stays = vec![true; rows.num_rows()];
        moves.late.iter().for_each(|&row| stays[row as usize] = false);
        let stays = BooleanArray::new(BooleanBuffer::from(stays), None);
        let rows = arrow::compute::filter_record_batch(rows, &stays).map_err(failed)?;
        moves.slots.retain(|&slot| slot != NO_SLOT);
        self.accumulators.add(&moves.slots, &rows)
    }
}

impl Operator for SessionAggregate {
    fn process(&mut self, _port: usize, batch: Batch, stamp: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        let times = Times::read(batch.rows.column(self.time))?;
        let mut keys = Vec::with_capacity(batch.num_rows());
        self.keys.intern(&batch.rows.columns()[..self.layout.keys()], batch.num_rows(), &mut keys);
        self.of_key.grow(self.keys.slots_capacity());
        let mut moves = Moves { slots: Vec::with_capacity(keys.len()), ..Moves::default() };
        for (row, (&key, &time)) in keys.iter().zip(times.micros.iter()).enumerate() {
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
        Ok(())
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        // After a restore the watermark may rise up to where it was: those sessions have fired.
        if wm <= self.wm {
            return Ok(());
        }
        self.wm = wm;
        self.fire(wm, out)
    }

    fn behind(&self) -> i64 {
        self.rule.unit
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        if self.rule.lateness > 0 {
            self.send_corrections(out)?;
            // Sessions of late rows may be due already.
            self.fire(self.wm, out)?;
            self.retire();
        }
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.stale.is_empty(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        let slots: Vec<u32> = self.by_start.values().copied().collect();
        for slots in slots.chunks(BATCH_ROWS) {
            let of = |slot: &u32| &self.sessions[*slot as usize];
            let keys = self.keys.keys(&slots.iter().map(|slot| of(slot).key).collect::<Vec<u32>>());
            let starts: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| of(slot).start)));
            let lasts: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| of(slot).last)));
            let fired: BooleanArray = slots.iter().map(|slot| Some(of(slot).state == State::Fired)).collect();
            let rest = vec![starts, lasts, Arc::new(fired) as ArrayRef];
            let columns = [keys.clone(), self.accumulators.states(slots), rest].concat();
            save(writer, TABLE, &keys, record_batch(&self.saved, columns, slots.len())?)?;
        }
        Ok(())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        for rows in load(reader, TABLE)? {
            let width = rows.num_columns();
            let mut keys = Vec::new();
            self.keys.intern(&rows.columns()[..self.layout.keys()], rows.num_rows(), &mut keys);
            self.of_key.grow(self.keys.slots_capacity());
            let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().values();
            let (starts, lasts) = (number(width - 3), number(width - 2));
            let fired = rows.column(width - 1).as_boolean();
            let mut slots = Vec::with_capacity(keys.len());
            for (row, &key) in keys.iter().enumerate() {
                let state = if fired.value(row) { State::Fired } else { State::Open };
                slots.push(self.open(Session { key, start: starts[row], last: lasts[row], state }));
            }
            self.accumulators.resize(self.sessions.len());
            self.accumulators.merge(&slots, &rows.columns()[self.layout.keys()..])?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.keys.bytes()
            + self.of_key.bytes()
            + self.accumulators.bytes()
            + self.sessions.capacity() * size_of::<Session>()
            + self.by_start.len() * size_of::<((u32, i64), u32)>() * 3 / 2
            + (self.due.capacity() + self.fired.capacity()) * size_of::<(i64, u32)>()
    }
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot build the rows of a session: {error}"))
}
