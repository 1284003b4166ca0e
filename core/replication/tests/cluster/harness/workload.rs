//! The clients: they ask for things, wait, and ask again when nobody can tell.

use std::collections::BTreeMap;

use lockstep_replication::rng::Rng;
use lockstep_replication::{CommandId, NodeId, Outcome, Ticket};

use super::kv::{By, Command, Kv, What};
use super::plan::Load;
use super::{MILLIS, between};

/// All clients of the world.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    load: Load,
    rng: Rng,
    commands: Vec<Asked>,
    waiting: BTreeMap<Ticket, u64>,
    tickets: u64,
}

/// One client's command, however often it was tried.
#[derive(Clone, Debug)]
struct Asked {
    what: What,
    id: Option<CommandId>,
    attempts: u32,
}

/// What to hand to a node.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) ticket: Ticket,
    pub(crate) id: Option<CommandId>,
    pub(crate) command: Command,
}

/// How many commands there are at most in a run: fewer than the names that a log remembers, since a client that tries
/// again later than that does it twice.
const COMMANDS_AT_MOST: u64 = 6_000;

/// How often a client tries at most.
const ATTEMPTS: u32 = 4;

impl Clients {
    pub(crate) fn new(load: Load, rng: Rng) -> Clients {
        Clients { load, rng, commands: Vec::new(), waiting: BTreeMap::new(), tickets: 0 }
    }

    /// How long until the next burst.
    pub(crate) fn next_burst(&mut self) -> u64 {
        between(&mut self.rng, self.load.every, self.load.every * 2)
    }

    /// New commands, by uid.
    pub(crate) fn burst(&mut self) -> Vec<u64> {
        let room = COMMANDS_AT_MOST.saturating_sub(self.commands.len() as u64);
        (0..between(&mut self.rng, 1, self.load.burst).min(room)).map(|_| self.fresh()).collect()
    }

    /// One new command.
    pub(crate) fn fresh(&mut self) -> u64 {
        let uid = self.commands.len() as u64;
        let key = self.rng.below(12) as u8;
        let what = match self.rng.below(8) {
            0 => What::Delete { key },
            1 => What::Move { from: key, to: self.rng.below(12) as u8 },
            2 | 3 => What::Add { amount: self.rng.below(1000) },
            _ => What::Set { key, value: "v".repeat(self.rng.below(self.load.value_bytes + 1) as usize) },
        };
        let id = self.rng.chance(self.load.named, 100).then(|| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&uid.to_le_bytes());
            bytes[8] = 1;
            CommandId(bytes)
        });
        self.commands.push(Asked { what, id, attempts: 0 });
        uid
    }

    /// One new command that no state refuses.
    pub(crate) fn fresh_addition(&mut self) -> u64 {
        let uid = self.fresh();
        self.commands[uid as usize].what = What::Add { amount: 1 };
        uid
    }

    /// One more attempt of a command, at a node that was given `turn` commands before.
    pub(crate) fn attempt(&mut self, uid: u64, node: NodeId, turn: u64) -> Attempt {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, uid);
        let asked = &mut self.commands[uid as usize];
        asked.attempts += 1;
        let command = Command { by: By { uid, node, turn }, what: asked.what.clone() };
        Attempt { ticket, id: asked.id, command }
    }

    /// Which command a ticket stands for, and how often it was tried. The ticket is used up.
    pub(crate) fn answered(&mut self, ticket: Ticket) -> Option<(u64, u32)> {
        let uid = self.waiting.remove(&ticket)?;
        Some((uid, self.commands[uid as usize].attempts))
    }

    /// In what time the client tries again, if it does: safe where the command has a name, or surely was not taken.
    pub(crate) fn tries_again(&mut self, uid: u64, outcome: Option<&Outcome<Kv>>) -> Option<u64> {
        let asked = &self.commands[uid as usize];
        let safe = match outcome {
            None | Some(Outcome::Unknown(_)) => asked.id.is_some(),
            Some(Outcome::NotTaken(_)) => true,
            Some(Outcome::Done { .. } | Outcome::Refused(_)) => false,
        };
        (safe && asked.attempts < ATTEMPTS).then(|| between(&mut self.rng, 10, 400) * MILLIS)
    }
}
