//! Finding a leader: asking all for their standing, judging who should lead, opening a session. Raft's argument where more
//! than half of the known nodes take part; where fewer do the cluster works on, unbacked.

use std::collections::BTreeMap;

use super::leading::Leading;
use super::{Node, Part, Turn};
use crate::app::App;
use crate::entry::{Body, Founding, Opened};
use crate::id::{Boot, Index, NodeId, Session};
use crate::io::{Notice, Output};
use crate::message::{Message, Purpose, Reject, Standing};
use crate::replica::Founded;
use crate::time::{Moment, Span};

/// A node is asked for its standing, or told of this one's unasked, at most so often.
const SELDOM: Span = Span::millis(50);

/// A search for a leader.
#[derive(Clone, Debug)]
pub(super) struct Seeking {
    /// Whether a round of answers is over in which nobody was here who may choose a leader.
    vain: bool,
    /// Since when answers are collected: from the beginning again when those that came did not suffice.
    since: Moment,
    /// Standings of those who hear no leader either: candidacies.
    answers: BTreeMap<NodeId, Standing>,
    /// Who hears which leader.
    pub(super) hears: BTreeMap<NodeId, Session>,
    /// The best candidate is another: until when it may open its session.
    yielding_until: Option<Moment>,
    /// Whether all were asked.
    asked: bool,
    /// Whether the leader that this node followed gave its founding up for another: in the first round that one's is
    /// waited for.
    pub(super) given_up: bool,
}

impl Seeking {
    pub(super) fn begin(now: Moment) -> Self {
        let (answers, hears) = (BTreeMap::new(), BTreeMap::new());
        Seeking { vain: false, since: now, answers, hears, yielding_until: None, asked: false, given_up: false }
    }

    pub(super) fn forget(&mut self, peer: NodeId) {
        self.answers.remove(&peer);
        self.hears.remove(&peer);
    }
}

/// Whether the first node should lead rather than the second: the higher position, then who led more sessions, then the
/// higher id. Between two foundings, whatever each lost, their own order decides first, so that no three can go round.
pub(super) fn outranks(one: (NodeId, &Standing), other: (NodeId, &Standing)) -> bool {
    let ((id, standing), (other_id, other)) = (one, other);
    if mutant!(PositionIgnored) {
        return (standing.seniority, id) > (other.seniority, other_id);
    }
    if standing.is_foreign_to(other.founding, &other.lineage) {
        let rank = |standing: &Standing| {
            let Founded { widest, anew, id } = standing.founding.unwrap_or_default();
            (widest, anew, standing.position(), id)
        };
        return rank(standing) > rank(other);
    }
    let rank =
        |standing: &Standing| (!standing.damaged, standing.founding.is_some(), standing.position(), standing.seniority);
    (rank(standing), id) > (rank(other), other_id)
}

impl<A: App> Node<A> {
    /// No leader is heard: ask all who connect, and count what they say.
    pub(super) fn enter_seeking(&mut self, t: &mut Turn<'_, A>) {
        if !matches!(self.part, Part::Seeking(_)) {
            self.counters.campaigns += 1;
            self.part = Part::Seeking(Seeking::begin(t.at()));
            t.put(Output::Role(self.role()));
        } else {
            self.part = Part::Seeking(Seeking::begin(t.at()));
        }
        self.gap.reset();
        self.outbox.new_leader();
    }

    /// A member says how far it stands.
    pub(super) fn hello(&mut self, t: &mut Turn<'_, A>, from: NodeId, standing: Standing, purpose: Purpose) {
        if !self.admit(t, from, &standing) {
            return;
        }
        self.clock = self.clock.max(standing.clock).max(standing.confirmed.map_or(0, |session| session.clock));
        if let Some(peer) = self.peers.entry(from, self.config.nodes) {
            peer.schema = Some(standing.schema);
            peer.standing = Some(standing.clone());
            peer.disk = Some(standing.disk);
            peer.damaged = standing.damaged;
            peer.heard = Some(t.at());
        }
        self.read_anew();
        // What was asked for earlier, or said unasked, may be older than what this node lost.
        if self.kept.damaged && self.is_answered_by(purpose) {
            self.healing.answers.insert(from, standing.clone());
            self.heal(t);
        }
        if let Purpose::Ask { losses } = purpose
            && !self.is_stalled(t.at())
        {
            self.say(t, from, Purpose::Answer { boot: standing.boot, losses });
        }
        self.hear_given_up(t, from, &standing);
        match standing.session {
            Some(session) if session.leader == from => self.consider(t, session, standing),
            Some(session) => self.follows_another(t, from, session, standing),
            None => self.candidacy(t, from, standing),
        }
    }

    /// Whether this is the start of that node which speaks for it, and its claims are possible.
    fn admit(&mut self, t: &mut Turn<'_, A>, from: NodeId, standing: &Standing) -> bool {
        let limit = self.config.nodes;
        let Some(peer) = self.peers.entry(from, limit) else {
            self.counters.requests_limited += 1;
            return false;
        };
        // Starts begin anew on an empty disk, and on another one than it had: it may have a log by the time it is heard.
        let other_disk = peer.standing.as_ref().is_none_or(|known| known.disk != standing.disk);
        if let Err(reject) = peer.admit(standing.boot, standing.founding.is_none() || other_disk) {
            self.counters.rejected_origin += 1;
            t.send(from, Message::Reject { boot: standing.boot, reject });
            if reject == Reject::SameIdentity {
                probe!("one identity runs twice");
                t.put(Output::Notice(Notice::SameIdentity(from)));
            }
            return false;
        }
        self.started(t, from, standing.boot);
        let highest = self.clock.max(self.kept.clock).saturating_add(self.config.clock_step_at_most);
        let claimed = standing.clock.max(standing.confirmed.map_or(0, |session| session.clock));
        let claimed = claimed.max(standing.session.map_or(0, |session| session.clock));
        let founded = standing.founding.is_some_and(|founding| (1..=limit + 1).contains(&(founding.widest as usize)));
        // Whoever leads has its opening on disk.
        let leads_nothing = !founded && standing.session.is_some_and(|session| session.leader == from);
        let possible = standing.lineage.is_possible() && founded == (standing.lineage.next().0 > 0) && !leads_nothing;
        if claimed > highest || !possible {
            probe!("a standing is impossible");
            self.counters.rejected_origin += 1;
            return false;
        }
        true
    }

    /// A node speaks under this start. Who leads counts what was stored under it, and not what a lost disk held; who
    /// follows a session of another start of that node follows nobody: a session ends with its leader's start.
    pub(super) fn started(&mut self, t: &mut Turn<'_, A>, node: NodeId, boot: Boot) {
        match &mut self.part {
            Part::Leading(leading) => leading.tally.started(node, boot),
            Part::Following(following) if following.session.leader == node && following.session.boot != boot => {
                probe!("a leader speaks under another start than its session's");
                self.enter_seeking(t);
            }
            Part::Following(_) | Part::Seeking(_) => {}
        }
    }

    /// A node that hears no leader: its standing is its candidacy, whenever it comes.
    fn candidacy(&mut self, t: &mut Turn<'_, A>, from: NodeId, standing: Standing) {
        let foreign = self.is_foreign(&standing);
        match &mut self.part {
            Part::Seeking(seeking) => {
                seeking.hears.remove(&from);
                seeking.answers.insert(from, standing);
            }
            Part::Following(following) => {
                if !following.hears(t.at(), &self.config) && !foreign {
                    probe!("a follower that hears no leader joins another's search");
                    self.enter_seeking(t);
                    if let Part::Seeking(seeking) = &mut self.part {
                        seeking.answers.insert(from, standing);
                    }
                }
            }
            Part::Leading(leading) => {
                let session = leading.session;
                if !leading.ready || self.is_stalled(t.at()) {
                    return;
                }
                let mine = self.standing(t.at());
                let contained = mine.lineage.contains(&standing.lineage) || standing.founding.is_none();
                if foreign {
                    probe!("a candidate of another founding is to find its own leader");
                    self.tell(t, from, mine);
                } else if !contained && outranks((from, &standing), (self.me, &mine)) {
                    probe!("a leader meets a candidate with a higher position");
                    self.enter_seeking(t);
                    if let Part::Seeking(seeking) = &mut self.part {
                        seeking.answers.insert(from, standing);
                    }
                } else if must_open_above(session, &standing) {
                    probe!("a session is opened above a clock that was heard");
                    self.open(t, None);
                } else {
                    probe!("a candidacy is answered with the session");
                    self.tell(t, from, mine);
                }
            }
        }
    }

    /// A node that hears another leader than the sender itself.
    fn follows_another(&mut self, t: &mut Turn<'_, A>, from: NodeId, session: Session, standing: Standing) {
        let leader = self.peers.get(session.leader).and_then(|peer| peer.standing.as_ref());
        let foreign = |standing: &Standing| self.is_foreign(standing);
        let foreign = foreign(&standing) || leader.is_some_and(|said| said.session == Some(session) && foreign(said));
        let asks = match &mut self.part {
            Part::Seeking(seeking) if session.leader == self.me => {
                // It followed this node, which leads no more.
                probe!("a follower is met by its leader, which leads no more");
                seeking.answers.insert(from, standing);
                false
            }
            Part::Seeking(seeking) => {
                probe!("another node still hears a leader");
                seeking.answers.remove(&from);
                if !foreign {
                    seeking.hears.insert(from, session);
                }
                true
            }
            Part::Following(_) => false,
            Part::Leading(leading) => session != leading.session && session.leader != self.me,
        };
        if asks {
            self.ask(t, session.leader);
        }
    }

    /// Asks a node for its standing, but not more often than makes sense.
    pub(super) fn ask(&mut self, t: &mut Turn<'_, A>, node: NodeId) {
        let Some(peer) = self.peers.entry(node, self.config.nodes) else { return };
        if peer.asked.is_none_or(|asked| t.at().since(asked) >= SELDOM) {
            peer.asked = Some(t.at());
            self.say(t, node, self.question());
        }
    }

    /// Tells a node unasked how this one stands. What it says in return may lead here again, so this too has a limit: the
    /// next beat is another occasion.
    pub(super) fn tell(&mut self, t: &mut Turn<'_, A>, node: NodeId, standing: Standing) {
        let Some(peer) = self.peers.entry(node, self.config.nodes) else { return };
        if peer.told.is_none_or(|told| t.at().since(told) >= SELDOM) {
            peer.told = Some(t.at());
            t.send(node, Message::Hello { standing: Box::new(standing), purpose: Purpose::Tell });
        }
    }

    /// Says how this node stands.
    pub(super) fn say(&mut self, t: &mut Turn<'_, A>, node: NodeId, purpose: Purpose) {
        t.send(node, Message::Hello { standing: Box::new(self.standing(t.at())), purpose });
    }

    /// Says to all how this node stands.
    pub(super) fn say_to_all(&mut self, t: &mut Turn<'_, A>, purpose: Purpose) {
        t.broadcast(Message::Hello { standing: Box::new(self.standing(t.at())), purpose });
    }

    /// Judges a leader: follow it, yield to it, tell it of a newer session, or contest it.
    pub(super) fn consider(&mut self, t: &mut Turn<'_, A>, session: Session, standing: Standing) {
        let leader = session.leader;
        if self.disk.rewinding || self.session() == Some(session) {
            if let Part::Following(following) = &mut self.part {
                following.head_next = following.head_next.max(standing.lineage.next());
            }
            return;
        }
        let mine = self.standing(t.at());
        let newest = self.kept.confirmed.max(self.session());
        let theirs = standing.lineage.open_ended();
        let contained = theirs.contains(&mine.lineage);
        if self.is_foreign(&standing) {
            return self.meets_founding(t, session, &standing, mine);
        }
        if !contained && !mutant!(FollowsAnyLeader) {
            let we_lead_on = outranks((self.me, &mine), (leader, &standing));
            if we_lead_on {
                self.tell(t, leader, mine);
                if newest < Some(session) && !self.hears_leader(t.at()) {
                    probe!("a leader is contested that lacks what this node holds");
                    self.contest(t);
                } else if let Part::Leading(leading) = &self.part
                    && leading.session < session
                    && t.at() >= leading.since + self.config.campaign_for
                {
                    // Not at once again: two leaders whom all others hear could open above each other for ever, each with
                    // a mark that the other lacks, before anybody has stored one.
                    probe!("a leader opens above another that it outranks");
                    self.open(t, None);
                }
            } else if mutant!(TailOverwritten) {
                self.follow(t, session, standing);
                self.ask_snapshot(t, 1);
            } else {
                probe!("a node yields, and sets its branch aside");
                let to = theirs.common(&mine.lineage);
                if to == Index(0) && mine.lineage.next() > to {
                    // What both began with was folded away: nobody can tell how much of it this node stored.
                    self.lost_entries(t, None);
                }
                self.rewind(t, to, session);
            }
        } else if newest > Some(session) {
            // It must open a session above the one that this node confirmed.
            probe!("a leader is told of a newer session");
            self.tell(t, leader, Standing { session: None, ..mine });
        } else {
            self.follow(t, session, standing);
        }
    }

    /// Whether all had time to answer, and nobody is here who may choose a leader.
    pub(super) fn seeks_in_vain(&self, seeking: &Seeking) -> bool {
        seeking.vain && !self.may_elect(seeking)
    }

    /// Contests a leader whose log lacks what this node holds.
    fn contest(&mut self, t: &mut Turn<'_, A>) {
        if !matches!(self.part, Part::Seeking(_)) {
            self.enter_seeking(t);
        }
    }

    fn hears_leader(&self, now: Moment) -> bool {
        match &self.part {
            Part::Seeking(_) => false,
            Part::Following(following) => following.hears(now, &self.config),
            Part::Leading(leading) => leading.ready,
        }
    }

    /// Asks those who were not asked yet, and judges whether the answers suffice.
    pub(super) fn seek(&mut self, t: &mut Turn<'_, A>) {
        if self.disk.rewinding || self.leaving.is_some() || self.stuck.is_some() {
            return;
        }
        let Part::Seeking(seeking) = &self.part else { return };
        if !seeking.asked {
            self.ask_all(t);
        }
        let Part::Seeking(seeking) = &self.part else { return };
        if let Some(until) = seeking.yielding_until {
            if t.at() < until {
                return;
            }
            probe!("the better candidate did not open its session");
            self.ask_all(t);
        }
        if self.may_elect_now(t.at()) {
            return self.elect(t);
        }
        let Part::Seeking(seeking) = &self.part else { return };
        if t.at() >= self.patience_ends(seeking) {
            if seeking.hears.is_empty() {
                t.put(Output::Notice(Notice::WaitingForPeers));
            }
            self.ask_all(t);
            // Nobody may be there to be asked.
            if self.may_elect_now(t.at()) {
                self.elect(t);
            }
        }
    }

    /// Whether the answers suffice to choose a leader, or nobody need be waited for any more.
    fn may_elect_now(&self, now: Moment) -> bool {
        let Part::Seeking(seeking) = &self.part else { return false };
        let complete = self.peers.connected().all(|peer| seeking.answers.contains_key(&peer));
        let over = now >= self.patience_ends(seeking);
        if over {
            probe!("patience for answers is over");
        }
        let enough = over || complete && self.suffice(seeking) && !seeking.given_up;
        seeking.hears.is_empty() && self.may_elect(seeking) && enough
    }

    /// Begins to collect answers, from the beginning.
    fn ask_all(&mut self, t: &mut Turn<'_, A>) {
        let Part::Seeking(seeking) = &self.part else { return };
        let vain = seeking.asked && !self.may_elect(seeking);
        let Part::Seeking(seeking) = &mut self.part else { return };
        // What led to this search was said a moment ago.
        let answers = if seeking.asked { BTreeMap::new() } else { std::mem::take(&mut seeking.answers) };
        let given_up = seeking.given_up && !seeking.asked;
        *seeking = Seeking { asked: true, vain, given_up, answers, ..Seeking::begin(t.at()) };
        self.say_to_all(t, self.question());
    }

    /// Until when answers are waited for: half a second from when most are connected, which is time for what they say
    /// then; else long enough for them to come back.
    fn patience_ends(&self, seeking: &Seeking) -> Moment {
        let most_connected = if self.replica.next().0 == 0 {
            (self.config.founders == 1).then_some(seeking.since)
        } else {
            self.most_connected_since()
        };
        let minority = seeking.since + self.config.campaign_for_minority;
        match most_connected {
            // However often connections break: each time may be the last.
            Some(most) => most.clamp(seeking.since, minority) + self.config.campaign_for,
            None if seeking.hears.is_empty() => minority,
            None => seeking.since + self.config.campaign_for,
        }
    }

    /// Since when this node is connected to more than half of the known ones, by the connections that stand now.
    fn most_connected_since(&self) -> Option<Moment> {
        let known = self.replica.known();
        let connected = |node: &NodeId| {
            if *node == self.me { Some(Moment(0)) } else { self.peers.get(*node).and_then(|peer| peer.connected) }
        };
        let mut since: Vec<Moment> = known.iter().filter_map(connected).collect();
        since.sort_unstable();
        since.get(known.len() / 2).copied()
    }

    /// Whether, all connected nodes having answered, nobody need be waited for.
    fn suffice(&self, seeking: &Seeking) -> bool {
        if self.replica.next().0 == 0 {
            return self.config.founders > 1 && seeking.answers.len() + 1 >= self.config.founders;
        }
        let known = self.replica.known();
        let answered = known.iter().filter(|node| **node == self.me || seeking.answers.contains_key(*node)).count();
        answered * 2 > known.len()
    }

    /// Whether those who answered may choose a leader: where there is a log, if one of its known nodes is here and whole;
    /// where there is none, if enough are here to found a cluster.
    fn may_elect(&self, seeking: &Seeking) -> bool {
        if self.replica.next().0 == 0 {
            let empty = seeking.answers.values().filter(|standing| standing.founding.is_none()).count();
            return empty == seeking.answers.len() && (empty + 1) * 2 > self.config.founders;
        }
        let known = self.replica.known();
        let whole = seeking.answers.iter().filter(|(node, standing)| self.is_whole(**node, standing));
        let whole = whole.map(|(node, _)| *node);
        whole.chain((!self.kept.damaged).then_some(self.me)).any(|node| known.contains(&node))
    }

    /// Whether a node's word counts in this founding. An empty one's does if it has the disk by which it is known: it never
    /// stored anything.
    pub(super) fn is_whole(&self, node: NodeId, standing: &Standing) -> bool {
        let holds = standing.founding.is_some() && !self.is_foreign(standing);
        !standing.damaged && (holds || standing.founding.is_none() && self.replica.disk(node) == Some(standing.disk))
    }

    pub(super) fn seek_due(&self, seeking: &Seeking) -> Option<Moment> {
        if self.disk.rewinding || self.leaving.is_some() || self.stuck.is_some() {
            return None;
        }
        if !seeking.asked {
            return Some(seeking.since + Span(1));
        }
        Some(seeking.yielding_until.unwrap_or(self.patience_ends(seeking)))
    }

    /// The best of those who answered leads.
    fn elect(&mut self, t: &mut Turn<'_, A>) {
        let mine = self.standing(t.at());
        let Part::Seeking(seeking) = &mut self.part else { return };
        let ours = |standing: &Standing| !standing.is_foreign_to(mine.founding, &mine.lineage);
        let mut candidates = seeking.answers.iter().filter(|(_, standing)| ours(standing));
        let better = candidates.any(|(node, standing)| outranks((*node, standing), (self.me, &mine)));
        if better || mine.damaged {
            probe!("the best candidate is another");
            seeking.yielding_until = Some(t.at() + self.config.campaign_for.times(2));
            if mine.damaged && !better {
                t.put(Output::Notice(Notice::WaitingForPeers));
            }
            return;
        }
        let peers = seeking.answers.iter().map(|(node, standing)| (*node, Some(standing.disk))).collect();
        let founding = mine.founding.is_none().then(|| self.founding(peers));
        self.open(t, founding);
    }

    /// Opens a session above every clock heard of, at the next index.
    pub(super) fn open(&mut self, t: &mut Turn<'_, A>, founding: Option<Founding>) {
        // A log may show sessions that this node never confirmed, and heard of in an earlier start.
        let logged = self.replica.lineage().session().map_or(0, |session| session.clock);
        let clock = self.clock.max(self.kept.clock).max(logged) + 1;
        let boot = if mutant!(SessionWithoutBoot) { Boot::default() } else { self.boot };
        let session = Session { clock, leader: self.me, boot };
        mutant!(EmptyAfterFailover, {
            if founding.is_none() {
                self.replica.forget_state();
            }
        });
        self.kept.clock = clock;
        self.kept.confirmed = Some(session);
        self.kept.led += 1;
        self.kept.fresh = false;
        self.counters.sessions_opened += 1;
        self.keep(t);
        self.buffer.reset(self.replica.next());
        self.gap.reset();
        self.catching_up = super::CatchingUp::default();
        self.outbox.new_leader();
        let opened = self.replica.next();
        let replies = self.outbox.doubt_beyond(opened);
        self.reply(t, replies);
        self.part = Part::Leading(Box::new(Leading::begin(session, opened, self.me, self.boot, t.at())));
        self.observed.schema = match &founding {
            Some(founding) => self.schema_for(founding.known.iter().map(|(node, _)| node)),
            None => self.schema_for(self.replica.known()),
        };
        self.order(t, Body::Opened(Opened { session, founding }))
            .expect("an opening names as many nodes as there is room for");
        t.put(Output::Role(self.role()));
    }
}

/// Whether a leader of this session must open a newer one for that node to be able to follow.
fn must_open_above(session: Session, standing: &Standing) -> bool {
    let unheard = |confirmed: Session| confirmed.clock == session.clock && mutant!(EqualClockUnheard);
    standing
        .confirmed
        .is_some_and(|confirmed| confirmed != session && confirmed.clock >= session.clock && !unheard(confirmed))
}
