//! The normal form of a world that is explored: what can never make a difference is forgotten, so that worlds which differ in nothing else are one.
//!
//! Of producers only counts whether they are the newest of their sink: no other is ever let in again. A request of which nobody hears the
//! answer only counts while it may still have an effect.

use super::{Answer, Op, Request, Sink, SinkRequest, Who, World, is_database};

/// What a producer that is fenced is called, and the newest.
const FENCED: u32 = 0;
const NEWEST: u32 = 1;

impl World {
    pub fn normalize(&mut self) {
        let allowed = &self.config.allowed;
        // A database that goes back lets old generations in again.
        if self.config.sabotage.is_none() && allowed.lost_tails == 0 {
            let mut ops = std::mem::take(&mut self.ops);
            ops.retain(|op| op.answer.is_some() || self.hears(op.who) || self.may_have_an_effect(op));
            self.ops = ops;
        }
        self.rename_producers();
        // In order: worlds do not differ in who asked first.
        let key = |op: &Op| (op.who, op.term, op.attached, op.answer.is_some());
        self.ops.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.request.cmp(&b.request)));
    }

    fn may_have_an_effect(&self, op: &Op) -> bool {
        // The next term, generation, producer or entry does not go away.
        let Who::Attempt(at) = op.who else { return true };
        if is_database(&op.request) {
            return op.term == self.db.term && self.attempts[usize::from(at)].generation == self.db.generation;
        }
        let Request::Sink { sink, request } = &op.request else { return true };
        match (&self.sinks[usize::from(*sink)], request) {
            (Sink::Kafka(kafka), SinkRequest::Write { producer, .. })
            | (Sink::Kafka(kafka), SinkRequest::Mark { producer, .. })
            | (Sink::Kafka(kafka), SinkRequest::End { producer }) => *producer == kafka.producer,
            (Sink::Files(chain), SinkRequest::Append { number, .. }) => *number >= chain.entries.len(),
            _ => true,
        }
    }

    fn rename_producers(&mut self) {
        for (at, sink) in self.sinks.iter_mut().enumerate() {
            let Sink::Kafka(kafka) = sink else { continue };
            let newest = std::mem::replace(&mut kafka.producer, NEWEST);
            let rename = |producer: &mut u32| *producer = if *producer == newest { NEWEST } else { FENCED };
            for op in &mut self.ops {
                let Request::Sink { sink, request } = &mut op.request else { continue };
                if usize::from(*sink) != at {
                    continue;
                }
                if let SinkRequest::Write { producer, .. }
                | SinkRequest::Mark { producer, .. }
                | SinkRequest::End { producer } = request
                {
                    rename(producer);
                }
                if let Some(Answer::Producer(producer)) = &mut op.answer {
                    rename(producer);
                }
            }
            for attempt in &mut self.attempts {
                attempt.committers[at].producer.iter_mut().for_each(rename);
            }
        }
    }
}
