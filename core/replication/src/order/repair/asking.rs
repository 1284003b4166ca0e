//! The asking side of gap repair: when to send a NACK, when to send it again, and when to give up for a snapshot.

use crate::config::Config;
use crate::id::Index;
use crate::rng::Rng;
use crate::time::{Moment, Span};

/// Watches the first hole in the order and says when to ask for it. One request at most is outstanding.
#[derive(Clone, Debug, Default)]
pub struct GapRepair {
    gap: Option<Gap>,
}

#[derive(Clone, Debug)]
struct Gap {
    /// The first missing index.
    from: Index,
    /// One past the last one missing.
    until: Index,
    /// From here on it counts as a gap.
    counts_at: Moment,
    /// Patience ends here, unless the first missing index moves.
    give_up_at: Moment,
    /// When to ask next.
    ask_at: Moment,
    /// NACKs sent since the first missing index moved.
    attempts: u32,
    /// Whether a NACK was sent since the order was whole.
    asked: bool,
}

/// What an observation of the hole tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapChange {
    /// Nothing new.
    None,
    /// A hole where there was none.
    Opened,
    /// The first missing index came, on whatever path; another one is missing.
    Progressed,
    /// The order is whole.
    Closed {
        /// Whether the hole outlived its grace and closed without a NACK of this node: one was saved.
        suppressed: bool,
    },
}

/// What to do about the hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask for these.
    Nack {
        /// The first missing index.
        from: Index,
        /// One past the last one asked for.
        until: Index,
    },
    /// Asking did not help: get a snapshot, or a replay.
    Escalate,
}

impl GapRepair {
    /// Takes in the first hole as it is now, in an order that `nodes` nodes share. Call it whenever that may have changed.
    pub fn observe(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        hole: Option<(Index, Index)>,
        nodes: usize,
        config: &Config,
    ) -> GapChange {
        let Some((from, until)) = hole else {
            return match self.gap.take() {
                Some(gap) => GapChange::Closed { suppressed: !gap.asked && now >= gap.counts_at },
                None => GapChange::None,
            };
        };
        let (change, asked) = match &mut self.gap {
            Some(gap) if gap.from == from => {
                gap.until = until;
                return GapChange::None;
            }
            Some(gap) if gap.from < from => (GapChange::Progressed, gap.asked),
            // A hole that moves back belongs to another branch.
            Some(_) | None => (GapChange::Opened, false),
        };
        let counts_at = now + config.gap_grace;
        self.gap = Some(Gap {
            from,
            until,
            counts_at,
            give_up_at: now + config.nack_patience,
            ask_at: counts_at + if mutant!(NackWithoutSpread) { Span::ZERO } else { first_delay(rng, nodes) },
            attempts: 0,
            asked,
        });
        change
    }

    /// When to call [`GapRepair::fire`].
    pub fn due(&self) -> Option<Moment> {
        self.gap.as_ref().map(|gap| gap.ask_at.min(gap.give_up_at))
    }

    /// What to do now; nothing before it is due.
    ///
    /// After an escalation it stays quiet for [`Config::nack_patience`], and then begins to ask again: a hole is never
    /// left for good because whatever was tried in its place did not work out either.
    pub fn fire(&mut self, now: Moment, rng: &mut Rng, config: &Config) -> Option<Ask> {
        if self.due()? > now {
            return None;
        }
        let gap = self.gap.as_mut()?;
        if gap.attempts >= config.nack_attempts || now >= gap.give_up_at {
            gap.attempts = 0;
            gap.ask_at = now + config.nack_patience;
            gap.give_up_at = gap.ask_at + config.nack_patience;
            return Some(Ask::Escalate);
        }
        gap.attempts += 1;
        gap.asked = true;
        let delay = retry_delay(rng, gap.attempts, config);
        gap.ask_at = now + if buggify!("a NACK is sent again without a delay") { Span(1) } else { delay };
        if mutant!(RetryInThePast) {
            gap.ask_at = now;
        }
        Some(Ask::Nack { from: gap.from, until: gap.until.min(gap.from.plus(config.repair_entries)) })
    }

    /// Forgets the hole: another session, or another way of catching up has begun.
    pub fn reset(&mut self) {
        self.gap = None;
    }
}

/// min(ceiling, base × 2^attempts), drawn between half of it and the whole: 50 to 100 ms after the first NACK.
fn retry_delay(rng: &mut Rng, attempts: u32, config: &Config) -> Span {
    let doubled = config.nack_base.times(1_u64.checked_shl(attempts).unwrap_or(u64::MAX));
    // At least a nanosecond, so that no configuration makes a deadline that is due at once.
    let full = doubled.min(config.nack_ceiling).0.max(2);
    Span(full / 2 + rng.below(full - full / 2 + 1))
}

/// Into how many equal slices the spread of first delays is cut.
const SLICES: usize = 16;

/// How the first delays of a group are spread: a truncated exponential over `spread`.
///
/// Its density grows with time, as e^(λt/T), so that of all nodes that miss the same entry a few ask early and the
/// others hear the repair before their turn; λ = ln n + 1 is best for n nodes (Nonnenmacher and Biersack 1999). Without
/// `exp`: the density is constant within each of [`SLICES`] slices and grows by `growth` from one to the next, so
/// λ = 16 × ln growth. The weights are made when this is compiled, by multiplying integers.
struct Delays {
    /// For groups of at most so many nodes.
    nodes: usize,
    /// T: the longest delay. Must stay above four times what a repair takes to spread, or suppression collapses.
    spread: Span,
    weights: [u64; SLICES],
}

const DELAYS: [Delays; 3] = [
    // λ = 2.9; ln 8 + 1 = 3.1.
    Delays { nodes: 8, spread: Span::millis(50), weights: weights(6, 5) },
    // λ = 4.6; ln 32 + 1 = 4.5.
    Delays { nodes: 32, spread: Span::millis(100), weights: weights(4, 3) },
    // λ = 8.2; ln 1000 + 1 = 7.9. Larger groups, too.
    Delays { nodes: usize::MAX, spread: Span::millis(200), weights: weights(5, 3) },
];

/// The weights of the slices: each is `over / under` times the one before it.
const fn weights(over: u64, under: u64) -> [u64; SLICES] {
    let mut weights = [1 << 32; SLICES];
    let mut slice = 1;
    while slice < SLICES {
        weights[slice] = weights[slice - 1] * over / under;
        slice += 1;
    }
    weights
}

/// How long a node waits with its first NACK once the hole counts as a gap.
fn first_delay(rng: &mut Rng, nodes: usize) -> Span {
    let delays = DELAYS.iter().find(|delays| nodes <= delays.nodes).unwrap_or(&DELAYS[2]);
    let mut drawn = rng.below(delays.weights.iter().sum());
    let mut slice = 0;
    while drawn >= delays.weights[slice] {
        drawn -= delays.weights[slice];
        slice += 1;
    }
    let width = delays.spread.0 / SLICES as u64;
    Span(width * slice as u64 + rng.below(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    fn rng() -> Rng {
        Seed::from_number(1).rng()
    }

    fn hole(from: u64, until: u64) -> Option<(Index, Index)> {
        Some((Index(from), Index(until)))
    }

    #[test]
    fn a_hole_that_closes_within_its_grace_is_no_gap() {
        let (mut gaps, mut rng, config) = (GapRepair::default(), rng(), Config::default());
        let now = Moment(0);
        assert_eq!(gaps.observe(now, &mut rng, hole(3, 4), 3, &config), GapChange::Opened);
        assert_eq!(gaps.observe(now, &mut rng, hole(3, 9), 3, &config), GapChange::None);
        assert!(gaps.due().is_some_and(|due| due >= now + config.gap_grace));
        let soon = now + Span::millis(9);
        assert_eq!(gaps.observe(soon, &mut rng, None, 3, &config), GapChange::Closed { suppressed: false });
        assert_eq!(gaps.due(), None);
        assert_eq!(gaps.observe(soon, &mut rng, None, 3, &config), GapChange::None);
    }

    #[test]
    fn a_gap_that_closes_before_its_turn_saves_a_nack() {
        let (mut gaps, mut rng, config) = (GapRepair::default(), rng(), Config::default());
        gaps.observe(Moment(0), &mut rng, hole(3, 4), 1000, &config);
        let later = Moment(0) + config.gap_grace;
        assert_eq!(gaps.observe(later, &mut rng, None, 1000, &config), GapChange::Closed { suppressed: true });
    }

    #[test]
    fn only_the_first_missing_index_resets_attempts() {
        let (mut gaps, mut rng, config) = (GapRepair::default(), rng(), Config::default());
        gaps.observe(Moment(0), &mut rng, hole(3, 9), 3, &config);
        for _ in 0..3 {
            let due = gaps.due().unwrap();
            assert_eq!(gaps.fire(Moment(due.0 - 1), &mut rng, &config), None);
            assert_eq!(gaps.fire(due, &mut rng, &config), Some(Ask::Nack { from: Index(3), until: Index(9) }));
            assert_eq!(gaps.fire(due, &mut rng, &config), None, "one request is outstanding");
        }
        let now = gaps.due().unwrap();
        assert_eq!(gaps.observe(now, &mut rng, hole(3, 20), 3, &config), GapChange::None);
        assert_eq!(gaps.gap.as_ref().unwrap().attempts, 3);
        assert_eq!(gaps.fire(now, &mut rng, &config), Some(Ask::Nack { from: Index(3), until: Index(20) }));
        assert_eq!(gaps.observe(now, &mut rng, hole(4, 20), 3, &config), GapChange::Progressed);
        assert_eq!(gaps.gap.as_ref().unwrap().attempts, 0);
        assert!(gaps.due().unwrap() > now);
        let closed = gaps.observe(now + Span::seconds(1), &mut rng, None, 3, &config);
        assert_eq!(closed, GapChange::Closed { suppressed: false }, "it asked before");
    }

    #[test]
    fn a_long_hole_is_asked_for_in_part() {
        let (mut gaps, mut rng, config) = (GapRepair::default(), rng(), Config::default());
        gaps.observe(Moment(0), &mut rng, hole(3, u64::MAX), 3, &config);
        let asked = gaps.fire(gaps.due().unwrap(), &mut rng, &config);
        assert_eq!(asked, Some(Ask::Nack { from: Index(3), until: Index(3 + config.repair_entries) }));
    }

    #[test]
    fn it_escalates_after_six_attempts_and_asks_again_later() {
        let (mut gaps, mut rng, config) = (GapRepair::default(), rng(), Config::default());
        gaps.observe(Moment(0), &mut rng, hole(3, 4), 3, &config);
        let mut asked = Vec::new();
        let mut now = Moment(0);
        while asked.last() != Some(&Ask::Escalate) {
            now = gaps.due().unwrap();
            asked.extend(gaps.fire(now, &mut rng, &config));
        }
        assert_eq!(asked.len() as u32, config.nack_attempts + 1);
        assert!(now < Moment(0) + config.nack_patience, "attempts ended first, at {now:?}");
        let again = gaps.due().unwrap();
        assert_eq!(again, now + config.nack_patience);
        assert!(matches!(gaps.fire(again, &mut rng, &config), Some(Ask::Nack { .. })));
        gaps.reset();
        assert_eq!((gaps.due(), gaps.fire(again, &mut rng, &config)), (None, None));
    }

    #[test]
    fn it_escalates_when_patience_ends_with_attempts_left() {
        let config = Config { nack_attempts: 1000, ..Config::default() };
        let (mut gaps, mut rng) = (GapRepair::default(), rng());
        gaps.observe(Moment(7), &mut rng, hole(3, 4), 3, &config);
        let mut last = Moment(0);
        loop {
            let now = gaps.due().unwrap();
            assert!(now > last, "what fired is due later, at {now:?}");
            last = now;
            if gaps.fire(now, &mut rng, &config) == Some(Ask::Escalate) {
                assert_eq!(now, Moment(7) + config.nack_patience);
                break;
            }
        }
    }

    #[test]
    fn retries_double_up_to_the_ceiling() {
        let (mut rng, config) = (rng(), Config::default());
        for (attempts, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (6, 1000), (200, 1000)] {
            for _ in 0..100 {
                let delay = retry_delay(&mut rng, attempts, &config);
                assert!(delay >= Span::millis(full / 2) && delay <= Span::millis(full), "{delay} after {attempts}");
            }
        }
    }

    #[test]
    fn first_delays_are_late_for_most_and_early_for_few() {
        let mut rng = rng();
        for (nodes, spread) in [(2, 50), (8, 50), (9, 100), (32, 100), (33, 200), (1000, 200), (5000, 200)] {
            let delays: Vec<Span> = (0..4000).map(|_| first_delay(&mut rng, nodes)).collect();
            assert!(delays.iter().all(|delay| *delay < Span::millis(spread)));
            let before = |percent| delays.iter().filter(|delay| **delay < Span::millis(spread * percent / 100)).count();
            assert!(before(50) > 0 && before(50) < 4000 / 4, "{} of {nodes} nodes ask in the first half", before(50));
        }
    }

    #[test]
    fn the_weights_are_the_exponential_that_they_stand_for() {
        // e^λ for 16 slices is growth^16: (6/5)^16 = 18.49, (4/3)^16 = 99.8, (5/3)^16 = 3545.
        for (delays, power) in DELAYS.iter().zip([18, 99, 3544]) {
            let last = delays.weights[SLICES - 1];
            let (over, under) = (delays.weights[1], delays.weights[0]);
            let grown = u128::from(last) * u128::from(over) / u128::from(under) / u128::from(under);
            assert_eq!(grown as u64, power);
        }
    }
}
