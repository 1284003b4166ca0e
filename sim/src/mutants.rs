//! The hunt for deliberate faults of the core: each is planted, and swarm seeds are run until a check notices.
//!
//! A seed counts only if it holds without the fault, so that nothing else is taken for it. What the swarm seldom meets has
//! a scenario of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_replication::chaos::Mutant;
use serde::Serialize;

use crate::plan::Plan;
use crate::run::{Options, run};
use crate::scenario::Scenario;

/// What became of one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunted {
    /// Its name.
    pub mutant: String,
    /// What it breaks, as a sentence.
    pub broken: &'static str,
    /// The law that it breaks.
    pub law: &'static str,
    /// How many seeds were run with it.
    pub seeds: u64,
    /// What caught it; nothing if it lives.
    pub caught: Option<Caught>,
}

/// How a fault was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caught {
    /// By which run: a swarm seed, or a scenario's name.
    pub run: String,
    /// By which check.
    pub check: String,
    /// What it said.
    pub reason: String,
}

/// The scenario in which a fault shows that the swarm meets seldom, or whose harm no law names but a time or a count.
pub fn scenario_for(mutant: Mutant) -> Option<&'static str> {
    match mutant {
        Mutant::NackWithoutSpread => Some("fifty-nodes-lose-one-entry"),
        Mutant::NeverLost => Some("drop-and-rejoin-silently"),
        Mutant::LostTooSoon => Some("silent-for-four-seconds"),
        Mutant::LostUnderDoubt => Some("leader-stalls-and-doubts-itself"),
        Mutant::BeatsThoughStalled => Some("leader-beats-but-does-not-work"),
        Mutant::ReplayWithoutWindow => Some("replay-over-a-slow-link"),
        Mutant::OriginFromPayload => Some("impostor-sends-entries"),
        Mutant::LastContentWins => Some("leader-contradicts-itself"),
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

/// Hunts one fault: its scenario, if it has one, and then so many swarm seeds at most.
pub fn hunt(mutant: Mutant, seeds_at_most: u64, scenario: Option<(&str, &Scenario)>) -> Hunted {
    let mut hunted = Hunted {
        mutant: mutant.name(),
        broken: mutant.broken(),
        law: mutant.law(),
        seeds: 0,
        caught: scenario.and_then(|(name, scenario)| shows_in(mutant, name, scenario)),
    };
    while hunted.caught.is_none() && hunted.seeds < seeds_at_most {
        hunted.caught = shows_at(mutant, hunted.seeds);
        hunted.seeds += 1;
    }
    hunted
}

/// Hunts all of them on so many threads. `scenario` finds one by its name, `tell` is told of each that is over.
pub fn hunt_all(
    mutants: &[Mutant],
    seeds_at_most: u64,
    jobs: usize,
    scenario: &(dyn Fn(&str) -> Option<Scenario> + Sync),
    tell: &(dyn Fn(&Hunted) + Sync),
) -> Vec<Hunted> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, mutants.len().max(1)) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let named = scenario_for(*mutant).and_then(|name| Some((name, scenario(name)?)));
                    let named = named.as_ref().map(|(name, scenario)| (*name, scenario));
                    let hunted = hunt(*mutant, seeds_at_most, named);
                    tell(&hunted);
                    all.lock().expect("a thread that panics ends the hunt").push((*mutant, hunted));
                }
            });
        }
    });
    let mut all = all.into_inner().expect("a thread that panics ends the hunt");
    all.sort_by_key(|(mutant, _)| *mutant);
    all.into_iter().map(|(_, hunted)| hunted).collect()
}

fn shows_at(mutant: Mutant, seed: u64) -> Option<Caught> {
    let plan = Plan::drawn(seed);
    let planted = Options { mutant: Some(mutant), ..Options::default() };
    let failure = run(&plan, &planted).failure?;
    run(&plan, &Options::default()).failure.is_none().then(|| Caught {
        run: format!("seed {seed}"),
        check: failure.check,
        reason: failure.reason,
    })
}

fn shows_in(mutant: Mutant, name: &str, scenario: &Scenario) -> Option<Caught> {
    let plan = scenario.plan(scenario.seed);
    let fails = |mutant: Option<Mutant>| {
        let report = run(&plan, &Options { mutant, phase_ends: scenario.phase_ends(), ..Options::default() });
        let laws = report.failure.map(|failure| (failure.check, failure.reason));
        laws.or_else(|| scenario.holds(&report.facts).err().map(|broken| (broken.check.to_owned(), broken.reason)))
    };
    let (check, reason) = fails(Some(mutant))?;
    fails(None).is_none().then(|| Caught { run: name.to_owned(), check, reason })
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
        let hunted = hunt_all(&mutants, 50, 2, &scenario, &|_| {});
        let checks: Vec<_> = hunted.iter().map(|hunted| hunted.caught.as_ref().map(|it| it.check.as_str())).collect();
        assert_eq!(checks, [Some("wakes"), Some("marks"), Some("marks"), Some("spoken")]);
    }

    #[test]
    fn every_scenario_that_is_named_notices_its_fault() {
        let named: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|it| scenario_for(*it).is_some()).collect();
        let hunted = hunt_all(&named, 0, 2, &scenario, &|_| {});
        let alive: Vec<_> = hunted.iter().filter(|hunted| hunted.caught.is_none()).collect();
        assert!(hunted.len() == 8 && alive.is_empty(), "not noticed: {alive:#?}");
    }

    #[test]
    fn a_fault_that_no_run_was_spent_on_lives() {
        assert_eq!(hunt(Mutant::DoneBeforeHeld, 0, None).caught, None);
    }
}
