//! A node's own proposals: numbered, sent again until the log or a refusal shows what became of them, and the clients that
//! wait for them. Knows nothing of who the leader is.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::App;
use crate::config::Config;
use crate::id::{CommandId, Index, ProposalId, Ticket};
use crate::io::{NotTaken, Outcome, Unknown};
use crate::message::{DoneMark, Proposal, Propose, Refused};
use crate::replica::{Origin, Replica};
use crate::time::{Moment, Span};

#[derive(Clone, Debug)]
pub(crate) struct Outbox<A: App> {
    /// Drawn at this start: the lower half of its generations. A start that chooses from a state that is behind does not
    /// take an earlier start's proposals for its own.
    start: u32,
    /// The generation that the items are numbered in; 0 until there was one.
    generation: u64,
    /// Whether proposals may be sent in it. A start or a change of branch closes it: the next one is ordered first, and
    /// when the log shows it, what older ones left in the log is known.
    open: bool,
    /// The next generation, once it was asked for.
    asked: Option<u64>,
    /// The highest number of the generation that the log shows: what is below and not in the log was refused.
    passed: u64,
    /// Not in the log yet, by number.
    items: BTreeMap<u64, Item<A>>,
    bytes: usize,
    next_n: u64,
    /// All below were sent to the present leader.
    unsent: u64,
    /// All below were sent to some leader, in this generation.
    sent: u64,
    resend_at: Option<Moment>,
    /// Whose entries are in the log, but not done yet.
    waiting: BTreeMap<(Index, Ticket), Moment>,
    /// All clients that wait, the oldest first.
    clients: BTreeSet<(Moment, Ticket)>,
}

#[derive(Clone, Debug)]
struct Item<A: App> {
    proposal: Proposal<A>,
    bytes: usize,
    client: Option<Client>,
    /// Whether it was sent to a leader before the present one: that one may have ordered it, whatever this one says.
    contested: bool,
    /// As what it was sent in earlier generations. A branch that lost may win in the end, and then the log shows it as that.
    was: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    ticket: Ticket,
    since: Moment,
}

/// Replies to give.
pub(crate) type Replies<A> = Vec<(Ticket, Outcome<A>)>;

/// In how many generations a proposal is sent, at most: who changed branches more often is told that nobody knows.
const GENERATIONS: usize = 16;

/// What a proposal costs beside its own content.
const ITEM_OVERHEAD: usize = 64;

impl<A: App> Outbox<A> {
    /// An outbox of a start with this nonce.
    pub(crate) fn new(nonce: u64) -> Self {
        Outbox {
            start: nonce as u32,
            generation: 0,
            open: false,
            asked: None,
            passed: 0,
            items: BTreeMap::new(),
            bytes: 0,
            next_n: 1,
            unsent: 1,
            sent: 1,
            resend_at: None,
            waiting: BTreeMap::new(),
            clients: BTreeSet::new(),
        }
    }

    /// Whether it has nothing to send, and nobody to answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.items.is_empty() && self.clients.is_empty() && self.resend_at.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len() + self.waiting.len()
    }

    /// Whether there is no room for another client, whatever it asks for.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.len() >= config.outbox_entries && !mutant!(UnboundedOutbox)
    }

    /// Takes a client's command in.
    pub(crate) fn command(
        &mut self,
        now: Moment,
        ticket: Ticket,
        id: Option<CommandId>,
        command: A::Command,
        config: &Config,
    ) -> Result<(), NotTaken> {
        let client = Some(Client { ticket, since: now });
        self.add(Proposal::Command(id, command), client, config).ok_or(NotTaken::Full)
    }

    /// Takes an observation in; a newer one replaces an older one that was not sent yet. False if there is no room.
    pub(crate) fn observe(&mut self, observation: A::Observation, config: &Config) -> bool {
        let key = A::key(&observation);
        let same = |item: &Item<A>| matches!(&item.proposal, Proposal::Observation(old) if A::key(old) == key);
        let from = if self.open { self.unsent } else { 0 };
        if let Some((_, item)) = self.items.range_mut(from..).find(|(_, item)| same(item)) {
            item.proposal = Proposal::Observation(observation);
            return true;
        }
        self.add(Proposal::Observation(observation), None, config).is_some()
    }

    fn add(&mut self, proposal: Proposal<A>, client: Option<Client>, config: &Config) -> Option<()> {
        let bytes = postcard::experimental::serialized_size(&proposal).unwrap_or(usize::MAX / 2) + ITEM_OVERHEAD;
        if self.is_full(config) || self.bytes + bytes > config.outbox_bytes && !mutant!(UnboundedOutbox) {
            probe!("the outbox is full");
            return None;
        }
        self.bytes += bytes;
        self.clients.extend(client.map(|client| (client.since, client.ticket)));
        self.items.insert(self.next_n, Item { proposal, bytes, client, contested: false, was: Vec::new() });
        self.next_n += 1;
        Some(())
    }

    fn remove(&mut self, n: u64) -> Option<Item<A>> {
        let item = self.items.remove(&n)?;
        self.bytes -= item.bytes;
        Some(item)
    }

    /// What to send to the leader now, if anything. `repeated` counts what had been sent before.
    pub(crate) fn propose(
        &mut self,
        now: Moment,
        origin: Origin,
        config: &Config,
        repeated: &mut u64,
    ) -> Option<Propose<A>> {
        let due = self.resend_at.is_some_and(|at| at <= now);
        if self.items.is_empty() {
            self.resend_at = None;
            return None;
        }
        if !self.open {
            if self.resend_at.is_some() && !due {
                return None;
            }
            let newest = origin.generation.max(self.generation) >> 32;
            let next = ((newest + u64::from(!mutant!(GenerationNotRaised))) << 32) | u64::from(self.start);
            let generation = *self.asked.insert(self.asked.map_or(next, |asked| asked.max(next)));
            self.resend_at = Some(now + config.propose_again);
            return Some(Propose { generation, floor: 1, after: 0, items: Vec::new() });
        }
        let floor = self.items.keys().next().copied().unwrap_or(self.next_n);
        if due {
            probe!("proposals are sent again");
            *repeated += self.items.range(..self.unsent).count() as u64;
            self.unsent = floor;
        }
        if self.unsent >= self.next_n {
            return None;
        }
        let after = self.unsent.max(floor) - 1; // Numbers begin at 1.
        let mut items = Vec::new();
        let mut bytes = 0;
        for (n, item) in self.items.range(self.unsent..) {
            if bytes + item.bytes > config.batch_bytes && !items.is_empty() {
                break;
            }
            bytes += item.bytes;
            items.push((*n, item.proposal.clone()));
        }
        self.unsent = items.last().map_or(self.next_n, |(n, _)| n + 1);
        if items.is_empty() {
            return None;
        }
        // A steady flow of new proposals must not put off the repetition of a lost one.
        if due || self.resend_at.is_none() {
            self.resend_at = Some(now + config.propose_again);
        }
        Some(Propose { generation: self.generation, floor, after, items })
    }

    /// Nothing can be sent now: look again later, if there is anything to send.
    pub(crate) fn postpone(&mut self, now: Moment, config: &Config) {
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_at = Some(now + config.propose_again);
        }
    }

    /// Another leader: it has seen none of this.
    pub(crate) fn new_leader(&mut self) {
        self.sent = self.sent.max(self.unsent);
        self.items.range_mut(..self.unsent).for_each(|(_, item)| item.contested = true);
        self.unsent = 0;
        self.resend_at = None;
    }

    /// The log shows that this node took a generation.
    pub(crate) fn generation_ordered(&mut self, generation: u64) -> Replies<A> {
        if self.asked != Some(generation) {
            // An older start's.
            if generation > self.generation {
                probe!("an older start's generation is ordered");
                self.close();
            }
            return Vec::new();
        }
        let mut replies = self.refuse_passed();
        replies.extend(self.renumber(generation));
        replies
    }

    /// What the log went past without showing it was refused, by a leader whose word was lost.
    fn refuse_passed(&mut self) -> Replies<A> {
        let refused: Vec<Item<A>> = self.take_below(self.passed + 1).collect();
        refused.into_iter().filter_map(|item| self.refuse(item, Refused::Before)).collect()
    }

    /// The client waits no more.
    fn answer(&mut self, client: Client, outcome: Outcome<A>) -> (Ticket, Outcome<A>) {
        self.clients.remove(&(client.since, client.ticket));
        (client.ticket, outcome)
    }

    /// The leader refused an item. Who asked for what was done before is told so when that may be told.
    fn refuse(&mut self, item: Item<A>, refused: Refused<A>) -> Option<(Ticket, Outcome<A>)> {
        let client = item.client?;
        match refused {
            Refused::DoneBefore(index) => {
                self.done_before(client.since, client.ticket, index);
                None
            }
            Refused::Application(_) | Refused::Nothing(_) | Refused::TooLong { .. } | Refused::Before => {
                if item.contested {
                    probe!("a refusal is contested");
                }
                let outcome =
                    if item.contested { Outcome::Unknown(Unknown::Contested) } else { Outcome::Refused(refused) };
                Some(self.answer(client, outcome))
            }
        }
    }

    /// Takes out the items whose number is lower.
    fn take_below(&mut self, n: u64) -> impl Iterator<Item = Item<A>> + use<A> {
        let kept = self.items.split_off(&n);
        let taken = std::mem::replace(&mut self.items, kept);
        self.bytes -= taken.values().map(|item| item.bytes).sum::<usize>();
        taken.into_values()
    }

    fn renumber(&mut self, generation: u64) -> Replies<A> {
        let sent = self.sent.max(self.unsent);
        for (n, item) in self.items.range_mut(..sent) {
            item.was.push((self.generation, *n));
        }
        let weary = self.take_if(|item| item.was.len() > GENERATIONS);
        self.generation = generation;
        self.open = true;
        self.asked = None;
        self.passed = 0;
        let items = std::mem::take(&mut self.items);
        self.items = items.into_values().zip(1..).map(|(item, n)| (n, item)).collect();
        self.next_n = self.items.len() as u64 + 1;
        self.unsent = 0;
        self.sent = 0;
        self.resend_at = None;
        let clients = weary.into_iter().filter_map(|item| item.client);
        clients.map(|client| self.answer(client, Outcome::Unknown(Unknown::Contested))).collect()
    }

    /// Takes out the items of which this is true.
    fn take_if(&mut self, is_taken: impl Fn(&Item<A>) -> bool) -> Vec<Item<A>> {
        let taken: Vec<u64> = self.items.iter().filter(|(_, item)| is_taken(item)).map(|(n, _)| *n).collect();
        taken.into_iter().filter_map(|n| self.remove(n)).collect()
    }

    fn close(&mut self) {
        self.open = false;
        self.asked = None;
        self.resend_at = None;
    }

    /// The log shows one of this node's proposals.
    pub(crate) fn ordered(&mut self, id: ProposalId, index: Index) {
        let shown = if id.generation == self.generation {
            self.passed = self.passed.max(id.n);
            self.remove(id.n)
        } else {
            let was = (id.generation, id.n);
            let shown = self.items.iter().find(|(_, item)| item.was.contains(&was)).map(|(n, _)| *n);
            if shown.is_some() {
                probe!("a branch that lost has won, and shows a proposal");
            }
            shown.and_then(|n| self.remove(n))
        };
        if let Some(client) = shown.and_then(|item| item.client) {
            self.waiting.insert((index, client.ticket), client.since);
        }
    }

    /// A client asks for what was done before, at this index.
    pub(crate) fn done_before(&mut self, since: Moment, ticket: Ticket, index: Index) {
        self.clients.insert((since, ticket));
        self.waiting.insert((index, ticket), since);
    }

    /// The leader refused some.
    pub(crate) fn refused(&mut self, generation: u64, items: Vec<(u64, Refused<A>)>) -> Replies<A> {
        if generation != self.generation {
            return Vec::new();
        }
        let mut replies = Vec::new();
        for (n, refused) in items {
            if let Some(item) = self.remove(n) {
                replies.extend(self.refuse(item, refused));
            }
        }
        replies
    }

    /// The state was replaced: what it contains of this node's proposals can only be told by name. `before` is how far they
    /// had got in the state that it took the place of.
    pub(crate) fn skipped(&mut self, replica: &Replica<A>, before: Origin, origin: Origin) -> Replies<A> {
        if self.generation == 0 || origin == before {
            return Vec::new();
        }
        let is_skipped = |(generation, n): &(u64, u64)| {
            (before.generation..=origin.generation).contains(generation)
                && (*generation < origin.generation || *n <= origin.n)
        };
        let mut gone = self.take_if(|item| item.was.iter().any(is_skipped));
        let renewed = origin.generation > self.generation;
        if origin.generation >= self.generation {
            // A newer generation hides how far this one got: all that was ever sent may be in the log.
            let settled = if renewed { self.sent.max(self.unsent).max(self.passed + 1) } else { origin.n + 1 };
            gone.extend(self.take_below(settled));
            self.passed = self.passed.max(settled - 1);
        }
        let mut replies = Vec::new();
        for item in gone {
            let Some(client) = item.client else { continue };
            let named = match item.proposal {
                Proposal::Command(id, _) => id.and_then(|id| replica.command(id)),
                Proposal::Observation(_) => None,
            };
            match named {
                Some(index) => {
                    probe!("a snapshot shows a command by its name");
                    self.done_before(client.since, client.ticket, index);
                }
                None => {
                    probe!("a snapshot skips a command that waits");
                    let reply = self.answer(client, Outcome::Unknown(Unknown::Skipped));
                    replies.extend((!mutant!(ReplyLost)).then_some(reply));
                }
            }
        }
        if renewed && self.asked == Some(origin.generation) {
            replies.extend(self.renumber(origin.generation));
        } else if renewed {
            self.close();
        }
        replies
    }

    /// The log was cut: what stood past the cut is set aside, and the next proposals need a new generation. Until that is in
    /// the log, the new branch may still show proposals of the present one.
    pub(crate) fn rewound(&mut self, to: Index, origin: Origin) -> Replies<A> {
        self.close();
        self.passed = if origin.generation == self.generation { origin.n } else { 0 };
        let gone = self.waiting.split_off(&(to, Ticket(0)));
        if !gone.is_empty() {
            probe!("a command that waits is set aside");
        }
        let clients = gone.into_iter().map(|((_, ticket), since)| Client { ticket, since });
        clients.map(|client| self.answer(client, Outcome::Unknown(Unknown::SetAside))).collect()
    }

    /// Another leader's log goes on from `next`: what the old one said of entries beyond is void.
    pub(crate) fn doubt_beyond(&mut self, next: Index) -> Replies<A> {
        let doubted = self.waiting.split_off(&(next, Ticket(0)));
        if !doubted.is_empty() {
            probe!("another leader's log does not reach a command that waits");
        }
        let clients = doubted.into_iter().map(|((_, ticket), since)| Client { ticket, since });
        clients.map(|client| self.answer(client, Outcome::Unknown(Unknown::TimedOut))).collect()
    }

    /// Clients may be told of everything up to this mark, as far as this node's own log shows it: up to before `next`.
    pub(crate) fn done(&mut self, mark: DoneMark, next: Index) -> Replies<A> {
        let until = mark.index.next().min(next);
        if self.waiting.first_key_value().is_none_or(|((index, _), _)| *index >= until) {
            return Vec::new();
        }
        let rest = self.waiting.split_off(&(until, Ticket(0)));
        let done = std::mem::replace(&mut self.waiting, rest);
        let reply = |((index, ticket), since)| {
            self.answer(Client { ticket, since }, Outcome::Done { index, held: mark.held, of: mark.of })
        };
        done.into_iter().map(reply).collect()
    }

    /// What the log went past was refused; if the leader's word on it is overdue, it was lost.
    pub(crate) fn give_up_passed(&mut self, now: Moment) -> Replies<A> {
        if !self.open || self.resend_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let replies = self.refuse_passed();
        if !replies.is_empty() {
            probe!("a refusal was lost, and the log shows it");
        }
        replies
    }

    /// Whether a client waits for an entry that is in the log.
    pub(crate) fn awaits_done(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the oldest client has waited too long, or something has to be sent again.
    pub(crate) fn due(&self, config: &Config, led: bool) -> Option<Moment> {
        let expiry = self.clients.first().map(|(since, _)| *since + config.reply_within);
        let resend = if led { self.resend_at.filter(|_| !self.items.is_empty()) } else { None };
        expiry.into_iter().chain(resend).min()
    }

    /// Tells those who have waited too long. Their proposals stay, and may still be done.
    pub(crate) fn expire(&mut self, now: Moment, within: Span) -> Replies<A> {
        if self.clients.first().is_none_or(|(since, _)| *since + within > now) {
            return Vec::new();
        }
        let rest = match self.clients.iter().find(|(since, _)| *since + within > now) {
            Some(first) => self.clients.split_off(&first.clone()),
            None => BTreeSet::new(),
        };
        let expired = std::mem::replace(&mut self.clients, rest);
        if !expired.is_empty() {
            probe!("a client waited too long");
        }
        self.tell(&expired, Unknown::TimedOut)
    }

    /// Tells all who wait that this node stops.
    pub(crate) fn stop(&mut self) -> Replies<A> {
        let all = std::mem::take(&mut self.clients);
        self.tell(&all, Unknown::Stopped)
    }

    fn tell(&mut self, clients: &BTreeSet<(Moment, Ticket)>, why: Unknown) -> Replies<A> {
        if !clients.is_empty() {
            let told = |client: &Client| clients.contains(&(client.since, client.ticket));
            for item in self.items.values_mut() {
                item.client.take_if(|client| told(client));
            }
            self.waiting.retain(|(_, ticket), since| !clients.contains(&(*since, *ticket)) || mutant!(RepliesTwice));
        }
        clients.iter().map(|(_, ticket)| (*ticket, Outcome::Unknown(why))).collect()
    }
}
