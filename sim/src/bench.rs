//! How fast the simulator is: the loads whose figures are kept. All checks are on.

use std::sync::Arc;

use lockstep_replication::{Config, Span};

use crate::checks::Broken;
use crate::plan::{Load, Timing};
use crate::plan::{MICROS, MILLIS, MachinePlan, Plan, SECONDS};
use crate::trace::Detail;
use crate::world::World;

/// What came of a load, measured by the caller's clock of processor time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// How many inputs nodes took in.
    pub steps: u64,
    /// How long it was, in the world's time, in seconds.
    pub virtual_s: f64,
    /// The processor time.
    pub cpu_s: f64,
}

/// Inputs of a dense load.
const DENSE_STEPS: u64 = 1_000_000;

/// Entries that joiners have to catch up with.
pub const ENTRIES: u64 = 100_000;

/// Joiners that start at the same time.
const JOINERS: u16 = 3;

/// So many nodes that are as busy as they can be: 64-byte commands at all of them, until a million inputs are taken in.
pub fn dense(nodes: u16, clock: impl Fn() -> f64) -> Result<Measured, Broken> {
    let mut world = world(nodes, vec![Load { every: Span(500 * MICROS), ..commands(1, u64::from(u32::MAX), 64) }]);
    let began = clock();
    while world.trace.steps() < DENSE_STEPS {
        world.run_until(world.time + 10 * MILLIS)?;
    }
    Ok(measured(&world, clock() - began))
}

/// So many nodes that have nothing to do, for an hour.
pub fn sparse(nodes: u16, clock: impl Fn() -> f64) -> Result<Measured, Broken> {
    let mut world = world(nodes, Vec::new());
    let began = clock();
    world.run_until(3600 * SECONDS)?;
    Ok(measured(&world, clock() - began))
}

/// Three nodes with a hundred thousand entries, and three that join them: measured from the joiners' start until they have
/// all of it.
pub fn catch_up(by_snapshot: bool, clock: impl Fn() -> f64) -> Result<Measured, Broken> {
    // Some are refused: there is nothing to delete or to move.
    let mut plan = plan(3, vec![commands(200, ENTRIES * 9 / 8, 64)]);
    if !by_snapshot {
        plan.config = Config { snapshot_every: 0, fetch_snapshots: false, ..plan.config };
    }
    let starts = Span::seconds(100);
    plan.machines.extend((4..4 + JOINERS).map(|number| MachinePlan { starts, ..MachinePlan::new(number) }));
    let mut world = World::new(Arc::new(plan), Detail::Hashed);
    world.run_until(starts.0 - 1)?;
    let (steps, began) = (world.trace.steps(), clock());
    let lacks = |world: &World| {
        let next = |at: usize| world.machines[at].node().map(|node| node.next());
        (3..world.machines.len()).any(|at| next(at).is_none_or(|next| next.0 < ENTRIES) || next(at) < next(0))
    };
    while lacks(&world) {
        world.run_until(world.time + MILLIS)?;
        if world.time > starts.0 + 60 * SECONDS {
            let nodes = crate::checks::agreement::reasons(&world.views());
            return Err(Broken::new("bench", format!("the joiners do not catch up within a minute\n{nodes}")));
        }
    }
    let all = measured(&world, clock() - began);
    Ok(Measured { steps: all.steps - steps, virtual_s: all.virtual_s - starts.0 as f64 / 1e9, ..all })
}

fn measured(world: &World, cpu_s: f64) -> Measured {
    Measured { steps: world.trace.steps(), virtual_s: world.time as f64 / 1e9, cpu_s }
}

fn world(nodes: u16, loads: Vec<Load>) -> World {
    World::new(Arc::new(plan(nodes, loads)), Detail::Hashed)
}

fn plan(nodes: u16, loads: Vec<Load>) -> Plan {
    Plan { quiet_from: Span(u64::MAX), timing: Timing::default(), loads, ..Plan::calm(1, nodes) }
}

fn commands(burst: u64, commands: u64, bytes: u64) -> Load {
    Load {
        from: Span::seconds(2),
        every: Span::millis(5),
        burst,
        commands,
        named: 0,
        keys: 1000,
        value_bytes_min: bytes,
        value_bytes: bytes,
        notices_every: Span::ZERO,
        ..Load::default()
    }
}
