//! Every log that anybody ever held, as one tree: branches of entries, each entry identified by its branch and index.
//!
//! An entry that a node applies is compared with the one number that stands at its place. Only where nobody had applied it
//! before is anything looked up or judged: so a log that all share costs once what it holds, and then next to nothing.

use std::collections::BTreeMap;

use lockstep_replication::entry::{Body, Entry, Opened};
use lockstep_replication::lineage::Lineage;
use lockstep_replication::{Hash, Index, Session};

use super::once_in_order::{self, Tip};
use super::pages::Pages;
use super::{Broken, content, one_content, sessions_rise, stamps};
use crate::kv::{Kv, asked_by};

/// The beginning of a log: a branch, and one past its last entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    branch: u32,
    pub(crate) next: u64,
}

/// What became of an entry that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extended {
    /// The log with it.
    pub(crate) place: Place,
    /// Where nobody had applied it before: the stamp of the entry before it.
    pub(crate) fresh_after: Option<u64>,
}

/// How many entries lie between two places from which a branch's tip can be built up again.
const TIP_EVERY: u64 = 1024;

/// All logs.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// The first one is empty and stands for the empty log.
    branches: Vec<Branch>,
    /// The branches that fork off before an index of another.
    forks: BTreeMap<Place, Vec<u32>>,
    openings: Vec<Opening>,
    by_session: BTreeMap<Session, u32>,
    /// What the foundings drew, by their numbers here.
    foundings: Vec<u64>,
    /// Where each command stands first.
    commands: Pages<Where>,
    /// Where commands stand that stand in several branches.
    elsewhere: BTreeMap<u64, Vec<Where>>,
    entries: u64,
}

/// A run of entries, from where it forks off another.
#[derive(Clone, Debug, Default)]
struct Branch {
    before: Place,
    slots: Vec<Slot>,
    /// Which session (by its opening) orders from which index on.
    sessions: Vec<(u64, u32)>,
    /// Which generations nodes took at which index.
    generations: Vec<(u64, u64)>,
    tip: Tip,
    /// The tip at every so many entries.
    tips: Vec<Tip>,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
struct Slot {
    content: u64,
    stamp: u64,
    /// A part of the log's running hash after it, once somebody said it; else 0.
    hash: u32,
    effect: once_in_order::Effect,
}

/// Where a session began.
#[derive(Clone, Debug)]
struct Opening {
    session: Session,
    founding: u32,
    /// The log with its opening.
    opened: Place,
    /// Each branch that holds entries of it, and from which index on.
    parts: Vec<(u32, u64)>,
}

/// The entry of a command; none if the branch is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Where {
    branch: u32,
    index: u32,
}

impl Place {
    /// The empty log.
    pub(crate) const EMPTY: Place = Place { branch: 0, next: 0 };
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            branches: vec![Branch::default()],
            forks: BTreeMap::new(),
            openings: Vec::new(),
            by_session: BTreeMap::new(),
            foundings: Vec::new(),
            commands: Pages::default(),
            elsewhere: BTreeMap::new(),
            entries: 0,
        }
    }
}

impl Ledger {
    /// One more entry in the log of a node.
    pub(crate) fn extend(&mut self, before: Place, entry: &Entry<Kv>) -> Result<Extended, Broken> {
        if entry.index.0 != before.next {
            return Err(one_content::broken(format!("entry {} came where {} was next", entry.index, before.next)));
        }
        let content = content::of(entry);
        let next = before.next + 1;
        if self.slot(before.branch, before.next).is_some_and(|slot| slot.content == content) {
            return Ok(Extended { place: Place { branch: before.branch, next }, fresh_after: None });
        }
        let forks = self.forks.get(&before).into_iter().flatten();
        let same = |branch: &&u32| self.branches[**branch as usize].slots[0].content == content;
        if let Some(branch) = forks.copied().find(|branch| same(&branch)) {
            return Ok(Extended { place: Place { branch, next }, fresh_after: None });
        }
        self.grow(before, entry, content)
    }

    /// An entry that nobody had: it must be one that may stand there.
    fn grow(&mut self, before: Place, entry: &Entry<Kv>, content: u64) -> Result<Extended, Broken> {
        let opens = match &entry.body {
            Body::Opened(opened) => Some(opened),
            Body::Backed | Body::Generation { .. } | Body::Known(_) | Body::Decided(_) => None,
        };
        let last = self.opening_of(before);
        let session = match (opens, last) {
            (Some(opened), _) => opened.session,
            (None, Some(last)) => self.openings[last as usize].session,
            (None, None) => return Err(one_content::broken("a log begins with something else than a founding".into())),
        };
        if let Some(rival) = self.continuations(before).find(|rival| *rival == session) {
            return Err(one_content::broken(format!("session {rival} ordered two contents for index {}", entry.index)));
        }
        let asked = asked_by(entry);
        if let Some(by) = asked
            && self.has_command(before, by.uid)
        {
            return Err(once_in_order::broken(format!(
                "command {} stands twice in one log, again at {}",
                by.uid, entry.index
            )));
        }
        let place = self.room_after(before);
        let founding = self.founding_with(last, opens, entry)?;
        let branch = &mut self.branches[place.branch as usize];
        let stamp_before = branch.tip.stamp();
        stamps::rises(stamp_before, entry)?;
        let effect = branch.tip.take(entry)?;
        let index = before.next;
        if let Body::Generation { generation, .. } = &entry.body {
            branch.generations.push((index, *generation));
        }
        branch.slots.push(Slot { content, stamp: entry.stamp.0, hash: 0, effect });
        if (branch.slots.len() as u64).is_multiple_of(TIP_EVERY) {
            branch.tips.push(branch.tip.clone());
        }
        self.entries += 1;
        match opens {
            Some(opened) => self.open(place, opened.session, last, founding)?,
            None => self.go_on(place, last),
        }
        if let Some(by) = asked {
            let entry = Where { branch: place.branch, index: index as u32 };
            let first = self.commands.at(by.uid);
            if first.branch == 0 {
                *first = entry;
            } else {
                self.elsewhere.entry(by.uid).or_default().push(entry);
            }
        }
        Ok(Extended { place, fresh_after: Some(stamp_before) })
    }

    /// The sessions that went on from a log.
    fn continuations(&self, before: Place) -> impl Iterator<Item = Session> {
        let first = move |branch: u32| Place { branch, next: before.next + 1 };
        let straight = self.slot(before.branch, before.next).map(|_| before.branch);
        let forks = self.forks.get(&before).into_iter().flatten().copied();
        straight.into_iter().chain(forks).filter_map(move |branch| self.session(first(branch)))
    }

    /// Where the next entry after this log goes: onto its branch's end, or onto a new branch.
    fn room_after(&mut self, before: Place) -> Place {
        let next = before.next + 1;
        let branch = &self.branches[before.branch as usize];
        if before.branch != 0 && before.next == branch.end() {
            return Place { branch: before.branch, next };
        }
        let tip = self.tip_at(before);
        let branch = self.branches.len() as u32;
        self.branches.push(Branch { before, tip, ..Branch::default() });
        self.forks.entry(before).or_default().push(branch);
        Place { branch, next }
    }

    /// What a branch's tip was at a place of it.
    fn tip_at(&self, place: Place) -> Tip {
        let branch = &self.branches[place.branch as usize];
        let length = place.next.saturating_sub(branch.before.next);
        let kept = length / TIP_EVERY;
        let mut tip = match kept.checked_sub(1) {
            Some(last) => branch.tips[last as usize].clone(),
            None if place.branch == 0 => Tip::default(),
            None => self.tip_at(branch.before),
        };
        for (slot, index) in
            branch.slots[..length as usize].iter().zip(branch.before.next..).skip((kept * TIP_EVERY) as usize)
        {
            let at = branch.generations.partition_point(|(at, _)| *at < index);
            let generation =
                branch.generations.get(at).filter(|(at, _)| *at == index).map(|(_, generation)| *generation);
            tip.replay(slot.stamp, slot.effect, generation);
        }
        tip
    }

    fn founding_with(&mut self, last: Option<u32>, opens: Option<&Opened>, entry: &Entry<Kv>) -> Result<u32, Broken> {
        if let Some(founding) = opens.and_then(|opened| opened.founding.as_ref()) {
            let known = self.foundings.iter().position(|id| *id == founding.id);
            if known.is_none() {
                self.foundings.push(founding.id);
            }
            return Ok(known.unwrap_or(self.foundings.len() - 1) as u32);
        }
        last.map(|last| self.openings[last as usize].founding).ok_or_else(|| {
            one_content::broken(format!("entry {} opens a session of a log that has no founding", entry.index))
        })
    }

    /// A session begins with the last entry of this log.
    fn open(&mut self, place: Place, session: Session, last: Option<u32>, founding: u32) -> Result<(), Broken> {
        let before = last.map(|last| self.openings[last as usize].session);
        sessions_rise::opened(before, session)?;
        let number = self.openings.len() as u32;
        if self.by_session.insert(session, number).is_some() {
            return Err(sessions_rise::broken(format!("session {session} was opened twice")));
        }
        let index = place.next - 1;
        self.openings.push(Opening { session, founding, opened: place, parts: vec![(place.branch, index)] });
        self.branches[place.branch as usize].sessions.push((index, number));
        Ok(())
    }

    /// A session goes on, perhaps on a new branch.
    fn go_on(&mut self, place: Place, last: Option<u32>) {
        let branch = &mut self.branches[place.branch as usize];
        if branch.sessions.is_empty()
            && let Some(last) = last
        {
            let index = place.next - 1;
            branch.sessions.push((index, last));
            self.openings[last as usize].parts.push((place.branch, index));
        }
    }

    fn slot(&self, branch: u32, index: u64) -> Option<&Slot> {
        let branch = &self.branches[branch as usize];
        branch.slots.get(index.checked_sub(branch.before.next)? as usize)
    }

    /// How many entries there are, on all branches.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The opening of the session that ordered the last entry.
    fn opening_of(&self, place: Place) -> Option<u32> {
        let sessions = &self.branches[place.branch as usize].sessions;
        match sessions.last()? {
            (from, number) if *from < place.next => Some(*number),
            (..) => {
                let after = sessions.partition_point(|(from, _)| *from < place.next);
                after.checked_sub(1).map(|at| sessions[at].1)
            }
        }
    }

    /// The session that ordered the last entry.
    pub(crate) fn session(&self, place: Place) -> Option<Session> {
        self.opening_of(place).map(|opening| self.openings[opening as usize].session)
    }

    /// The founding that the last entry belongs to, by its number here.
    pub(crate) fn founding(&self, place: Place) -> Option<u32> {
        self.opening_of(place).map(|opening| self.openings[opening as usize].founding)
    }

    /// The founding under which a session orders.
    pub(crate) fn founding_of(&self, session: Session) -> Option<u32> {
        self.by_session.get(&session).map(|number| self.openings[*number as usize].founding)
    }

    /// The log with which a session began.
    pub(crate) fn opened(&self, session: Session) -> Option<Place> {
        self.by_session.get(&session).map(|number| self.openings[*number as usize].opened)
    }

    /// What the last entry holds, as [`content::of`] says it.
    pub(crate) fn content(&self, place: Place) -> Option<u64> {
        place.next.checked_sub(1).and_then(|index| self.slot(place.branch, index)).map(|slot| slot.content)
    }

    /// The log that ends before `next` and went through these sessions; none if nobody ever built it.
    pub(crate) fn find(&self, lineage: &Lineage, next: Index) -> Option<Place> {
        let Some(last) = next.previous() else { return Some(Place::EMPTY) };
        let number = *self.by_session.get(&lineage.session_at(last)?)?;
        let parts = &self.openings[number as usize].parts;
        let (branch, _) = parts.iter().rev().find(|(_, from)| *from <= last.0)?;
        let place = Place { branch: *branch, next: next.0 };
        let there = self.slot(*branch, last.0).is_some() && self.opening_of(place) == Some(number);
        there.then_some(place)
    }

    /// The beginning of a log that ends before `next`.
    pub(crate) fn cut(&self, mut place: Place, next: u64) -> Option<Place> {
        if next > place.next {
            return None;
        }
        loop {
            let branch = &self.branches[place.branch as usize];
            if next > branch.before.next {
                return Some(Place { branch: place.branch, next });
            }
            if next == 0 {
                return Some(Place::EMPTY);
            }
            place = branch.before;
        }
    }

    /// Whether the later log begins with the earlier one.
    pub(crate) fn leads_to(&self, early: Place, late: Place) -> bool {
        early.next <= late.next && self.cut(late, early.next) == Some(early)
    }

    /// What a node says is the running hash of a log. The first word stands; the answer is whether it was the first.
    pub(crate) fn hash(&mut self, place: Place, hash: Hash) -> Result<bool, Broken> {
        let part = u32::from_le_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]]).max(1);
        let branch = &mut self.branches[place.branch as usize];
        let index = place.next.wrapping_sub(1);
        let slot = index.checked_sub(branch.before.next).and_then(|at| branch.slots.get_mut(at as usize));
        let Some(slot) = slot.filter(|_| place.next > 0) else { return Ok(false) };
        let said = std::mem::replace(&mut slot.hash, part);
        if said != 0 && said != part {
            return Err(one_content::broken(format!(
                "two logs up to entry {index} have equal entries and other hashes"
            )));
        }
        Ok(said == 0)
    }

    /// The logs with which a command ends, one for each branch that it stands in.
    pub(crate) fn with_command(&self, uid: u64) -> impl Iterator<Item = Place> {
        let first = self.commands.get(uid);
        let others = if first.branch == 0 { None } else { self.elsewhere.get(&uid) };
        let all =
            Some(first).filter(|first| first.branch != 0).into_iter().chain(others.into_iter().flatten().copied());
        all.map(|entry| Place { branch: entry.branch, next: u64::from(entry.index) + 1 })
    }

    /// Whether this command stands in a log.
    pub(crate) fn has_command(&self, place: Place, uid: u64) -> bool {
        self.with_command(uid).any(|with| self.leads_to(with, place))
    }
}

impl Branch {
    /// One past its last entry.
    fn end(&self) -> u64 {
        self.before.next + self.slots.len() as u64
    }
}
