//! L11: a proposal enters the log at most once, and one node's proposals keep their order; so do its clients' commands.
//!
//! That it enters exactly once if its node stays is seen where agreement is ([`super::one_reply`], [`super::agreement`]): the
//! outbox of each node is empty then, and each client was answered.

use lockstep_replication::NodeId;
use lockstep_replication::entry::{Body, Entry};

use super::Broken;
use crate::kv::{Kv, asked_by};

pub(crate) fn broken(reason: String) -> Broken {
    Broken::new("once_in_order", format!("L11: {reason}"))
}

/// How far the proposals of all nodes got in one log, and its last stamp.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tip {
    stamp: u64,
    /// By node: its generation, and the last number of it.
    origins: Vec<(u64, u64)>,
    /// By machine: the turn of the last command that was given to it.
    turns: Vec<u64>,
}

/// What an entry did to the tip: enough to do it again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effect {
    turn: u32,
    n: u32,
    /// The machine that was asked; 0 if none was.
    asked: u16,
    /// The node that proposed; 0 if none did.
    origin: u16,
}

impl Tip {
    /// The last entry's stamp.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// One more entry.
    pub(crate) fn take(&mut self, entry: &Entry<Kv>) -> Result<Effect, Broken> {
        self.stamp = entry.stamp.0;
        let mut effect = Effect::default();
        match &entry.body {
            Body::Opened(_) | Body::Backed | Body::Known(_) => {}
            Body::Generation { node, generation } => {
                effect.origin = number(*node);
                self.proposes(entry, *node, (*generation, 0))?;
            }
            Body::Decided(decided) => {
                if let Some(id) = decided.proposal {
                    effect = Effect { origin: number(id.node), n: id.n as u32, ..effect };
                    self.proposes(entry, id.node, (id.generation, id.n))?;
                }
                if let Some(by) = asked_by(entry) {
                    effect = Effect { asked: by.node, turn: by.turn as u32, ..effect };
                    let last = at(&mut self.turns, by.node);
                    if *last >= by.turn {
                        return Err(broken(format!(
                            "entry {} does command {} of machine {}, which was given command {last} later",
                            entry.index, by.turn, by.node
                        )));
                    }
                    *last = by.turn;
                }
            }
        }
        Ok(effect)
    }

    fn proposes(&mut self, entry: &Entry<Kv>, node: NodeId, id: (u64, u64)) -> Result<(), Broken> {
        let last = at(&mut self.origins, number(node));
        if *last >= id {
            return Err(broken(format!("entry {} orders proposal {id:?} of {node:?} after {last:?}", entry.index)));
        }
        if last.0 != id.0 && id.1 != 0 {
            return Err(broken(format!(
                "entry {} orders proposal {id:?} of {node:?} before its generation",
                entry.index
            )));
        }
        *last = id;
        Ok(())
    }

    /// An entry once more, with its stamp, and the generation that it took, if it took one.
    pub(crate) fn replay(&mut self, stamp: u64, effect: Effect, generation: Option<u64>) {
        self.stamp = stamp;
        if effect.asked != 0 {
            *at(&mut self.turns, effect.asked) = u64::from(effect.turn);
        }
        if effect.origin == 0 {
            return;
        }
        let last = at(&mut self.origins, effect.origin);
        *last = match (generation, effect.n) {
            (Some(generation), _) => (generation, 0),
            (None, n) => (last.0, u64::from(n)),
        };
    }
}

/// The number of a node: identities begin with it.
fn number(node: NodeId) -> u16 {
    u16::from_be_bytes([node.0[0], node.0[1]])
}

fn at<T: Clone + Default>(table: &mut Vec<T>, number: u16) -> &mut T {
    let number = usize::from(number);
    if table.len() <= number {
        table.resize(number + 1, T::default());
    }
    &mut table[number]
}
