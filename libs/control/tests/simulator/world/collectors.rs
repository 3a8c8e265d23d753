//! The executor of a collection, in a control plane.

use std::collections::BTreeSet;

use control::epochs::collection::{self, Collection, Policy};

use super::{Answer, Collector, Request, Who, World, guarded_reply};
use crate::model::*;
use crate::sabotage::Sabotage;

impl World {
    pub(super) fn collect(&mut self) {
        let policy = Policy { keep: 2, grace_us: if self.config.aging { 8 } else { 0 } };
        let (machine, effect) = Collection::new(policy);
        self.collectors.push(Collector { term: self.db.term, machine: Some(machine) });
        self.collector_effect(self.collectors.len() - 1, effect);
    }

    pub(super) fn collected(&mut self, at: usize, request: Request, answer: Answer) {
        use collection::Event;
        let blind = self.is(Sabotage::UploadsCollected);
        let event = match (request, answer) {
            (Request::Rows, Answer::Rows(rows)) => {
                let (rows, generation) = (*rows).clone();
                let generation = if blind { u64::MAX } else { generation };
                Event::Rows { rows, pinned: BTreeSet::new(), generation }
            }
            (Request::Retire { .. }, answer) => Event::Retired(guarded_reply(&answer)),
            (Request::Manifests { .. }, Answer::Names { retained, retired }) => {
                let (mut retained, retired) = ((*retained).clone(), (*retired).clone());
                if self.is(Sabotage::OneTooMany)
                    && let Some(oldest) = retained.first_mut()
                {
                    oldest.objects.clear();
                }
                Event::Manifests { retained, retired }
            }
            (Request::List, Answer::Listed(objects)) => Event::Listed((*objects).clone()),
            (Request::Delete { .. }, Answer::Done) => Event::Deleted,
            _ => Event::Failed,
        };
        let Some(machine) = &mut self.collectors[at].machine else { return };
        let effect = machine.step(event);
        let ended = machine.has_ended();
        if let Some(effect) = effect {
            self.collector_effect(at, effect);
        }
        if ended {
            self.collectors[at].machine = None;
        }
    }

    pub(super) fn collector_effect(&mut self, at: usize, effect: collection::Effect<Name>) {
        use collection::Effect;
        let request = match effect {
            Effect::ReadRows => Request::Rows,
            Effect::Retire { epochs } => Request::Retire { epochs },
            Effect::ReadManifests { retained, retired } => Request::Manifests { retained, retired },
            Effect::List => Request::List,
            Effect::Delete { objects } => Request::Delete { objects },
            Effect::Done { .. } | Effect::Stop => return,
        };
        self.send(Who::Collector(at as u8), request);
    }
}
