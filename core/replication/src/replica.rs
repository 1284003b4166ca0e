//! The replicated state: the application's, and what the log itself needs to remember. Entries change it, nothing else.

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use crate::app::{App, Place};
use crate::entry::{Body, Decided, Entry, Founding, KnownChange, Opened, Record, Unreadable};
use crate::id::{CommandId, Hash, Index, NodeId, ProposalId};
use crate::lineage::Lineage;
use crate::time::Wall;

/// How many named commands are remembered. Replicated state, so not a matter of configuration.
const COMMANDS_REMEMBERED: usize = 10_000;

/// One state, as of one index. Equal on every node whose log has the same entries; `clone` is cheap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Replica<A: App> {
    lineage: Lineage,
    hash: Hash,
    schema: u32,
    stamp: Wall,
    founding: Option<Founded>,
    known: OrdSet<NodeId>,
    disks: OrdMap<NodeId, u64>,
    changed: Option<(Index, KnownChange)>,
    origins: OrdMap<NodeId, Origin>,
    commands: Commands,
    state: A::State,
}

/// The founding that a log belongs to. Of two, the one that ever knew more nodes comes first, then the one that operators
/// founded anew more often: where one was made on the other's log, that is their word that the rest of the other is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founded {
    /// The most nodes that the log ever knew at once, in all foundings that it went through, as far as those who founded
    /// heard.
    pub widest: u32,
    /// How many foundings the log went through before this one.
    pub anew: u32,
    /// What the founding drew.
    pub id: u64,
}

/// How far a node's proposals got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its newest generation.
    pub generation: u64,
    /// The last number of it that was ordered; all below are settled.
    pub n: u64,
}

/// The newest named commands and where they stand in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Commands {
    oldest_first: Vector<CommandId>,
    index: OrdMap<CommandId, Index>,
}

/// Why an entry cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// It is not the next one.
    #[error("entry {found} came where entry {wanted} was next")]
    OutOfOrder {
        /// The next index.
        wanted: Index,
        /// What came.
        found: Index,
    },
    /// A log begins with a founding.
    #[error("the log does not begin with a founding")]
    Unfounded,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl<A: App> Default for Replica<A> {
    fn default() -> Self {
        Replica {
            lineage: Lineage::default(),
            hash: Hash::default(),
            schema: 0,
            stamp: Wall::default(),
            founding: None,
            known: OrdSet::new(),
            disks: OrdMap::new(),
            changed: None,
            origins: OrdMap::new(),
            commands: Commands::default(),
            state: A::State::default(),
        }
    }
}

impl<A: App> Replica<A> {
    /// The application's state.
    pub fn state(&self) -> &A::State {
        &self.state
    }

    /// One past the last entry applied.
    pub fn next(&self) -> Index {
        self.lineage.next()
    }

    /// The running hash of the log up to here.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The newest schema that an entry was written for: whoever reads this log reads that.
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// The last entry's stamp.
    pub fn stamp(&self) -> Wall {
        self.stamp
    }

    /// The sessions that led here.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The founding that the log belongs to; none before index 0.
    pub fn founding(&self) -> Option<Founded> {
        self.founding
    }

    /// The known nodes.
    pub fn known(&self) -> &OrdSet<NodeId> {
        &self.known
    }

    /// The number of the disk with which a node became known, as far as that is remembered.
    pub fn disk(&self, node: NodeId) -> Option<u64> {
        self.disks.get(&node).copied()
    }

    /// The last change of the known nodes, and where it stands.
    pub fn changed(&self) -> Option<(Index, KnownChange)> {
        self.changed
    }

    /// How far this node's proposals got.
    pub fn origin(&self, node: NodeId) -> Origin {
        self.origins.get(&node).copied().unwrap_or_default()
    }

    /// Where the command of this name stands, if it is remembered.
    pub fn command(&self, id: CommandId) -> Option<Index> {
        self.commands.index.get(&id).copied()
    }

    /// The SHA-256 of the canonical form of all this: equal on two nodes if and only if they agree.
    pub fn digest(&self) -> Hash {
        Hash::of(&postcard::to_stdvec(self).expect("application data serialises into memory"))
    }

    /// Reads the next record and applies it.
    pub fn take(&mut self, record: &Record) -> Result<Entry<A>, NotApplied> {
        let entry = record.open::<A>()?;
        self.apply(record, &entry)?;
        Ok(entry)
    }

    /// Applies the next entry, whose bytes are `record`.
    pub fn apply(&mut self, record: &Record, entry: &Entry<A>) -> Result<(), NotApplied> {
        let index = self.next();
        if entry.index != index {
            return Err(NotApplied::OutOfOrder { wanted: index, found: entry.index });
        }
        if self.founding.is_none() && !matches!(&entry.body, Body::Opened(Opened { founding: Some(_), .. })) {
            return Err(NotApplied::Unfounded);
        }
        self.hash = record.chain(self.hash);
        self.schema = self.schema.max(record.schema()?);
        self.stamp = self.stamp.max(entry.stamp);
        match &entry.body {
            Body::Opened(Opened { session, founding }) => {
                self.lineage.open(*session);
                if let Some(Founding { id, widest, known }) = founding {
                    self.known = known.iter().map(|(node, _)| *node).collect();
                    let anew = self.founding.map_or(0, |before| before.anew + 1);
                    let widest =
                        self.founding.map_or(0, |before| before.widest).max(*widest).max(self.known.len() as u32);
                    self.founding = Some(Founded { widest, anew, id: *id });
                    self.disks = known.iter().filter_map(|(node, disk)| Some((*node, (*disk)?))).collect();
                    self.changed = None;
                }
            }
            Body::Backed => self.lineage.back(),
            Body::Generation { node, generation } => {
                self.origins.insert(*node, Origin { generation: *generation, n: 0 });
            }
            Body::Known(change) => {
                match change {
                    KnownChange::Joined { node, disk } => {
                        self.known.insert(*node);
                        self.disks.extend(disk.map(|disk| (*node, disk)));
                        if let Some(founding) = &mut self.founding {
                            founding.widest = founding.widest.max(self.known.len() as u32);
                        }
                    }
                    // How far its proposals got stays: it may live, and what it sent may still be under way.
                    KnownChange::Forgotten(node) => {
                        self.known.remove(node);
                        self.disks.remove(node);
                    }
                }
                self.changed = Some((index, *change));
            }
            Body::Decided(decided) => self.decided(decided, Place { index, stamp: self.stamp }),
        }
        self.lineage.grow();
        Ok(())
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn forget_state(&mut self) {
        self.state = A::State::default();
    }

    fn decided(&mut self, decided: &Decided<A>, place: Place) {
        if let Some(ProposalId { node, generation, n }) = decided.proposal {
            self.origins.insert(node, Origin { generation, n });
        }
        if let Some(id) = decided.command {
            self.commands.remember(id, place.index);
        }
        for event in &decided.events {
            A::apply(&mut self.state, event, place);
        }
    }
}

impl Commands {
    fn remember(&mut self, id: CommandId, index: Index) {
        if self.index.insert(id, index).is_none() {
            self.oldest_first.push_back(id);
        }
        if self.oldest_first.len() > COMMANDS_REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.index.remove(&oldest);
        }
    }
}
