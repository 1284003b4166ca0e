//! In which order the ranks of an instance go on, and when what they have of each other is void.
//!
//! A round begins when no rank is past connecting. Rank 0 connects first, rank k when rank k-1 does; all load when all
//! are connected, and warm up when all have loaded, each beginning when the rank before it has begun. Loading itself
//! goes on side by side: it takes minutes.
//!
//! A rank that falls back, because its process ended or its node started again, voids the round: each other rank that
//! is connected ends its own process and begins anew. As nobody connects while somebody is still past connecting,
//! a rank that did not see the other fall (a snapshot, a newer status that replaced the older one) is waited for until
//! it has. A rank that only connects follows the rank before it alone, so that two ranks cannot end each other for ever;
//! what this leaves open a time-out on connecting ends.

use crate::state::{Rank, RunnerStatus, State};

/// How far a rank is, as others need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Down,
    Connecting,
    Connected,
    Loading,
    Loaded,
    WarmingUp,
    Ready,
}

pub(super) fn level(status: &RunnerStatus) -> Level {
    match status {
        RunnerStatus::Idle | RunnerStatus::ShuttingDown | RunnerStatus::ShutDown | RunnerStatus::Failed { .. } => {
            Level::Down
        }
        RunnerStatus::Connecting => Level::Connecting,
        RunnerStatus::Connected => Level::Connected,
        RunnerStatus::Loading { .. } => Level::Loading,
        RunnerStatus::Loaded => Level::Loaded,
        RunnerStatus::WarmingUp => Level::WarmingUp,
        RunnerStatus::Ready | RunnerStatus::Running => Level::Ready,
    }
}

/// The levels of all ranks, as the state shows them.
pub(super) fn levels(state: &State, ranks: &[Rank]) -> Vec<Level> {
    let shown = |rank: &Rank| state.runners.get(&rank.runner).map_or(Level::Down, |runner| level(&runner.status));
    ranks.iter().map(shown).collect()
}

/// Whether this rank may connect.
pub(super) fn may_connect(levels: &[Level], rank: usize) -> bool {
    let in_turn = rank == 0 || levels[rank - 1] == Level::Connecting;
    in_turn && others(levels, rank).all(|level| level <= Level::Connecting)
}

/// Whether this rank may begin a step that all begin when each has reached `reached`.
pub(super) fn may_begin(levels: &[Level], rank: usize, step: Level, reached: Level) -> bool {
    let in_turn = rank == 0 || levels[rank - 1] >= step;
    in_turn && others(levels, rank).all(|level| level >= reached)
}

/// Whether all other ranks look for each other, so that this one can find them.
pub(super) fn all_connect(levels: &[Level], rank: usize) -> bool {
    others(levels, rank).all(|level| level >= Level::Connecting)
}

/// The rank whose fall voids the round of this rank, which is at `own`. `seen` holds how far each was seen in this round.
pub(super) fn fallen(levels: &[Level], seen: &[Level], rank: usize, own: Level) -> Option<usize> {
    let fell = |other: &usize| {
        let (now, before) = (levels[*other], seen[*other]);
        match own {
            Level::Down => false,
            Level::Connecting => *other + 1 == rank && now < before,
            Level::Connected | Level::Loading | Level::Loaded | Level::WarmingUp | Level::Ready => {
                *other != rank && now < before && now <= Level::Connecting
            }
        }
    };
    (0..levels.len()).find(fell)
}

fn others(levels: &[Level], rank: usize) -> impl Iterator<Item = Level> {
    levels.iter().enumerate().filter(move |(other, _)| *other != rank).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Connected, Connecting, Down, Loaded, Loading, Ready, WarmingUp};

    #[test]
    fn ranks_connect_in_order_and_never_into_an_older_round() {
        assert!(may_connect(&[Down], 0));
        assert!(may_connect(&[Down, Down], 0) && !may_connect(&[Down, Down], 1));
        assert!(may_connect(&[Connecting, Down, Down], 1) && !may_connect(&[Connecting, Down, Down], 2));
        assert!(!may_connect(&[Ready, Down], 1), "rank 0 has not seen rank 1 fall yet");
        assert!(!may_connect(&[Down, Down, Ready], 0), "rank 2 has not");
    }

    #[test]
    fn a_step_begins_when_all_have_done_the_one_before_it() {
        let may_load = |levels: &[Level], rank| may_begin(levels, rank, Loading, Connected);
        assert!(!may_load(&[Connected, Connecting], 0) && may_load(&[Connected, Connected], 0));
        assert!(!may_load(&[Connected, Connected], 1) && may_load(&[Loading, Connected], 1));
        assert!(may_load(&[Loaded, Connected], 1));
        assert!(
            !may_begin(&[Loaded, Loading], 0, WarmingUp, Loaded) && may_begin(&[Loaded, Loaded], 0, WarmingUp, Loaded)
        );
    }

    #[test]
    fn a_rank_that_falls_back_voids_the_round_of_those_that_had_it() {
        assert_eq!(fallen(&[Ready, Down], &[Ready, Ready], 0, Ready), Some(1));
        assert_eq!(fallen(&[Ready, Connecting], &[Ready, Ready], 0, Ready), Some(1));
        assert_eq!(fallen(&[Connected, Connecting], &[Connected, Connecting], 0, Connected), None);
        assert_eq!(fallen(&[Connected, Down], &[Connected, Down], 0, Connected), None, "it is only not shown yet");
        assert_eq!(fallen(&[Ready, Loaded], &[Ready, Ready], 0, Ready), None);
    }

    #[test]
    fn while_connecting_only_the_rank_before_counts() {
        assert_eq!(fallen(&[Down, Connecting], &[Connecting, Connecting], 1, Connecting), Some(0));
        assert_eq!(fallen(&[Connecting, Down], &[Connecting, Connecting], 0, Connecting), None);
    }
}
