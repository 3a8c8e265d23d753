//! What the leader asks the control plane, which looks for questions at the control socket: whether an epoch has happened.
//!
//! There is one question at a time. While nobody looks, or nobody knows, it waits; the run goes on as far as it may without an answer.

use std::sync::Arc;

use control::attempt::{Answer, Question, Verdict};
use engine::runtime::{self, Authority, Decision};
use futures::future::BoxFuture;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Questions {
    asked: Arc<watch::Sender<Option<Question>>>,
    answered: Arc<watch::Sender<Option<Answer>>>,
}

impl Questions {
    pub fn new() -> Questions {
        Questions { asked: Arc::new(watch::Sender::new(None)), answered: Arc::new(watch::Sender::new(None)) }
    }

    /// The question that is open, or the next one.
    pub async fn next(&self) -> Question {
        let mut asked = self.asked.subscribe();
        let question = asked.wait_for(Option::is_some).await.expect("the sender is held here");
        question.clone().expect("it was waited for")
    }

    /// An answer to a question that is no longer open changes nothing.
    pub fn answer(&self, answer: Answer) {
        if self.asked.borrow().as_ref() == Some(&answer.to) || faults::broken("accept_late_answers") {
            self.answered.send_replace(Some(answer));
        }
    }

    async fn ask(&self, question: Question) -> runtime::Verdict {
        // The same question may have been asked before, and answered when nobody waited any more.
        self.answered.send_replace(None);
        let mut answered = self.answered.subscribe();
        self.asked.send_replace(Some(question.clone()));
        let is_to_it = |answer: &Option<Answer>| {
            answer.as_ref().is_some_and(|answer| answer.to == question || faults::broken("accept_late_answers"))
        };
        let verdict = answered.wait_for(is_to_it).await.expect("the sender is held here").clone();
        self.asked.send_replace(None);
        match verdict.expect("it was waited for").verdict {
            Verdict::Done => runtime::Verdict::Done,
            Verdict::Fenced(why) => runtime::Verdict::Fenced(why),
        }
    }
}

impl Authority for Questions {
    fn decide(&self, decision: Decision) -> BoxFuture<'_, runtime::Verdict> {
        Box::pin(self.ask(Question::Decide(control::attempt::Decision {
            epoch: decision.epoch,
            previous: decision.previous,
            nonce: decision.nonce,
            manifest: decision.manifest.path,
            manifest_bytes: decision.manifest.bytes,
            manifest_sha256: decision.manifest.sha256,
            bytes: decision.bytes,
            total_bytes: decision.total_bytes,
            duration_us: decision.duration_us,
            operators: decision.operators,
            last: decision.last,
            commits: decision.commits,
        })))
    }

    fn confirm(&self, epoch: u64) -> BoxFuture<'_, runtime::Verdict> {
        Box::pin(self.ask(Question::Confirm { epoch }))
    }

    fn abandon(&self, epoch: u64) -> BoxFuture<'_, runtime::Verdict> {
        Box::pin(self.ask(Question::Abandon { epoch }))
    }

    fn is_newest(&self) -> BoxFuture<'_, runtime::Verdict> {
        Box::pin(self.ask(Question::IsNewest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_waits_for_the_answer_to_it() {
        let questions = Questions::new();
        let asked = {
            let questions = questions.clone();
            tokio::spawn(async move { questions.confirm(7).await })
        };
        let question = questions.next().await;
        assert_eq!(question, Question::Confirm { epoch: 7 });
        assert_eq!(questions.next().await, question, "it stays open until it is answered");
        questions.answer(Answer { to: Question::Confirm { epoch: 6 }, verdict: Verdict::Fenced("another".into()) });
        assert!(!asked.is_finished());
        for _ in 0..2 {
            questions.answer(Answer { to: question.clone(), verdict: Verdict::Done });
        }
        assert_eq!(asked.await.expect("it ends"), runtime::Verdict::Done);
        let again = {
            let questions = questions.clone();
            tokio::spawn(async move { questions.confirm(8).await })
        };
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), questions.next()).await;
        assert_eq!(next.expect("it is asked, and open"), Question::Confirm { epoch: 8 });
        assert!(!again.is_finished(), "an answer to another question is none to this one");
    }
}
