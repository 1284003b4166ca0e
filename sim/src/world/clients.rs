//! The clients: they ask for things, wait, and ask again when nobody can tell. What a command asks for follows from its
//! uid, so only how often it was tried is kept.

use lockstep_replication::{CommandId, Outcome, Ticket};

use crate::dice::{Dice, Site};
use crate::kv::{By, Command, Kv, What};
use crate::plan::{Load, MILLIS};

/// The load whose commands are asked when all have agreed: additions.
pub const LAST_LOAD: u32 = 0xff_ffff;

/// How often a client tries at most.
pub const ATTEMPTS: u8 = 4;

/// All clients of the world.
#[derive(Clone, Debug)]
pub struct Clients {
    dice: Dice,
    /// The loads of the plan, and that of the last commands.
    loads: Vec<Asking>,
}

#[derive(Clone, Debug)]
struct Asking {
    load: Load,
    bursts: u64,
    /// How often each command was tried.
    attempts: Vec<u8>,
}

/// A command in a client's hand.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Names the waiting client.
    pub ticket: Ticket,
    /// The name that the client gave to the command, if it did.
    pub id: Option<CommandId>,
    /// The command.
    pub command: Command,
}

/// The uid of a load's command.
pub fn uid_of(load: u32, n: u64) -> u64 {
    u64::from(load) << 32 | n
}

/// The load that a command is of.
pub fn load_of(uid: u64) -> u32 {
    (uid >> 32) as u32
}

/// Which command an answer is for.
pub fn uid_answered(ticket: Ticket) -> u64 {
    ticket.0 >> 3
}

impl Clients {
    /// Clients that have asked nothing yet.
    pub fn new(loads: &[Load], dice: Dice) -> Clients {
        let last = Load { number: LAST_LOAD, additions: 100, named: 0, ..Load::default() };
        let asking = |load: Load| Asking { load, bursts: 0, attempts: Vec::new() };
        Clients { dice, loads: loads.iter().cloned().chain([last]).map(asking).collect() }
    }

    /// How many loads the plan has.
    pub fn loads(&self) -> usize {
        self.loads.len() - 1
    }

    /// A load of the plan.
    pub fn load(&self, place: usize) -> &Load {
        &self.loads[place].load
    }

    /// New commands of a load, by uid, and how long until there are more; none if there will be no more.
    pub fn burst(&mut self, place: usize) -> (std::ops::Range<u64>, Option<u64>) {
        let asking = &mut self.loads[place];
        asking.bursts += 1;
        let mut roll = self.dice.roll(Site::Burst, u64::from(asking.load.number), asking.bursts);
        let first = asking.attempts.len() as u64;
        let room = asking.load.commands.saturating_sub(first);
        let fresh = roll.between(1, asking.load.burst.max(1)).min(room);
        asking.attempts.resize((first + fresh) as usize, 0);
        let next = (room > fresh).then(|| roll.between(asking.load.every.0, asking.load.every.0 * 2));
        let uid = |n| uid_of(asking.load.number, n);
        (uid(first)..uid(first + fresh), next)
    }

    /// One more of the last commands.
    pub fn last(&mut self) -> u64 {
        let last = self.loads.last_mut().expect("there is always the load of the last commands");
        last.attempts.push(0);
        uid_of(LAST_LOAD, last.attempts.len() as u64 - 1)
    }

    /// How many commands there were.
    pub fn commands(&self) -> u64 {
        self.loads.iter().map(|asking| asking.attempts.len() as u64).sum()
    }

    /// All commands so far, by uid.
    pub fn uids(&self) -> impl Iterator<Item = u64> {
        let of = |asking: &Asking| {
            let number = asking.load.number;
            (0..asking.attempts.len() as u64).map(move |n| uid_of(number, n))
        };
        self.loads.iter().filter(|asking| asking.load.number != LAST_LOAD).flat_map(of)
    }

    fn place(&self, uid: u64) -> usize {
        let number = load_of(uid);
        self.loads.iter().position(|asking| asking.load.number == number).unwrap_or(self.loads.len() - 1)
    }

    fn attempts(&mut self, uid: u64) -> &mut u8 {
        let place = self.place(uid);
        &mut self.loads[place].attempts[uid as u32 as usize]
    }

    /// How often a command was tried.
    pub fn tried(&self, uid: u64) -> u32 {
        u32::from(self.loads[self.place(uid)].attempts[uid as u32 as usize])
    }

    /// The machines that a command may be given to; any if none is named.
    pub fn nodes(&self, uid: u64) -> &[u16] {
        &self.loads[self.place(uid)].load.nodes
    }

    /// One more attempt of a command, at a machine that was given `turn` commands.
    pub fn attempt(&mut self, uid: u64, node: u16, turn: u64) -> Attempt {
        let attempt = self.attempts(uid);
        *attempt += 1;
        let attempt = *attempt;
        let load = &self.loads[self.place(uid)].load;
        let (what, id) = wanted(self.dice, load, uid);
        let command = Command { by: By { uid, node, turn }, what };
        Attempt { ticket: Ticket(uid << 3 | u64::from(attempt)), id, command }
    }

    /// In what time the client tries again, if it does: safe where the command has a name, or surely was not taken. Once it is
    /// quiet there is no new load: what was not taken is let go, but for the last commands.
    pub fn tries_again(&self, uid: u64, outcome: Option<&Outcome<Kv>>, quiet: bool) -> Option<u64> {
        let load = &self.loads[self.place(uid)].load;
        let attempts = self.tried(uid);
        let safe = match outcome {
            None | Some(Outcome::Unknown(_)) => wanted(self.dice, load, uid).1.is_some(),
            Some(Outcome::NotTaken(_)) => !quiet || load_of(uid) == LAST_LOAD,
            Some(Outcome::Done { .. } | Outcome::Refused(_)) => false,
        };
        let mut roll = self.dice.roll(Site::Attempt, uid, u64::from(attempts) | 1 << 32);
        (safe && attempts < u32::from(ATTEMPTS)).then(|| roll.between(10, 400) * MILLIS)
    }
}

/// What a command asks for, and its name if it has one.
fn wanted(dice: Dice, load: &Load, uid: u64) -> (What, Option<CommandId>) {
    let mut roll = dice.roll(Site::Command, uid, 0);
    let mut key = || roll.below(u64::from(load.keys.max(1))) as u32;
    let (key, other) = (key(), key());
    let id = roll.chance(load.named, 100).then(|| {
        let mut bytes = [1; 16];
        bytes[..8].copy_from_slice(&uid.to_le_bytes());
        CommandId(bytes)
    });
    if roll.chance(load.additions, 100) {
        return (What::Add { amount: roll.below(1000) }, id);
    }
    let what = match roll.below(8) {
        0 => What::Delete { key },
        1 => What::Move { from: key, to: other },
        2 => What::Add { amount: roll.below(1000) },
        _ => {
            let bytes = roll.between(load.value_bytes_min, load.value_bytes.max(load.value_bytes_min)) as usize;
            let mut value = Vec::with_capacity(bytes + 8);
            while value.len() < bytes {
                value.extend(roll.number().to_le_bytes());
            }
            value.truncate(bytes);
            What::Set { key, value: value.into() }
        }
    };
    (what, id)
}
