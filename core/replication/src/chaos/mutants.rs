//! The kept list of deliberate faults: what each breaks, and which law must notice. None of them may live.

use std::fmt;

macro_rules! mutants {
    ($($name:ident: $law:literal, $broken:literal;)+) => {
        /// A fault to plant in the core.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $broken] $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// What is broken, as a sentence.
            pub fn broken(self) -> &'static str {
                match self {
                    $(Mutant::$name => $broken,)+
                }
            }

            /// The law that it breaks.
            pub fn law(self) -> &'static str {
                match self {
                    $(Mutant::$name => $law,)+
                }
            }
        }
    };
}

mutants! {
    // Catching up and gaps.
    LostChunkRestartsAll: "L13",
        "A lost chunk is not asked for again: the transfer runs out of patience, and the log is replayed.";
    LastEntryLost: "L13",
        "A hole is seen only before an entry that came: a lost last one is not missed.";
    HeadNotHeard: "L13",
        "The leader's beat does not tell its followers how far the log goes.";
    ForeignSnapshot: "L6",
        "A snapshot of another branch than the leader's is taken.";
    FastForwardTooFar: "L13",
        "The ordered buffer moves on one entry too far.";
    UnboundedBuffer: "L10",
        "The ordered buffer takes whatever comes.";
    RepairsEverything: "L10",
        "A NACK is answered with all of the log from there on, in one message.";
    NackWithoutSpread: "L10",
        "All who miss an entry ask for it at once, and again at once.";
    RetryInThePast: "L3",
        "The next NACK is due when the last one is sent.";
    ReplayWithoutWindow: "L10",
        "A replay is sent without waiting for credit.";
    OriginFromPayload: "L6",
        "Entries are taken from anybody, if they name the session's leader.";
    LastContentWins: "L6",
        "Of two contents for one index the last that came is kept.";
    OldSessionTaken: "L6",
        "Entries of an older session are taken.";

    // Electing.
    PositionIgnored: "L12",
        "An election looks at seniority and id, not at who holds what.";
    EmptyAfterFailover: "L6",
        "A new leader begins with an empty state.";
    SessionWithoutBoot: "L7",
        "A session does not carry its leader's start.";
    ClockForgotten: "L7",
        "A node does not remember across a restart which clocks it used or confirmed.";
    FollowsAnyLeader: "L6",
        "A node follows a leader whose log lacks what it holds.";
    ConfirmsBeforeSynced: "L12",
        "A node says that it confirmed a session before that is on its disk.";
    ConfirmsTwiceAClock: "L12",
        "A node confirms two sessions of one clock.";
    EqualClockUnheard: "L13",
        "A leader does not open a newer session for a node that confirmed another one of the same clock.";
    MarkAtHalf: "L12",
        "A session is backed when half of the known nodes confirmed it.";
    DamagedConfirms: "L12",
        "A node that lost synced entries confirms, and counts.";
    WipedDiskCounts: "L12",
        "A node whose disk was lost counts as if it still held what it stored.";
    HealsWithoutLeader: "L12",
        "A damaged node counts as whole without its leader's answer.";
    BackedAlone: "L12",
        "A session is backed when its leader alone confirmed it.";

    // Promises.
    DoneBeforeHeld: "L12",
        "An entry is done when it is ordered.";
    DoneBeforeMark: "L12",
        "Entries of earlier sessions are counted before the session's own mark.";
    StoredBeforeSynced: "L12",
        "A node says that it stored what it applied.";
    OldSessionStored: "L12",
        "What a node stored under an older session is counted.";
    KnownTwoAtATime: "L12",
        "The known nodes change again before the last change is done.";
    LeadsOnAfterFailedAppend: "L12",
        "A leader takes an append that failed for synced.";
    UnannouncedAside: "L12",
        "A branch is set aside without a word.";
    TailOverwritten: "L12",
        "A node that yields takes the winner's snapshot over its own log, and sets nothing aside.";

    // Clients and proposals.
    ProposalTwice: "L11",
        "The leader orders a proposal again that comes again.";
    GenerationNotRaised: "L11",
        "A node that was started again goes on in a generation that is not above its last.";
    NamedTwice: "L11",
        "A command is done again under the same name.";
    RepliesTwice: "L9",
        "A client that was told that nobody knows is told again when its command is done.";
    ReplyLost: "L9",
        "A client whose command a snapshot skipped is told nothing.";
    UnboundedOutbox: "L10",
        "A node takes more commands than it may hold.";
    StampGoesBack: "L8",
        "Entries are stamped by the leader's own clock, though it is behind.";

    // Liveness.
    NeverLost: "L13",
        "A silent node is never counted as lost.";
    LostTooSoon: "L13",
        "A node is counted as lost after 2 s of silence.";
    LostUnderDoubt: "L4",
        "A leader that was asleep itself counts the others as lost.";
    BeatsThoughStalled: "L13",
        "A leader whose disk stands still goes on beating.";
}

impl Mutant {
    /// Its name for people and files: words with hyphens.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
