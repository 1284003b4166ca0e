//! A run as data: how many nodes, what the world is like, what goes wrong when, what clients ask for.

use lockstep_replication::rng::{Rng, Seed};
use lockstep_replication::{Config, NodeId, Span};

use super::faults::Fault;
use super::net::Weather;
use super::{MICROS, MILLIS, SECONDS, between, one_of};

/// Everything that a run is made of. The same plan gives the same run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<NodeId>,
    /// When each node is started first.
    pub(crate) starts: Vec<(NodeId, u64)>,
    pub(crate) config: Config,
    pub(crate) weather: Weather,
    pub(crate) timing: Timing,
    pub(crate) workload: Load,
    /// By time.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When faults and commands stop.
    pub(crate) quiet_from: u64,
}

/// How exact the machines are.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// How long a write takes, up to twice as long.
    pub(crate) disk: u64,
    /// Wake-ups come late by up to so much.
    pub(crate) late: u64,
    /// Monotonic clocks run faster than the world by up to so many millionths.
    pub(crate) drift: u64,
    /// How long a dial takes at most.
    pub(crate) dial: u64,
    /// How long a broken connection goes unnoticed at most.
    pub(crate) notice: u64,
}

/// What clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Commands come in such intervals, up to twice as long.
    pub(crate) every: u64,
    /// How many come at once.
    pub(crate) burst: u64,
    /// How many in a hundred carry a name and are tried again.
    pub(crate) named: u64,
    /// The longest value.
    pub(crate) value_bytes: u64,
}

impl Plan {
    /// A world without faults.
    pub(crate) fn calm(seed: u64, nodes: u8) -> Plan {
        let nodes: Vec<NodeId> = (1..=nodes).map(NodeId::example).collect();
        Plan {
            seed,
            starts: nodes.iter().map(|node| (*node, 0)).collect(),
            config: Config { founders: nodes.len(), ..Config::default() },
            nodes,
            weather: Weather::calm(),
            timing: Timing { disk: 200 * MICROS, late: 0, drift: 0, dial: 5 * MILLIS, notice: 5 * MILLIS },
            workload: Load { every: 100 * MILLIS, burst: 1, named: 50, value_bytes: 40 },
            faults: Vec::new(),
            quiet_from: 5 * SECONDS,
        }
    }

    /// What this seed stands for: which families of faults there are, how strong, among how many nodes.
    pub(crate) fn drawn(seed: u64) -> Plan {
        let from = Seed::from_number(seed);
        let mut rng = from.fork("size").rng();
        let mut plan = Plan::calm(seed, one_of(&mut rng, &[1, 2, 2, 3, 3, 3, 4, 5, 5]));
        plan.quiet_from = between(&mut rng, 4, 16) * SECONDS;
        plan.config = config(&mut from.fork("config").rng(), plan.nodes.len());
        plan.weather = weather(&mut from.fork("weather").rng());
        plan.timing = timing(&mut from.fork("timing").rng());
        let mut rng = from.fork("load").rng();
        plan.workload = Load {
            every: one_of(&mut rng, &[5, 20, 100, 500]) * MILLIS,
            burst: one_of(&mut rng, &[1, 1, 1, 3, 20]),
            named: one_of(&mut rng, &[0, 50, 100]),
            value_bytes: one_of(&mut rng, &[8, 40, 40, 400]),
        };
        let mut rng = from.fork("starts").rng();
        for start in &mut plan.starts {
            let latest = one_of(&mut rng, &[0, 10, 1000, 3000]) * MILLIS;
            start.1 = rng.below(latest + 1);
        }
        plan.faults = faults(&mut from.fork("faults").rng(), &plan);
        plan
    }

    pub(crate) fn loses_data(&self) -> bool {
        self.faults.iter().any(|(_, fault)| fault.loses_data())
    }
}

fn config(rng: &mut Rng, nodes: usize) -> Config {
    let mut config = Config {
        // All expect each other, or some may found alone and meet the others' founding later.
        founders: one_of(rng, &[nodes, nodes, nodes, nodes, nodes / 2 + 1, 1]),
        reply_within: Span::seconds(one_of(rng, &[3, 10])),
        ..Config::default()
    };
    if rng.chance(1, 2) {
        config.batch_entries = one_of(rng, &[1, 2, 64]);
        config.buffer_entries = one_of(rng, &[2, 8, 100]);
    }
    if rng.chance(1, 2) {
        config.tail_bytes = one_of(rng, &[0, 200, 2000]);
        config.repair_entries = one_of(rng, &[1, 5, 50]);
    }
    if rng.chance(1, 3) {
        config.outbox_entries = one_of(rng, &[1, 4, 50]);
    }
    // As with the default values: a leader has room for what one node may send.
    config.outbox_entries = config.outbox_entries.min(config.buffer_entries);
    if rng.chance(1, 4) {
        config.entry_bytes = 300;
    }
    match rng.below(4) {
        0 => {}
        1 => config.snapshot_every = 0,
        _ => {
            config.snapshot_every = one_of(rng, &[8, 32, 100]);
            config.snapshot_at_least = Span::millis(one_of(rng, &[1, 100, 1000]));
            config.keep_behind = one_of(rng, &[0, 5, 50]);
        }
    }
    // A node that may not fetch can only follow where the whole log is kept.
    if config.snapshot_every == 0 && rng.chance(1, 2) {
        config.fetch_snapshots = false;
    }
    if rng.chance(1, 2) {
        config.chunk_bytes = one_of(rng, &[500, 5_000]);
        config.chunks_in_flight = one_of(rng, &[1, 2, 4]);
    }
    config
}

fn weather(rng: &mut Rng) -> Weather {
    let mut weather = Weather::calm();
    weather.delay = one_of(rng, &[50, 500, 5_000, 20_000]) * MICROS;
    weather.jitter = weather.delay * one_of(rng, &[0, 1, 4]);
    weather.slow = one_of(rng, &[0, 0, 10]);
    weather.gossip_loss = one_of(rng, &[0, 50, 200]);
    weather.loss = one_of(rng, &[0, 0, 10, 100]);
    weather.duplicates = one_of(rng, &[0, 50, 300]);
    weather.reorders = rng.chance(1, 3);
    weather.bytes_per_milli = one_of(rng, &[1_000, 10_000, 100_000]);
    weather
}

fn timing(rng: &mut Rng) -> Timing {
    Timing {
        disk: one_of(rng, &[1, 200, 2_000, 20_000]) * MICROS,
        late: one_of(rng, &[0, 0, 1, 50]) * MILLIS,
        drift: one_of(rng, &[0, 100, 10_000]),
        dial: one_of(rng, &[1, 50, 500]) * MILLIS,
        notice: one_of(rng, &[1, 100, 3_000]) * MILLIS,
    }
}

/// The families of faults; each is absent in half of the runs.
fn faults(rng: &mut Rng, plan: &Plan) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let families = rng.number();
    let mut lost = 0;
    for family in 0..14 {
        if families >> family & 1 == 0 {
            continue;
        }
        for _ in 0..between(rng, 1, 3) {
            let at = between(rng, 0, plan.quiet_from);
            let fault = fault(rng, family, &plan.nodes);
            // Where most nodes lost what they stored, nothing can be promised: one of three, two of five may.
            lost += usize::from(fault.loses_data());
            if !fault.loses_data() || lost * 2 < plan.nodes.len() {
                faults.push((at, fault));
            }
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(rng: &mut Rng, family: u32, nodes: &[NodeId]) -> Fault {
    let node = one_of(rng, nodes);
    let other = one_of(rng, nodes);
    let lasts = one_of(rng, &[50, 500, 3_000, 8_000]) * MILLIS;
    let noticed = rng.chance(1, 2);
    match family {
        0 => Fault::Crash { node, down: lasts },
        1 => Fault::Pause { node, lasts: one_of(rng, &[100, 1_000, 4_000, 6_000]) * MILLIS },
        2 => {
            let side = nodes.iter().copied().filter(|_| rng.chance(1, 2)).collect();
            Fault::Partition { side, lasts, noticed }
        }
        3 => Fault::OneWay { from: node, to: other, lasts, noticed },
        4 => Fault::Cut { a: node, b: other },
        5 => Fault::WallStep { node, millis: one_of(rng, &[-3_600_000, -50, 50, 3_600_000]) },
        6 => Fault::SlowDisk { node, each: one_of(rng, &[50, 500, 2_500]) * MILLIS, lasts },
        7 => Fault::FailingDisk { node },
        8 => Fault::FailingRead { node },
        9 => Fault::LostTail { node, entries: one_of(rng, &[1, 5, 100]), down: lasts },
        10 => Fault::LostDisk { node, down: lasts },
        11 => Fault::Leave { node, down: lasts },
        12 => Fault::HandOver { node },
        _ => Fault::Busy { node, lasts },
    }
}
