//! A conversation: nodes that hear each other at once, whose disks are done at once, under a clock that the test moves.
//! What is said is written down in short lines, which tests compare word by word.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_replication::entry::{Body, KnownChange};
use lockstep_replication::io::{Notice, Work, Worked};
use lockstep_replication::message::{Message, Offer, Purpose, Standing};
use lockstep_replication::{
    Boot, Config, Index, Input, Moment, Node, NodeId, Now, Outcome, Output, Replica, Role, Seed, Session, Span, Ticket,
    Wall,
};

use super::disk::Disk;
use super::kv::{By, Command, Kv, What, asked_by};

/// Some nodes and what they said.
pub(crate) struct Talk {
    nodes: BTreeMap<u8, Party>,
    time: Moment,
    /// Who is connected to whom, both ways.
    links: BTreeSet<(u8, u8)>,
    inputs: VecDeque<(u8, Input<Kv>)>,
    lines: Vec<String>,
    loses: Option<Loses>,
    tickets: u64,
}

/// Which messages are lost: from whom, to whom, how often, and how their line begins.
pub(crate) struct Loses {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) times: u32,
    pub(crate) what: &'static str,
}

struct Party {
    node: Node<Kv>,
    disk: Disk,
    boot: Boot,
}

fn id(n: u8) -> NodeId {
    NodeId::example(n)
}

impl Talk {
    pub(crate) fn new() -> Talk {
        let (nodes, links, inputs, lines) = Default::default();
        Talk { nodes, time: Moment(0), links, inputs, lines, loses: None, tickets: 0 }
    }

    /// Node `n` starts, from its disk if it was here before.
    pub(crate) fn start(&mut self, n: u8, config: &Config) {
        let mut disk = self.nodes.remove(&n).map_or_else(Disk::default, |party| party.disk);
        disk.starts += 1;
        let boot = Boot { starts: disk.starts, nonce: u64::from(n) };
        let restored = disk.restore(boot).expect("the disk is whole");
        let node = Node::new(id(n), config.clone(), Seed::from_number(u64::from(n)), restored, self.now());
        self.nodes.insert(n, Party { node, disk, boot });
    }

    /// These two connect.
    pub(crate) fn meet(&mut self, a: u8, b: u8) {
        self.links.extend([(a, b), (b, a)]);
        self.inputs.extend([(a, Input::Connected(id(b))), (b, Input::Connected(id(a)))]);
        self.settle();
    }

    /// Node `to` hears a hello of another machine that runs from a copy of node `n`'s disk.
    pub(crate) fn forge_hello(&mut self, n: u8, to: u8) {
        let boot = Boot { starts: self.nodes[&n].boot.starts, nonce: 999 };
        self.hello(n, to, boot, Replica::default(), None, Purpose::Ask { losses: 0 });
    }

    /// Node `to` hears how node `n` stands, said for this purpose.
    pub(crate) fn late_hello(&mut self, n: u8, to: u8, purpose: Purpose) {
        self.hello(n, to, self.nodes[&n].boot, self.replica(n).clone(), None, purpose);
    }

    /// Node `to` hears that this session's leader, which has no log, leads and hands over.
    pub(crate) fn forge_hand_over(&mut self, session: Session, to: u8) {
        let from = session.leader;
        self.hello(from.0[0], to, session.boot, Replica::default(), Some(session), Purpose::Tell);
        self.tell(to, Input::Message { from, message: Message::HandOver { session, next: Index(0) } });
    }

    fn hello(&mut self, n: u8, to: u8, boot: Boot, replica: Replica<Kv>, session: Option<Session>, purpose: Purpose) {
        let standing = Standing {
            boot,
            disk: replica.disk(id(n)).unwrap_or(1),
            schema: 1,
            clock: 0,
            confirmed: None,
            founding: replica.founding(),
            lineage: replica.lineage().clone(),
            seniority: 0,
            damaged: false,
            session,
        };
        let message = Message::Hello { standing: Box::new(standing), purpose };
        self.tell(to, Input::Message { from: id(n), message });
    }

    /// From now on such messages are lost.
    pub(crate) fn lose(&mut self, loses: Loses) {
        self.loses = Some(loses);
    }

    /// A client of node `n` sets a key.
    pub(crate) fn set(&mut self, n: u8, key: u8, value: &str) {
        self.tickets += 1;
        let by = By { uid: self.tickets, node: id(n), turn: self.tickets };
        let command = Command { by, what: What::Set { key, value: value.into() } };
        self.tell(n, Input::Command { ticket: Ticket(self.tickets), id: None, command });
    }

    /// An input, and all that follows from it at once.
    pub(crate) fn tell(&mut self, n: u8, input: Input<Kv>) {
        self.inputs.push_back((n, input));
        self.settle();
    }

    /// Time passes, and wakes nodes as they asked.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.time + span;
        loop {
            let due = |(n, party): (&u8, &Party)| party.node.next_wake().map(|wake| (wake.at, *n));
            let next = self.nodes.iter().filter_map(due).min().filter(|(at, _)| *at <= end);
            let Some((at, n)) = next else { break };
            self.time = self.time.max(at);
            self.tell(n, Input::Wake);
        }
        self.time = end;
    }

    /// What was said since the last time, but for beats and probes.
    pub(crate) fn said(&mut self) -> String {
        std::mem::take(&mut self.lines).join("\n")
    }

    pub(crate) fn replica(&self, n: u8) -> &Replica<Kv> {
        self.nodes[&n].node.replica()
    }

    pub(crate) fn role(&self, n: u8) -> Role {
        self.nodes[&n].node.view(self.time).role
    }

    fn now(&self) -> Now {
        Now { at: self.time, wall: Wall(self.time.0 / 1_000_000) }
    }

    fn connected(&self, n: u8) -> Vec<u8> {
        self.links.iter().filter(|(from, _)| *from == n).map(|(_, to)| *to).collect()
    }

    fn settle(&mut self) {
        while let Some((n, input)) = self.inputs.pop_front() {
            let now = self.now();
            let Some(party) = self.nodes.get_mut(&n) else { continue };
            let mut outputs = Vec::new();
            party.node.step(now, input, &mut outputs);
            for output in outputs {
                self.perform(n, output);
            }
        }
    }

    fn perform(&mut self, n: u8, output: Output<Kv>) {
        match output {
            Output::Send { to, message } => self.carry(n, to.0[0], message),
            Output::Broadcast(message) => {
                for to in self.connected(n) {
                    self.carry(n, to, message.clone());
                }
            }
            Output::Work { id, work } => {
                if !matches!(work, Work::Keep(_)) {
                    self.line(n, &worked(&work));
                }
                let result = self.work(n, work);
                self.inputs.push_back((n, Input::Worked { id, result: Ok(result) }));
            }
            Output::Applied(entry) => {
                let what = match &entry.body {
                    Body::Opened(opened) => format!("session {}", short(opened.session)),
                    Body::Backed => "the mark".into(),
                    Body::Generation { node, .. } => format!("a generation of {}", node.0[0]),
                    Body::Known(KnownChange::Joined { node, .. }) => format!("{} joins", node.0[0]),
                    Body::Known(KnownChange::Forgotten(node)) => format!("{} is forgotten", node.0[0]),
                    Body::Decided(_) => asked_by(&entry).map_or("an event".into(), |by| format!("command {}", by.uid)),
                };
                self.line(n, &format!("applies {}: {what}", entry.index));
            }
            Output::Replaced { next } => self.line(n, &format!("has another state, next is {next}")),
            Output::Reply { ticket, outcome } => {
                let what = match outcome {
                    Outcome::Done { index, held, of } => format!("done at {index}, held by {held} of {of}"),
                    Outcome::Refused(why) => format!("refused: {why:?}"),
                    Outcome::NotTaken(why) => why.to_string(),
                    Outcome::Unknown(why) => why.to_string(),
                };
                self.line(n, &format!("answers client {}: {what}", ticket.0));
            }
            Output::Transient { .. } => {}
            Output::Role(Role::Seeking) => self.line(n, "seeks a leader"),
            Output::Role(Role::Following(session)) => self.line(n, &format!("follows {}", short(session))),
            Output::Role(Role::Leading(session)) => self.line(n, &format!("leads {}", short(session))),
            Output::Refuse { peer, reject } => self.line(n, &format!("refuses {}: {reject:?}", peer.0[0])),
            Output::Notice(Notice::SetAside(name)) => self.line(n, &format!("sets aside {name}")),
            Output::Notice(notice) => {
                if let Notice::OtherFounding { peer, we_yield } = notice {
                    let yields = if we_yield { "yields" } else { "does not yield" };
                    self.line(n, &format!("meets another founding at {} and {yields}", peer.0[0]));
                } else {
                    self.line(n, &format!("notes {notice:?}"));
                }
            }
            Output::Left => self.line(n, "has left"),
            Output::Stop(stop) => {
                self.line(n, &format!("stops: {stop}"));
                self.nodes.remove(&n);
            }
        }
    }

    fn carry(&mut self, from: u8, to: u8, message: Message<Kv>) {
        if !self.links.contains(&(from, to)) {
            return;
        }
        let Some(what) = spoken(&message) else {
            self.inputs.push_back((to, Input::Message { from: id(from), message }));
            return;
        };
        let lost = self
            .loses
            .as_mut()
            .filter(|lost| (lost.from, lost.to) == (from, to) && lost.times > 0 && what.starts_with(lost.what));
        if let Some(lost) = lost {
            lost.times -= 1;
            self.line(from, &format!("to {to}: {what} (lost)"));
        } else {
            self.line(from, &format!("to {to}: {what}"));
            self.inputs.push_back((to, Input::Message { from: id(from), message }));
        }
    }

    fn work(&mut self, n: u8, work: Work<Kv>) -> Worked<Kv> {
        let party = self.nodes.get_mut(&n).expect("who works is here");
        if matches!(work, Work::Read { .. } | Work::Encode { .. } | Work::Decode { .. }) {
            return party.disk.read(work).expect("what is read is whole");
        }
        party.disk.ask(Default::default(), work);
        party.disk.do_next(party.boot).expect("the order of writes holds").1
    }

    fn line(&mut self, n: u8, what: &str) {
        // To the tenth of a second: some delays are drawn.
        self.lines.push(format!("{} ms, {n} {what}", self.time.0 / 100_000_000 * 100));
    }
}

fn short(session: Session) -> String {
    format!("{}@{}", session.clock, session.leader.0[0])
}

fn standing(standing: &Standing) -> String {
    let hears = standing.session.map_or(String::new(), |session| format!(", in {}", short(session)));
    format!("log before {}{hears}", standing.lineage.next())
}

/// A message in a few words; none for what is said all the time.
fn spoken(message: &Message<Kv>) -> Option<String> {
    Some(match message {
        Message::Beat(_) | Message::Probe { .. } | Message::Echo { .. } | Message::Transient(_) => return None,
        Message::Lead(lead) if lead.heard.is_empty() => {
            format!("lead {}, next {}, hearing nobody", short(lead.session), lead.next)
        }
        Message::Lead(lead) => format!("lead {}, next {}", short(lead.session), lead.next),
        Message::Hello { standing: s, purpose: Purpose::Ask { .. } } => format!("hello, {}, and you?", standing(s)),
        Message::Hello { standing: s, .. } => format!("hello, {}", standing(s)),
        Message::Reach { node, connected } => format!("reach {} {connected}", node.0[0]),
        Message::Entries(entries) => {
            let until = entries.first.plus(entries.records.len() as u64);
            format!("entries {}..{until}, {:?}", entries.first, entries.kind).to_lowercase()
        }
        Message::Stored { session, next, .. } => format!("stored before {next} of {}", short(*session)),
        Message::Done(done) => format!("done {} by {} of {}", done.index, done.held, done.of),
        Message::Nack(range) => format!("nack {}..{}", range.from, range.until),
        Message::Replay { from, .. } => format!("replay from {from}"),
        Message::Credit { .. } => "credit".into(),
        Message::LogBegins { first, .. } => format!("log begins at {first}"),
        Message::RequestSnapshot { next, .. } => format!("request snapshot, have all before {next}"),
        Message::Offer { offer: Offer::Snapshot(manifest), .. } => format!("offer snapshot before {}", manifest.next()),
        Message::Offer { offer, .. } => format!("offer {offer:?}"),
        Message::RequestChunk { chunk, .. } => format!("request chunk {chunk}"),
        Message::Chunk { chunk, bytes, .. } => {
            format!("chunk {chunk}{}", if bytes.is_some() { "" } else { ", not here" })
        }
        Message::Propose(propose) if propose.items.is_empty() => "propose a generation".into(),
        Message::Propose(propose) => format!("propose {}", propose.items.len()),
        Message::Refused { items, .. } => format!("refused {}", items.len()),
        Message::HandOver { session, next } => format!("hand over {} before {next}", short(*session)),
        Message::Reject { reject, .. } => format!("reject {reject:?}"),
    })
}

fn worked(work: &Work<Kv>) -> String {
    match work {
        Work::Keep(kept) => format!("keeps clock {}", kept.clock),
        Work::Append { first, records } => format!("writes {first}..{}", first.plus(records.len() as u64)),
        Work::Rewind { to, winner } => format!("cuts its log before {to} for {}", short(*winner)),
        Work::Install(snapshot) => format!("installs the snapshot before {}", snapshot.manifest.next()),
        Work::Save(snapshot) => format!("saves the snapshot before {}", snapshot.manifest.next()),
        Work::Trim { log_below, .. } => format!("trims its log below {log_below}"),
        Work::Read { from, until, .. } => format!("reads {from}..{until}"),
        Work::Encode { capture, .. } => format!("encodes the state before {}", capture.next()),
        Work::Decode { snapshot, .. } => format!("decodes the snapshot before {}", snapshot.manifest.next()),
    }
}
