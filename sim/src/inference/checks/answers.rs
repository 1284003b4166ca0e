//! Each whole answer is exactly what one runner said from its beginning to its end; one that failed is a first part of it.
//! And what the log calls done was done.

use std::collections::BTreeMap;

use lockstep_inference::event::Event;
use lockstep_inference::id::TaskId;
use lockstep_inference::state::TaskOutcome;
use lockstep_inference::transient::Usage;

use crate::checks::Broken;

const NAME: &str = "answers";

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    tasks: BTreeMap<TaskId, Answer>,
}

#[derive(Clone, Debug, Default)]
struct Answer {
    /// By attempt: after a branch of the log lost, a runner may begin a task anew.
    said: BTreeMap<u64, Said>,
    heard: String,
}

#[derive(Clone, Debug, Default)]
struct Said {
    text: String,
    done: Option<Usage>,
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// More text.
    Text(&'a str),
    /// It is complete.
    End(Usage),
    /// It failed.
    Failed,
}

impl Answers {
    /// A client asked.
    pub fn opened(&mut self, task: TaskId) {
        self.tasks.insert(task, Answer::default());
    }

    /// A runner was given a task.
    pub fn begun(&mut self, task: TaskId, attempt: u64) {
        self.tasks.entry(task).or_default().said.entry(attempt).or_default();
    }

    /// That of rank 0 says more.
    pub fn said(&mut self, task: TaskId, attempt: u64, text: &str) {
        self.tasks.entry(task).or_default().said.entry(attempt).or_default().text.push_str(text);
    }

    /// It says that this was all.
    pub fn done(&mut self, task: TaskId, attempt: u64, usage: Usage) {
        self.tasks.entry(task).or_default().said.entry(attempt).or_default().done = Some(usage);
    }

    /// A client is told something.
    pub fn heard(&mut self, task: TaskId, told: Told<'_>) -> Result<(), Broken> {
        let answer = self.tasks.entry(task).or_default();
        let is_right = match told {
            Told::Text(text) => {
                answer.heard.push_str(text);
                answer.said.values().any(|said| said.text.starts_with(&answer.heard))
            }
            Told::End(usage) => answer.said.values().any(|said| said.done == Some(usage) && said.text == answer.heard),
            Told::Failed => true,
        };
        if is_right {
            return Ok(());
        }
        let heard: String = answer.heard.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
        Err(Broken::new(NAME, format!("task {task}: no runner said what its client heard, which ends in {heard:?}")))
    }

    /// Some machine applied an event.
    pub fn event(&self, event: &Event) -> Result<(), Broken> {
        let Event::TaskFinished { task, outcome: TaskOutcome::Done { tokens } } = event else { return Ok(()) };
        let said = self.tasks.get(task).into_iter().flat_map(|answer| answer.said.values());
        if said.filter_map(|said| said.done).any(|usage| usage.completion_tokens == *tokens) {
            return Ok(());
        }
        Err(Broken::new(NAME, format!("task {task} is done with {tokens} tokens, which no runner said")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId([1; 16]);

    fn said() -> Answers {
        let mut books = Answers::default();
        books.opened(TASK);
        ["a", "b"].into_iter().for_each(|text| books.said(TASK, 1, text));
        books
    }

    #[test]
    fn a_hole_a_doubled_part_or_a_mixture_is_found() {
        let usage = Usage { prompt_tokens: 1, completion_tokens: 2 };
        let mut books = said();
        assert!(books.clone().heard(TASK, Told::Text("b")).is_err());
        books.heard(TASK, Told::Text("a")).unwrap();
        assert!(books.clone().heard(TASK, Told::Text("a")).is_err());
        books.said(TASK, 2, "ac");
        books.heard(TASK, Told::Text("b")).unwrap();
        assert!(books.clone().heard(TASK, Told::Text("c")).is_err());
        assert!(books.clone().heard(TASK, Told::End(usage)).is_err(), "no runner said that this was all");
        books.done(TASK, 1, usage);
        books.heard(TASK, Told::End(usage)).unwrap();
    }

    #[test]
    fn what_is_done_was_said_to_be() {
        let mut books = said();
        let finished = Event::TaskFinished { task: TASK, outcome: TaskOutcome::Done { tokens: 2 } };
        assert!(books.event(&finished).is_err());
        books.done(TASK, 1, Usage { prompt_tokens: 1, completion_tokens: 2 });
        books.event(&finished).unwrap();
    }
}
