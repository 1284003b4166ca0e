//! The swarm: what a seed stands for. It draws which families of faults there are, how strong, among how many nodes, with
//! which limits, timings and commands.

use lockstep_replication::{Config, Span};

use crate::dice::{Dice, Roll, Site};
use crate::plan::{Fault, Kind, Load, MICROS, Mischief, Plan, SECONDS, Timed, Timing, Weather, Who};

/// A seed's faults and commands stop after so many events: to agree again takes less than as many once more.
const QUIET_AFTER_EVENTS: u64 = 24_000;

/// A swarm seed with more events than this has failed.
const EVENTS_AT_MOST: u64 = 60_000;

/// The families of faults.
const FAMILIES: u64 = 32;

/// What a draw is for; each its own key.
enum For {
    Size,
    Config,
    Weather,
    Timing,
    Load,
    Starts,
    Families,
    Fault(u64),
    Transfers,
    LateHandOver,
}

impl Plan {
    /// The plan of a swarm seed.
    pub fn drawn(seed: u64) -> Plan {
        let dice = Dice::new(seed);
        let roll = |what: For| match what {
            For::Size => dice.roll(Site::Plan, 0, 0),
            For::Config => dice.roll(Site::Plan, 1, 0),
            For::Weather => dice.roll(Site::Plan, 2, 0),
            For::Timing => dice.roll(Site::Plan, 3, 0),
            For::Load => dice.roll(Site::Plan, 4, 0),
            For::Starts => dice.roll(Site::Plan, 5, 0),
            For::Families => dice.roll(Site::Plan, 6, 0),
            For::Fault(family) => dice.roll(Site::Plan, 7, family),
            For::Transfers => dice.roll(Site::Plan, 8, 0),
            For::LateHandOver => dice.roll(Site::Plan, 9, 0),
        };
        let mut size = roll(For::Size);
        let mut plan = Plan::calm(seed, size.one_of(&[1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7]));
        plan.quiet_from = Span(size.between(4, 16) * SECONDS);
        plan.quiet_after_events = QUIET_AFTER_EVENTS;
        plan.events_at_most = EVENTS_AT_MOST;
        plan.on_the_wire = size.chance(1, 4);
        plan.moods = size.chance(1, 2);
        plan.config = config(&mut roll(For::Config), plan.machines.len());
        transfers(&mut roll(For::Transfers), &mut plan.config);
        plan.weather = weather(&mut roll(For::Weather));
        plan.timing = timing(&mut roll(For::Timing));
        plan.loads = vec![load(&mut roll(For::Load))];
        let mut starts = roll(For::Starts);
        // Some clusters are old as a whole, some in part; they are upgraded at once, one by one, or not at all.
        let old = starts.one_of(&[0, 0, 0, 0, 0, 0, 2, 4]);
        for machine in &mut plan.machines {
            let latest = starts.one_of(&[0, 10, 1000, 3000]);
            machine.starts = Span::millis(starts.below(latest + 1));
            machine.schema -= u32::from(starts.chance(old, 4));
        }
        let families = roll(For::Families).number();
        for family in (0..FAMILIES).filter(|family| families >> family & 1 == 1) {
            let mut roll = roll(For::Fault(family));
            for _ in 0..roll.between(1, 3) {
                let at = Span(roll.below(plan.quiet_from.0 + 1));
                plan.faults.push(Timed { at, fault: fault(&mut roll, family, plan.machines.len() as u16) });
            }
        }
        let mut late = roll(For::LateHandOver);
        if late.chance(1, 16) {
            late_hand_over(&mut late, &mut plan);
        }
        plan.faults.sort_by_key(|timed| timed.at);
        plan
    }
}

/// A hand-over comes after the leader has given it up, and when all are about to leave, but wait for their slow disks. Single
/// faults never meet so closely.
fn late_hand_over(roll: &mut Roll, plan: &mut Plan) {
    let later = Span::seconds(4);
    let at = Span(roll.below(plan.quiet_from.0.saturating_sub(later.0) + 1));
    let node = Who::EVERYBODY;
    let (kinds, from, to) = (vec![Kind::HandOver], node, node);
    let (lasts, what) = (Span::seconds(1), Mischief::Delay(later));
    let leaves = at + later - Span::millis(roll.below(250));
    plan.faults.extend([
        Timed { at, fault: Fault::Messages { kinds, from, to, skip: 0, count: None, share: 1000, lasts, what } },
        Timed { at, fault: Fault::HandOver { node: Who::LEADER } },
        Timed { at: at + Span::seconds(3), fault: Fault::SlowDisk { node, each: Span::millis(500), lasts: later } },
        Timed { at: leaves, fault: Fault::Leave { node, down: Span::millis(500) } },
    ]);
}

fn config(roll: &mut Roll, nodes: usize) -> Config {
    let mut config = Config {
        // All expect each other, or some may found alone and meet the others' founding later.
        founders: roll.one_of(&[nodes, nodes, nodes, nodes, nodes / 2 + 1, 1]),
        reply_within: Span::seconds(roll.one_of(&[3, 10])),
        ..Config::default()
    };
    if roll.chance(1, 2) {
        config.batch_entries = roll.one_of(&[1, 2, 64]);
        config.buffer_entries = roll.one_of(&[2, 8, 100]);
    }
    if roll.chance(1, 2) {
        config.tail_bytes = roll.one_of(&[0, 200, 2000]);
        config.repair_entries = roll.one_of(&[1, 5, 50]);
    }
    if roll.chance(1, 3) {
        config.outbox_entries = roll.one_of(&[1, 4, 50]);
    }
    // As with the default values: a leader has room for what one node may send.
    config.outbox_entries = config.outbox_entries.min(config.buffer_entries);
    if roll.chance(1, 4) {
        // What a founding needs, and little more.
        config.entry_bytes = 200 + 50 * nodes;
    }
    match roll.below(4) {
        0 => {}
        1 => config.snapshot_every = 0,
        _ => {
            config.snapshot_every = roll.one_of(&[8, 32, 100]);
            config.snapshot_at_least = Span::millis(roll.one_of(&[1, 100, 1000]));
            config.keep_behind = roll.one_of(&[0, 5, 50]);
        }
    }
    // A node that may not fetch can only follow where the whole log is kept.
    if config.snapshot_every == 0 && roll.chance(1, 2) {
        config.fetch_snapshots = false;
    }
    if roll.chance(1, 2) {
        config.chunk_bytes = roll.one_of(&[500, 5_000]);
        config.chunks_in_flight = roll.one_of(&[1, 2, 4]);
    }
    config
}

/// How much of a log or of a snapshot is on its way at once, and how long it may take.
fn transfers(roll: &mut Roll, config: &mut Config) {
    if roll.chance(1, 4) {
        config.replay_window = roll.one_of(&[2_000, 20_000]);
        config.batch_bytes = roll.one_of(&[1_000, 10_000]);
    }
    if roll.chance(1, 4) {
        config.transfer_patience = Span::millis(roll.one_of(&[300, 3_000]));
        config.chunk_within = Span::millis(roll.one_of(&[200, 2_000]));
    }
}

fn weather(roll: &mut Roll) -> Weather {
    let delay = Span(roll.one_of(&[50, 500, 5_000, 20_000]) * MICROS);
    Weather {
        delay,
        jitter: delay.times(roll.one_of(&[0, 1, 4])),
        slow: roll.one_of(&[0, 0, 10]),
        gossip_loss: roll.one_of(&[0, 50, 200]),
        loss: roll.one_of(&[0, 0, 10, 100]),
        duplicates: roll.one_of(&[0, 50, 300]),
        reorders: roll.chance(1, 3),
        bytes_per_milli: roll.one_of(&[1_000, 10_000, 100_000]),
        queue_bytes: roll.one_of(&[200_000, 64 << 20]),
    }
}

fn timing(roll: &mut Roll) -> Timing {
    Timing {
        disk: Span(roll.one_of(&[1, 200, 2_000, 20_000]) * MICROS),
        disk_bytes_per_milli: roll.one_of(&[10_000, 500_000]),
        snapshot_bytes_per_milli: roll.one_of(&[5_000, 200_000]),
        step: Span(roll.one_of(&[0, 0, 0, 20]) * MICROS),
        late: Span::millis(roll.one_of(&[0, 0, 1, 50])),
        spurious_one_in: roll.one_of(&[0, 16, 64]),
        drift: roll.one_of(&[0, 100, 10_000]),
        dial: Span::millis(roll.one_of(&[1, 50, 500])),
        notice: Span::millis(roll.one_of(&[1, 100, 3_000])),
    }
}

fn load(roll: &mut Roll) -> Load {
    Load {
        every: Span::millis(roll.one_of(&[5, 20, 100, 500])),
        burst: roll.one_of(&[1, 1, 1, 3, 20]),
        named: roll.one_of(&[0, 50, 100]),
        value_bytes: roll.one_of(&[8, 40, 40, 400]),
        keys: roll.one_of(&[3, 12, 12, 500]),
        notices_every: Span::millis(roll.one_of(&[0, 200, 1_000])),
        ..Load::default()
    }
}

fn fault(roll: &mut Roll, family: u64, nodes: u16) -> Fault {
    let mut number = || 1 + roll.below(u64::from(nodes)) as u16;
    let (node, other) = (number(), number());
    // Faults that strike whoever leads are worth more than their share.
    let node = roll.one_of(&[Who::Node(node), Who::Node(node), Who::LEADER]);
    let other = Who::Node(other);
    let lasts = Span::millis(roll.one_of(&[50, 500, 3_000, 8_000]));
    let down = lasts;
    let noticed = roll.chance(1, 2);
    let side = |roll: &mut Roll| (1..=nodes).filter(|_| roll.chance(1, 2)).collect::<Vec<u16>>();
    match family {
        0 | 1 => Fault::Crash { node, down },
        2 => Fault::Pause { node, lasts: Span::millis(roll.one_of(&[100, 1_000, 4_000, 6_000])) },
        3 | 4 => Fault::Partition { side: side(roll), lasts, noticed },
        5 => Fault::OneWay { from: node, to: other, lasts, noticed },
        6 => Fault::Cut { a: node, b: other },
        7 => Fault::WallStep { node, millis: roll.one_of(&[-3_600_000, -50, 50, 3_600_000]) },
        8 => Fault::SlowDisk { node, each: Span::millis(roll.one_of(&[50, 500, 2_500])), lasts },
        9 => Fault::FailingDisk { node },
        10 => Fault::FailingRead { node },
        11 => Fault::LostTail { node, entries: roll.one_of(&[1, 5, 100]), down },
        12 => Fault::LostDisk { node, down },
        13 => Fault::Leave { node, down },
        14 => Fault::HandOver { node },
        15 => Fault::Busy { node, lasts },
        16 => Fault::Slow { node, each: Span(roll.one_of(&[100, 2_000, 50_000]) * MICROS), lasts },
        17 => Fault::Flapping { side: side(roll), each: Span::millis(roll.one_of(&[30, 300, 1_500])), lasts, noticed },
        18 => Fault::Isolate { node, lasts, hears: roll.chance(1, 2), is_heard: roll.chance(1, 2), noticed },
        19 => Fault::WallDrift { node, millionths: roll.one_of(&[-500_000, -200, 200, 500_000]) },
        20 => Fault::StalledDisk { node, lasts },
        21 => Fault::FullDisk { node, lasts },
        22 => Fault::BitRot { node, entries: roll.one_of(&[0, 3, 50]), down },
        23 => {
            let who = roll.one_of(&[Who::EVERYBODY, node, node]);
            Fault::Upgrade { node: who, down: Span::millis(roll.one_of(&[10, 500])) }
        }
        24 => struck(roll, node, Mischief::Lose, lasts),
        25 => struck(roll, node, Mischief::Again(lasts), lasts),
        26 => {
            let kinds = vec![Kind::Chunk];
            let what = roll.one_of(&[Mischief::Corrupt, Mischief::Lose, Mischief::Double]);
            let (from, to) = (Who::EVERYBODY, Who::EVERYBODY);
            Fault::Messages { kinds, from, to, skip: roll.below(4), count: Some(3), share: 1000, lasts, what }
        }
        27 => Fault::Forget { by: Who::LEADER, node: other },
        // Seldom: it takes much of what is promised out of the checks' sight.
        28 if roll.chance(1, 8) => Fault::LeadAnyway { node },
        // All are stopped at the same time: who is to take over may be leaving too.
        29 => Fault::Leave { node: Who::EVERYBODY, down },
        30 => {
            // A clock beyond belief, that any boaster may name.
            let (kinds, what) = (vec![Kind::Hello], Mischief::Clock(1 << roll.between(33, 62)));
            let (from, to, count) = (node, Who::EVERYBODY, Some(roll.between(1, 20)));
            Fault::Messages { kinds, from, to, skip: roll.below(4), count, share: 1000, lasts, what }
        }
        _ => {
            let later = Span::millis(roll.one_of(&[5, 500, 4_000]));
            struck(roll, node, Mischief::Delay(later), lasts)
        }
    }
}

/// A fault that strikes a few kinds of messages of one node.
fn struck(roll: &mut Roll, from: Who, what: Mischief, lasts: Span) -> Fault {
    const KINDS: &[Kind] = &[
        Kind::Hello,
        Kind::Beat,
        Kind::Lead,
        Kind::Entries,
        Kind::Stored,
        Kind::Done,
        Kind::Nack,
        Kind::Offer,
        Kind::RequestSnapshot,
        Kind::RequestChunk,
        Kind::Propose,
        Kind::Refused,
        Kind::HandOver,
    ];
    let kinds = (0..roll.between(1, 3)).map(|_| roll.one_of(KINDS)).collect();
    let share = roll.one_of(&[200, 1000]);
    Fault::Messages { kinds, from, to: Who::EVERYBODY, skip: roll.below(10), count: None, share, lasts, what }
}
