//! What became of the newest commands that came to this node: bounded, in memory, gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use lockstep_inference::Inference;
use lockstep_replication::{CommandId, Outcome};

/// How many commands are remembered: as many as replicated state remembers by name.
const REMEMBERED: usize = 10_000;

/// The newest commands and their outcomes, the oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    outcomes: HashMap<CommandId, Option<Outcome<Inference>>>,
    oldest_first: VecDeque<CommandId>,
}

impl Recent {
    /// A command was handed to the node. One that is asked for again keeps what is known of it until there is news.
    pub(crate) fn begin(&self, id: CommandId) {
        self.with(|inner| {
            if let std::collections::hash_map::Entry::Vacant(place) = inner.outcomes.entry(id) {
                place.insert(None);
                inner.oldest_first.push_back(id);
            }
            if inner.oldest_first.len() > REMEMBERED
                && let Some(oldest) = inner.oldest_first.pop_front()
            {
                inner.outcomes.remove(&oldest);
            }
        });
    }

    /// Its outcome is there.
    pub(crate) fn end(&self, id: CommandId, outcome: &Outcome<Inference>) {
        self.with(|inner| {
            // Forgotten meanwhile, if it is not there any more.
            if let Some(place) = inner.outcomes.get_mut(&id) {
                // What is done stays done, whatever became of asking for it again.
                if !matches!(place, Some(Outcome::Done { .. })) {
                    *place = Some(outcome.clone());
                }
            }
        });
    }

    /// What is known of it: nothing, that it waits, or its outcome.
    pub(crate) fn get(&self, id: CommandId) -> Option<Option<Outcome<Inference>>> {
        self.with(|inner| inner.outcomes.get(&id).cloned())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // Nothing in here panics half-way, so a poisoned table is as good as any.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_replication::Index;
    use lockstep_replication::io::Unknown;

    use super::*;

    fn name(n: usize) -> CommandId {
        CommandId((n as u128).to_be_bytes())
    }

    #[test]
    fn a_command_waits_then_has_an_outcome_and_done_is_final() {
        let recent = Recent::default();
        assert_eq!(recent.get(name(1)), None);
        recent.begin(name(1));
        assert_eq!(recent.get(name(1)), Some(None));
        let done = Outcome::Done { index: Index(7), held: 2, of: 3 };
        recent.end(name(1), &done);
        recent.begin(name(1));
        recent.end(name(1), &Outcome::Unknown(Unknown::TimedOut));
        assert_eq!(recent.get(name(1)), Some(Some(done)));
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_limit() {
        let recent = Recent::default();
        (0..=REMEMBERED).for_each(|n| recent.begin(name(n)));
        assert_eq!(recent.get(name(0)), None);
        assert_eq!(recent.get(name(1)), Some(None));
        assert_eq!(recent.get(name(REMEMBERED)), Some(None));
        recent.end(name(0), &Outcome::Unknown(Unknown::TimedOut));
        assert_eq!(recent.get(name(0)), None, "what is forgotten does not come back");
    }
}
