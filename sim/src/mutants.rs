//! The hunt for deliberate faults of the core: each is planted, and swarm seeds are run until a check notices.
//!
//! A seed counts only if it holds without the fault, so that nothing else is taken for it. What the swarm seldom meets has
//! a scenario of its own.

use lockstep_replication::chaos::Mutant;
use serde::Serialize;

use crate::scenario::Scenario;
use crate::shrink::{Failing, Size};
use crate::sweep::side_by_side;

/// What became of one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunted {
    /// Its name.
    pub mutant: String,
    /// What it breaks, as a sentence.
    pub broken: &'static str,
    /// The law that it breaks.
    pub law: &'static str,
    /// How many seeds were run with it until the first that noticed.
    pub seeds: u64,
    /// What caught it; nothing if it lives.
    pub caught: Option<Caught>,
}

/// How a fault was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caught {
    /// By which run first: a swarm seed, or a scenario's name.
    pub run: String,
    /// By which check.
    pub check: String,
    /// What it said.
    pub reason: String,
    /// A run that was made small, if that was asked for: this one, or a later one that became smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small: Option<Smaller>,
}

/// A run that was made small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Smaller {
    /// Which run it was.
    pub run: String,
    /// How many faults, commands, machines and lost messages there were.
    pub before: usize,
    /// How many are left.
    pub after: usize,
    /// How many of each kind are left.
    pub left: Size,
    /// How many may be left: 20, or a tenth of what there was.
    pub bound: usize,
    /// Whether its file, read again, fails by the same check, and holds without the fault.
    pub is_kept: bool,
    /// How many runs it took.
    pub runs: u64,
    /// The file.
    #[serde(skip)]
    pub file: String,
}

/// The scenario in which a fault shows that the swarm meets seldom, or whose harm no law names but a time or a count.
pub fn scenario_for(mutant: Mutant) -> Option<&'static str> {
    match mutant {
        Mutant::NackWithoutSpread => Some("fifty-nodes-lose-one-entry"),
        Mutant::NeverLost => Some("drop-and-rejoin-silently"),
        Mutant::LostTooSoon => Some("silent-for-four-seconds"),
        Mutant::LostUnderDoubt => Some("leader-stalls-and-doubts-itself"),
        Mutant::BeatsThoughStalled => Some("leader-beats-but-does-not-work"),
        Mutant::ReplayWithoutWindow => Some("replay-through-a-small-window"),
        Mutant::OriginFromPayload => Some("impostor-sends-entries"),
        Mutant::LastContentWins => Some("leader-contradicts-itself"),
        Mutant::HealsWithoutLeader => Some("healed-without-its-leader"),
        Mutant::LostChunkRestartsAll
        | Mutant::LastEntryLost
        | Mutant::HeadNotHeard
        | Mutant::ForeignSnapshot
        | Mutant::FastForwardTooFar
        | Mutant::UnboundedBuffer
        | Mutant::RepairsEverything
        | Mutant::RetryInThePast
        | Mutant::OldSessionTaken
        | Mutant::PositionIgnored
        | Mutant::EmptyAfterFailover
        | Mutant::SessionWithoutBoot
        | Mutant::ClockForgotten
        | Mutant::FollowsAnyLeader
        | Mutant::ConfirmsBeforeSynced
        | Mutant::ConfirmsTwiceAClock
        | Mutant::EqualClockUnheard
        | Mutant::MarkAtHalf
        | Mutant::DamagedConfirms
        | Mutant::WipedDiskCounts
        | Mutant::BackedAlone
        | Mutant::DoneBeforeHeld
        | Mutant::DoneBeforeMark
        | Mutant::StoredBeforeSynced
        | Mutant::OldSessionStored
        | Mutant::KnownTwoAtATime
        | Mutant::LeadsOnAfterFailedAppend
        | Mutant::UnannouncedAside
        | Mutant::TailOverwritten
        | Mutant::ProposalTwice
        | Mutant::GenerationNotRaised
        | Mutant::NamedTwice
        | Mutant::RepliesTwice
        | Mutant::ReplyLost
        | Mutant::UnboundedOutbox
        | Mutant::StampGoesBack => None,
    }
}

impl Smaller {
    /// Whether it is as small as it must be, and its file can be kept.
    pub fn is_fine(&self) -> bool {
        self.after <= self.bound && self.is_kept
    }
}

/// How many runs that notice a fault are made small at most: some hang on chances that leave little to take away.
const TRIES: u64 = 5;

/// How long a hunt may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// So many swarm seeds at most for each fault.
    pub seeds: u64,
    /// So many runs at most to make small what was found; 0: it is left as it is.
    pub runs: u64,
}

/// Hunts one fault: its scenario, if it has one, and then so many swarm seeds at most.
pub fn hunt(mutant: Mutant, patience: Patience, scenario: Option<(&str, &Scenario)>) -> Hunted {
    let mut caught = scenario.and_then(|(name, scenario)| shows_in(mutant, name, scenario, patience.runs));
    let (mut seeds, mut tries) = (0, u64::from(caught.is_some()));
    for seed in 0..patience.seeds {
        let wants_smaller = |caught: &Caught| {
            patience.runs > 0 && tries < TRIES && !caught.small.as_ref().is_some_and(Smaller::is_fine)
        };
        if caught.as_ref().is_some_and(|caught| !wants_smaller(caught)) {
            break;
        }
        seeds += u64::from(caught.is_none());
        let Some(other) = shows_at(mutant, seed, patience.runs) else { continue };
        tries += 1;
        match &mut caught {
            None => caught = Some(other),
            Some(first) => first.small = smallest(first.small.take(), other.small),
        }
    }
    Hunted { mutant: mutant.name(), broken: mutant.broken(), law: mutant.law(), seeds, caught }
}

/// The one of two that is farther below its bound, or nearer to it; one whose file can be kept before one whose cannot.
fn smallest(one: Option<Smaller>, other: Option<Smaller>) -> Option<Smaller> {
    let excess = |small: &Smaller| (!small.is_kept, small.after as i64 - small.bound as i64);
    one.into_iter().chain(other).min_by_key(excess)
}

/// Hunts all of them on so many threads. `scenario` finds one by its name, `tell` is told of each that is over.
pub fn hunt_all(
    mutants: &[Mutant],
    patience: Patience,
    jobs: usize,
    scenario: &(dyn Fn(&str) -> Option<Scenario> + Sync),
    tell: &(dyn Fn(&Hunted) + Sync),
) -> Vec<Hunted> {
    side_by_side(mutants, jobs, &|mutant| {
        let named = scenario_for(*mutant).and_then(|name| Some((name, scenario(name)?)));
        let hunted = hunt(*mutant, patience, named.as_ref().map(|(name, scenario)| (*name, scenario)));
        tell(&hunted);
        hunted
    })
}

fn shows_at(mutant: Mutant, seed: u64, runs: u64) -> Option<Caught> {
    let failing = Failing::of_seed(seed, Some(mutant)).ok()?;
    Some(caught(format!("seed {seed}"), &failing, runs))
}

fn shows_in(mutant: Mutant, name: &str, scenario: &Scenario, runs: u64) -> Option<Caught> {
    let failing = Failing::of_scenario(scenario, name, scenario.seed, Some(mutant)).ok()?;
    Some(caught(name.to_owned(), &failing, runs))
}

fn caught(run: String, failing: &Failing, runs: u64) -> Caught {
    let small = (runs > 0).then(|| made_small(run.clone(), failing, runs)).flatten();
    Caught { run, check: failing.failure.check.clone(), reason: failing.failure.reason.clone(), small }
}

fn made_small(run: String, failing: &Failing, runs: u64) -> Option<Smaller> {
    let small = failing.shrink(runs, &|| ())?;
    let (before, left) = (small.shrunk.before, small.shrunk.after);
    let file = small.scenario.to_toml();
    let read = Scenario::parse("shrunk", &file).ok();
    let again = read.and_then(|read| Failing::of_scenario(&read, "shrunk", read.seed, failing.mutant).ok());
    Some(Smaller {
        run,
        before: before.total(),
        after: left.total(),
        left,
        bound: before.goal(),
        is_kept: again.is_some_and(|again| again.failure.check == failing.failure.check),
        runs: small.shrunk.runs,
        file,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn scenario(name: &str) -> Option<Scenario> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        Some(Scenario::read(&folder.join(format!("{name}.toml"))).unwrap())
    }

    #[test]
    fn faults_are_noticed_by_the_check_of_their_law() {
        let mutants = [Mutant::RetryInThePast, Mutant::StoredBeforeSynced, Mutant::DoneBeforeMark, Mutant::MarkAtHalf];
        let hunted = hunt_all(&mutants, Patience { seeds: 50, runs: 0 }, 2, &scenario, &|_| {});
        let checks: Vec<_> = hunted.iter().map(|hunted| hunted.caught.as_ref().map(|it| it.check.as_str())).collect();
        assert_eq!(checks, [Some("wakes"), Some("spoken"), Some("marks"), Some("marks")]);
    }

    #[test]
    fn faults_are_made_small_and_their_files_fail_and_hold_as_they_should() {
        let mutants = [
            Mutant::LastEntryLost,
            Mutant::UnboundedBuffer,
            Mutant::SessionWithoutBoot,
            Mutant::ClockForgotten,
            Mutant::FollowsAnyLeader,
            Mutant::ConfirmsBeforeSynced,
            Mutant::ConfirmsTwiceAClock,
            Mutant::EmptyAfterFailover,
            Mutant::MarkAtHalf,
            Mutant::DoneBeforeHeld,
            Mutant::OriginFromPayload,
            Mutant::NackWithoutSpread,
            Mutant::LastContentWins,
            Mutant::ProposalTwice,
        ];
        let hunted = hunt_all(&mutants, Patience { seeds: 100, runs: 1000 }, 2, &scenario, &|_| {});
        let small = |hunted: &&Hunted| hunted.caught.as_ref().and_then(|caught| caught.small.clone());
        let is_done = |hunted: &&Hunted| small(hunted).is_some_and(|small| small.is_fine());
        let others: Vec<_> = hunted.iter().filter(|hunted| !is_done(hunted)).collect();
        assert!(hunted.len() == mutants.len() && others.is_empty(), "{others:#?}");
    }

    #[test]
    fn every_scenario_that_is_named_notices_its_fault() {
        let named: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|it| scenario_for(*it).is_some()).collect();
        let hunted = hunt_all(&named, Patience { seeds: 0, runs: 0 }, 2, &scenario, &|_| {});
        let alive: Vec<_> = hunted.iter().filter(|hunted| hunted.caught.is_none()).collect();
        assert!(hunted.len() == 9 && alive.is_empty(), "not noticed: {alive:#?}");
    }

    #[test]
    fn a_fault_that_no_run_was_spent_on_lives() {
        assert_eq!(hunt(Mutant::DoneBeforeHeld, Patience { seeds: 0, runs: 0 }, None).caught, None);
    }
}
