//! What a seed's plan is.

use std::collections::BTreeMap;

use lockstep_inference::gateway::GatewayConfig;
use lockstep_inference::worker::WorkerConfig;
use lockstep_replication::{Config, Span};

use super::plan::{Fault, Instance, Joiner, Load, Model, Plan, Timed, Weather, Who, WorldName};
use crate::dice::{Dice, Roll, Site};

/// Parts of a plan that are drawn apart, so that a change of one leaves the others as they were.
const CLUSTER: u64 = 101;
const WORK: u64 = 102;
const TROUBLE: u64 = 103;

/// When faults and clients stop.
const QUIET_FROM: u64 = 60;

impl Plan {
    /// The plan of a seed.
    pub fn drawn(seed: u64) -> Plan {
        let dice = Dice::new(seed);
        let mut roll = dice.roll(Site::Plan, CLUSTER, 0);
        let nodes = roll.between(1, 5) as u16;
        let joiners = (0..roll.below(3)).map(|_| Joiner { starts: Span::seconds(roll.between(5, 50)) }).collect();
        let config = Config {
            evict_after: Span::seconds(roll.between(5, 40)),
            snapshot_every: roll.one_of(&[0, 20, 50, 200]),
            keep_behind: roll.between(0, 50),
            ..Config::default()
        };
        let worker = WorkerConfig {
            starts: roll.one_of(&[3, 5, 8]),
            longest_wait: Span::seconds(5),
            hello: Span::seconds(10),
            connect: Span::seconds(10),
            warm_up: Span::seconds(20),
            silence: Span::seconds(10),
            grace: Span::seconds(2),
            pieces_alone: 20,
            ..WorkerConfig::default()
        };
        let gateway = GatewayConfig {
            untaken_bytes: 70 * roll.between(250, 400) as usize,
            patience: Span::seconds(120),
            part_bytes: roll.one_of(&[1 << 10, 32 << 10]),
            ..GatewayConfig::default()
        };
        let rains = roll.chance(1, 2);
        let mut chance = |most| if rains { roll.below(most) } else { 0 };
        let weather = Weather {
            loss: chance(50),
            gossip_loss: chance(100),
            duplicates: chance(50),
            slow: chance(30),
            reorders: rains,
            ..Weather::default()
        };
        let mut plan = Plan {
            world: WorldName::Inference,
            title: format!("Seed {seed} of inference clusters"),
            why: "Drawn.".to_owned(),
            report: None,
            seed,
            nodes,
            quiet_from: Span::seconds(QUIET_FROM),
            joiners,
            config,
            worker,
            gateway,
            weather,
            models: Vec::new(),
            instances: Vec::new(),
            loads: Vec::new(),
            faults: Vec::new(),
            expect: BTreeMap::new(),
        };
        draw_work(&mut plan, &mut dice.roll(Site::Plan, WORK, 0));
        draw_trouble(&mut plan, &mut dice.roll(Site::Plan, TROUBLE, 0));
        plan
    }
}

fn draw_work(plan: &mut Plan, roll: &mut Roll) {
    for n in 0..roll.between(1, 3) {
        plan.models.push(Model {
            name: format!("m{n}"),
            custom: roll.chance(1, 2),
            loads: Span::millis(roll.between(100, 8_000)),
            token_every: Span::millis(roll.between(2, 100)),
            at_once: roll.between(1, 8) as u32,
            dies_after: roll.chance(1, 12).then(|| Span::millis(roll.between(100, 10_000))),
            dies_loading: roll.chance(1, 20),
        });
    }
    let machines = plan.machines() as u16;
    for _ in 0..roll.between(1, 4) {
        let ranks = if roll.chance(1, 6) { 0 } else { roll.between(1, 3.min(u64::from(machines))) as u16 };
        let first = roll.below(u64::from(machines)) as u16;
        let nodes = (0..ranks).map(|rank| (first + rank) % machines + 1).collect();
        let model = plan.models[roll.below(plan.models.len() as u64) as usize].name.clone();
        plan.instances.push(Instance { at: Span::millis(roll.between(1_000, 20_000)), model, nodes });
    }
    for n in 0..roll.between(1, 3) {
        let model = plan.models[roll.below(plan.models.len() as u64) as usize].name.clone();
        plan.loads.push(Load {
            from: Span::seconds(2 + n),
            until: Span::seconds(QUIET_FROM),
            every: Span::millis(roll.between(100, 2_000)),
            nodes: Vec::new(),
            model,
            tokens: roll.one_of(&[20, 200, 600]),
            request_bytes: roll.one_of(&[500, 20_000, 100_000]),
            slow: roll.one_of(&[0, 0, 100]),
            hang_up: roll.one_of(&[0, 100, 300]),
        });
    }
}

fn draw_trouble(plan: &mut Plan, roll: &mut Roll) {
    let machines = plan.machines() as u64;
    for _ in 0..roll.one_of(&[0, 2, 5, 12]) {
        let at = Span::millis(roll.between(3_000, QUIET_FROM * 1_000 - 2_000));
        let node = roll.between(1, machines) as u16;
        let custom = format!("c{}", roll.below(3));
        let fault = match roll.below(14) {
            0 => Fault::Crash { node: Who::LEADER, down: Span::millis(roll.between(100, 10_000)) },
            1 => Fault::Crash { node: Who::Node(node), down: Span::millis(roll.between(100, 60_000)) },
            2 => Fault::Crash { node: Who::FOLLOWER, down: Span::millis(roll.between(100, 3_000)) },
            3 | 4 => {
                let inside = (1..=machines as u16).filter(|_| roll.chance(1, 2)).collect();
                Fault::Partition { nodes: inside, lasts: Span::millis(roll.between(500, 20_000)) }
            }
            5 | 6 => Fault::KillRunners { node },
            7 => Fault::HangRunners { node },
            8 => Fault::GarbageOfRunners { node },
            9 => Fault::DeleteInstance { instance: roll.below(plan.instances.len() as u64) as u16 },
            10 => Fault::AddCard { model: custom },
            12 => Fault::DiskFails { node },
            13 => Fault::DiskSlow { node, lasts: Span::millis(roll.between(500, 20_000)) },
            _ => Fault::DeleteCard { model: custom },
        };
        plan.faults.push(Timed { at, fault });
    }
    plan.faults.sort_by_key(|fault| fault.at);
}
