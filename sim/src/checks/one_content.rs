//! L6: an index of a lineage has one content everywhere, applied once, in order; states at one index are equal.
//!
//! Each applied entry is compared with its place in the ledger, each log's running hash at the end of each step that changed
//! it, and whole states at checkpoints: as often as the entries applied meanwhile pay for.

use std::collections::BTreeMap;

use lockstep_replication::entry::Entry;
use lockstep_replication::{Hash, Index, NodeId};

use super::Broken;
use super::ledger::{Extended, Ledger, Place};
use crate::kv::Kv;
use crate::world::node::AnyNode;

pub(crate) fn broken(reason: String) -> Broken {
    Broken::new("one_content", format!("L6: {reason}"))
}

/// What an applied entry pays, in bytes of state that may be hashed for it: some 10 ns.
const BYTES_PER_ENTRY: i64 = 8;

/// What hashing a state costs at least.
const BYTES_AT_LEAST: i64 = 1000;

/// The states that were hashed.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    /// The digest of the state after each log that was a checkpoint for somebody.
    digests: BTreeMap<Place, u64>,
    /// What was paid for and not spent; below 0 when all nodes came along where one had made a checkpoint.
    credit: i64,
    /// How large the last state was.
    bytes: i64,
    /// Whether the next checkpoint is where the first node comes along, or where the second does: a leader's steps end where
    /// its followers' do not.
    first: bool,
}

/// A node applied an entry. One that nobody had applied before was ordered in the same step, by the leader of its session.
pub(crate) fn applied(ledger: &mut Ledger, log: Place, node: NodeId, entry: &Entry<Kv>) -> Result<Extended, Broken> {
    let extended = ledger.extend(log, entry)?;
    if extended.fresh_after.is_some()
        && let Some(session) = ledger.session(extended.place)
        && session.leader != node
    {
        return Err(broken(format!(
            "{node:?} applied entry {} of session {session}, which its leader did not order",
            entry.index
        )));
    }
    Ok(extended)
}

/// A node's state was replaced by one that ends before `next`: it must be one that somebody built.
pub(crate) fn replaced(ledger: &Ledger, node: &AnyNode, next: Index) -> Result<Place, Broken> {
    ledger.find(node.lineage(), next).ok_or_else(|| {
        broken(format!("a state takes the place of another that ends before {next}, and nobody built it"))
    })
}

/// After a step, or a start: the node stands where it said.
pub(crate) fn stands(log: Place, node: &AnyNode) -> Result<(), Broken> {
    if node.next().0 != log.next {
        return Err(broken(format!("its state ends before {}, by what it said before {}", node.next(), log.next)));
    }
    Ok(())
}

impl States {
    /// A node changed its state by so many entries and stands at `log` now.
    pub(crate) fn changed(
        &mut self,
        ledger: &mut Ledger,
        log: Place,
        node: &AnyNode,
        entries: u64,
    ) -> Result<(), Broken> {
        let came_first = ledger.hash(log, node.hash())?;
        self.credit += entries as i64 * BYTES_PER_ENTRY;
        let compares = self.digests.contains_key(&log);
        if compares || self.credit >= self.bytes.max(BYTES_AT_LEAST) && came_first == self.first {
            self.first ^= !compares;
            self.looks(log, node)?;
            self.credit -= self.bytes.max(BYTES_AT_LEAST);
        }
        Ok(())
    }

    /// Hashes the whole state: it is the one that all had there.
    pub(crate) fn looks(&mut self, log: Place, node: &AnyNode) -> Result<(), Broken> {
        let digest = match node.replica() {
            Some(replica) => {
                let bytes = postcard::to_stdvec(replica).expect("a state serialises into memory");
                self.bytes = bytes.len() as i64;
                Hash::of(&bytes)
            }
            None => node.digest(),
        };
        let [a, b, c, d, e, f, g, h, ..] = digest.0;
        let digest = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if *self.digests.entry(log).or_insert(digest) != digest {
            return Err(broken(format!("two states after the same log of {} entries", log.next)));
        }
        Ok(())
    }
}
