//! L6, L7, L8, L11: every log that anybody ever held, as one tree of beginnings.

use std::collections::BTreeMap;

use imbl::{OrdMap, OrdSet};
use lockstep_replication::entry::{Body, Entry, Opened, Record};
use lockstep_replication::{Hash, Index, NodeId, Session, Wall};

use crate::harness::kv::{By, Kv, asked_by};

/// The beginning of a log, up to one entry. Its running hash names it.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    before: Hash,
    /// A beginning of it that lies further back: so an old one is found in a number of steps that grows with the
    /// logarithm of the distance (E. Myers, "An applicative random-access stack").
    far_before: Hash,
    pub(crate) index: Index,
    /// The session that ordered the last entry.
    pub(crate) session: Session,
    /// The founding that it belongs to.
    pub(crate) founding: u64,
    /// Whether the last entry is a mark.
    pub(crate) marks: bool,
    /// What the last entry does.
    pub(crate) asked: Option<By>,
    stamp: Wall,
    /// All commands in it.
    commands: OrdSet<u64>,
    /// How many turns of each node are in it: commands of one node keep their order.
    turns: OrdMap<NodeId, u64>,
    /// How far each node's proposals got.
    proposals: OrdMap<NodeId, (u64, u64)>,
    /// The digest of the state after it, once somebody computed it.
    state: Option<Hash>,
}

/// All beginnings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    beginnings: BTreeMap<Hash, Beginning>,
    /// The one content of each place.
    places: BTreeMap<(Session, Index), Hash>,
    /// Where each session began.
    opened: BTreeMap<Session, Hash>,
    at: BTreeMap<Index, Vec<Hash>>,
}

impl Ledger {
    pub(crate) fn beginning(&self, hash: Hash) -> Option<&Beginning> {
        self.beginnings.get(&hash)
    }

    /// One past the last entry.
    pub(crate) fn next(&self, hash: Hash) -> Index {
        self.beginning(hash).map_or(Index(0), |beginning| beginning.index.next())
    }

    /// All beginnings that have so many entries.
    pub(crate) fn with_next(&self, next: Index) -> Vec<Hash> {
        match next.previous() {
            None => vec![Hash::default()],
            Some(last) => self.at.get(&last).cloned().unwrap_or_default(),
        }
    }

    /// The beginning of this one that ends with `index`.
    pub(crate) fn cut(&self, mut hash: Hash, index: Index) -> Option<Hash> {
        loop {
            let beginning = self.beginning(hash)?;
            if beginning.index == index {
                return Some(hash);
            }
            if beginning.index < index {
                return None;
            }
            let far = self.beginning(beginning.far_before).is_some_and(|far| far.index >= index);
            hash = if far { beginning.far_before } else { beginning.before };
        }
    }

    /// Whether `early` is a beginning of `late`, or the same.
    pub(crate) fn leads_to(&self, early: Hash, late: Hash) -> bool {
        self.beginning(early).is_none_or(|beginning| self.cut(late, beginning.index) == Some(early))
    }

    pub(crate) fn has_command(&self, hash: Hash, uid: u64) -> bool {
        self.beginning(hash).is_some_and(|beginning| beginning.commands.contains(&uid))
    }

    /// Whether any log ever held this command.
    pub(crate) fn anybody_had(&self, uid: u64) -> bool {
        self.beginnings.values().any(|beginning| beginning.asked.is_some_and(|by| by.uid == uid))
    }

    /// One more entry in a log. Returns the new running hash, and whether nobody had it before.
    pub(crate) fn extend(&mut self, before: Hash, record: &Record, entry: &Entry<Kv>) -> Result<(Hash, bool), String> {
        let hash = record.chain(before);
        if self.beginnings.contains_key(&hash) {
            return Ok((hash, false));
        }
        let beginning = self.grown(before, entry)?;
        let place = (beginning.session, beginning.index);
        if self.places.insert(place, hash).is_some_and(|other| other != hash) {
            return Err(format!("L6: session {} ordered two contents for index {}", place.0, place.1));
        }
        if let Body::Opened(Opened { session, .. }) = &entry.body
            && self.opened.insert(*session, hash).is_some()
        {
            return Err(format!("L7: session {session:?} was opened twice"));
        }
        self.at.entry(beginning.index).or_default().push(hash);
        self.beginnings.insert(hash, beginning);
        Ok((hash, true))
    }

    fn grown(&self, before: Hash, entry: &Entry<Kv>) -> Result<Beginning, String> {
        let parent = self.beginning(before);
        if entry.index != self.next(before) {
            return Err(format!("L6: entry {} came where {} was next", entry.index, self.next(before)));
        }
        let far_before = self.far_before(before);
        let mut grown = match (parent, &entry.body) {
            (Some(parent), _) => {
                let fresh = parent.clone();
                Beginning { before, far_before, index: entry.index, marks: false, asked: None, state: None, ..fresh }
            }
            (None, Body::Opened(Opened { session, founding: Some(founding) })) => Beginning {
                before,
                far_before,
                index: entry.index,
                session: *session,
                founding: founding.id,
                marks: false,
                asked: None,
                stamp: entry.stamp,
                commands: OrdSet::new(),
                turns: OrdMap::new(),
                proposals: OrdMap::new(),
                state: None,
            },
            (None, _) => return Err("a log begins with something else than a founding".to_owned()),
        };
        if entry.stamp < grown.stamp {
            return Err(format!("L8: the stamp of entry {} is earlier than the one before it", entry.index));
        }
        grown.stamp = entry.stamp;
        match &entry.body {
            Body::Opened(opened) => {
                if parent.is_some() && opened.session <= grown.session {
                    return Err(format!("L7: session {} was opened after {}", opened.session, grown.session));
                }
                grown.session = opened.session;
                grown.founding = opened.founding.as_ref().map_or(grown.founding, |founding| founding.id);
            }
            Body::Backed => grown.marks = true,
            Body::Generation { node, generation } => grown.proposes(*node, (*generation, 0))?,
            Body::Known(_) => {}
            Body::Decided(decided) => {
                if let Some(id) = decided.proposal {
                    grown.proposes(id.node, (id.generation, id.n))?;
                }
                if let Some(by) = asked_by(entry) {
                    grown.asks(by)?;
                }
            }
        }
        Ok(grown)
    }

    /// Where a beginning that continues `before` jumps to.
    fn far_before(&self, before: Hash) -> Hash {
        let far = |hash| self.beginning(hash).map_or(hash, |beginning: &Beginning| beginning.far_before);
        let (once, twice) = (far(before), far(far(before)));
        let next = |hash| self.next(hash).0;
        if next(before) - next(once) == next(once) - next(twice) { twice } else { before }
    }

    /// What the state after a beginning looks like: the same to everybody.
    pub(crate) fn state(&mut self, hash: Hash, digest: Hash) -> Result<(), String> {
        let Some(beginning) = self.beginnings.get_mut(&hash) else { return Ok(()) };
        match beginning.state {
            Some(other) if other != digest => Err(format!("L6: two states after entry {}", beginning.index)),
            Some(_) => Ok(()),
            None => {
                beginning.state = Some(digest);
                Ok(())
            }
        }
    }
}

impl Beginning {
    fn proposes(&mut self, node: NodeId, id: (u64, u64)) -> Result<(), String> {
        match self.proposals.insert(node, id) {
            Some(last) if last >= id => {
                Err(format!("L11: entry {} orders proposal {id:?} of {node:?} after {last:?}", self.index))
            }
            Some((generation, _)) if generation != id.0 && id.1 != 0 => {
                Err(format!("L11: entry {} orders {id:?} of {node:?} before its generation", self.index))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn asks(&mut self, by: By) -> Result<(), String> {
        self.asked = Some(by);
        if self.commands.insert(by.uid).is_some() {
            return Err(format!("L11: command {} stands twice in one log, again at {}", by.uid, self.index));
        }
        if self.turns.insert(by.node, by.turn).is_some_and(|last| last >= by.turn) {
            return Err(format!("L11: entry {} breaks the order of {:?}'s commands", self.index, by.node));
        }
        Ok(())
    }
}
