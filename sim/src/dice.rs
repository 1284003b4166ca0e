//! Randomness by key, not by stream: a draw depends on the seed, on what it is for and on whom it concerns, and on nothing
//! else. So a draw, a node or a fault that is added or taken away leaves all other draws as they were.

/// What a draw is for. The numbers are part of what a seed means: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// What happens to a message on its way. Entity: the directed link; n: the message on it.
    Message = 1,
    /// A hop of gossip. Entity: the directed link; n: the message on it.
    Gossip = 2,
    /// A connection that is made, broken or noticed. Entity: the pair; n: the event on it.
    Connection = 3,
    /// How long a piece of work takes. Entity: the machine; n: its work.
    Work = 4,
    /// How late a wake-up comes. Entity: the machine; n: its wake-up.
    Wake = 5,
    /// A start's nonce and clock. Entity: the machine; n: its life.
    Start = 6,
    /// A machine's own oddities: drift. Entity: the machine.
    Machine = 7,
    /// When a burst of commands comes and how large it is. Entity: the load; n: the burst.
    Burst = 8,
    /// What a command asks for. Entity: its uid.
    Command = 9,
    /// Where a command is tried and when it is tried again. Entity: its uid; n: the attempt.
    Attempt = 10,
    /// Observations, telemetry and signals. n: which.
    Notice = 11,
    /// What a crash leaves of the writes that wait. Entity: the machine; n: its life.
    Crash = 12,
    /// What a fault strikes. Entity: when it came; n: which draw.
    Fault = 13,
    /// Whether a step is followed by wake-ups nobody asked for. Entity: the machine; n: its step.
    Spurious = 14,
    /// What a seed's plan is made of. Entity: which part.
    Plan = 15,
}

/// The draws of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(u64);

/// A few draws in a row, all for one thing.
#[derive(Clone, Debug)]
pub struct Roll(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(mix(seed ^ 0x6c6f_636b_7374_6570))
    }

    /// The draws for one thing.
    pub fn roll(self, site: Site, entity: u64, n: u64) -> Roll {
        let site = mix(self.0 ^ (site as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
        Roll(mix(mix(site ^ entity.wrapping_mul(0xa076_1d64_78bd_642f)) ^ n.wrapping_mul(0xe703_7ed1_a0b4_28db)))
    }
}

impl Roll {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, evenly; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `parts` times in `of`.
    pub fn chance(&mut self, parts: u64, of: u64) -> bool {
        parts > 0 && self.below(of) < parts
    }

    /// One of these, evenly.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len() as u64) as usize]
    }
}

/// The finaliser of splitmix64: every bit of the result depends on every bit of the argument.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_pinned() {
        let mut roll = Dice::new(7).roll(Site::Attempt, 42, 3);
        let draws: Vec<u64> = (0..4).map(|_| roll.below(1000)).collect();
        assert_eq!(draws, [122, 883, 273, 487], "what seeds mean has changed: every kept scenario becomes another");
    }

    #[test]
    fn draws_are_even_enough() {
        let dice = Dice::new(1);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|n| counts[dice.roll(Site::Message, 3, n).below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
