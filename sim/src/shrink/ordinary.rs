//! What is odd is made ordinary, and what is left is made to read well: round times, no lists where a number does.

use lockstep_replication::{Config, Span};

use super::{Shrinking, size};
use crate::plan::{Load, MICROS, MILLIS, MachinePlan, Plan, SECONDS, Timing, Weather};
use crate::world::clients::load_of;

impl Shrinking<'_> {
    /// What need not be odd is made as it is by default: all at once, or one by one.
    pub(super) fn ordinary(&mut self) {
        self.try_change(|plan| plan.weather = Weather::default());
        self.try_change(|plan| plan.timing = Timing::default());
        let founders = self.plan.config.founders;
        self.try_change(|plan| plan.config = Config { founders, ..Config::default() });
        self.try_change(|plan| plan.config.founders = plan.machines.len());
        self.try_change(|plan| plan.moods = false);
        self.try_change(|plan| plan.on_the_wire = true);
        self.try_change(|plan| plan.quiet_after_events = u64::MAX);
        self.try_change(|plan| {
            for machine in &mut plan.machines {
                *machine = MachinePlan { twin_of: machine.twin_of, ..MachinePlan::new(machine.number) };
            }
        });
        self.try_change(|plan| plan.machines.iter_mut().for_each(|machine| machine.starts = Span::ZERO));
        for place in 0..self.plan.loads.len() {
            self.try_change(|plan| plan.loads[place] = ordinary(&plan.loads[place]));
        }
        let (weather, timing) = (Weather::default(), Timing::default());
        self.try_change(|plan| (plan.weather.loss, plan.weather.gossip_loss) = (0, 0));
        self.try_change(|plan| plan.weather.loss = 0);
        self.try_change(|plan| plan.weather.gossip_loss = 0);
        self.try_change(|plan| plan.weather.reorders = false);
        self.try_change(|plan| plan.weather.duplicates = 0);
        self.try_change(|plan| plan.weather.slow = 0);
        self.try_change(|plan| plan.weather.jitter = weather.jitter);
        self.try_change(|plan| plan.weather.delay = weather.delay);
        self.try_change(|plan| plan.weather.bytes_per_milli = weather.bytes_per_milli);
        self.try_change(|plan| plan.weather.queue_bytes = weather.queue_bytes);
        self.try_change(|plan| plan.timing.disk = timing.disk);
        self.try_change(|plan| plan.timing.disk_bytes_per_milli = timing.disk_bytes_per_milli);
        self.try_change(|plan| plan.timing.snapshot_bytes_per_milli = timing.snapshot_bytes_per_milli);
        self.try_change(|plan| plan.timing.step = timing.step);
        self.try_change(|plan| plan.timing.late = timing.late);
        self.try_change(|plan| plan.timing.spurious_one_in = timing.spurious_one_in);
        self.try_change(|plan| plan.timing.drift = timing.drift);
        self.try_change(|plan| plan.timing.dial = timing.dial);
        self.try_change(|plan| plan.timing.notice = timing.notice);
        self.ordinary_limits();
    }

    /// The core's limits, one by one, whatever they are called.
    fn ordinary_limits(&mut self) {
        let fields = |config: &Config| match serde_json::to_value(config) {
            Ok(serde_json::Value::Object(fields)) => fields,
            Ok(_) | Err(_) => serde_json::Map::new(),
        };
        for (name, usual) in fields(&Config::default()).into_iter().filter(|(name, _)| name != "founders") {
            let mut changed = fields(&self.plan.config);
            if changed.get(&name) != Some(&usual) {
                changed.insert(name, usual);
                if let Ok(config) = serde_json::from_value(serde_json::Value::Object(changed)) {
                    self.try_change(|plan| plan.config = config);
                }
            }
        }
    }

    /// Round times, and no list that says no more than a number does.
    pub(super) fn tidy(&mut self) {
        self.try_no_larger(|plan| plan.only.lost = None);
        if self.outcome.commands.is_empty() {
            self.try_change(|plan| (plan.loads, plan.only.commands) = (Vec::new(), None));
        }
        self.try_no_larger(first_commands);
        self.rounded(1, |plan| Some(&mut plan.quiet_from));
        for place in 0..self.plan.faults.len() {
            self.rounded(0, |plan| Some(&mut plan.faults.get_mut(place)?.at));
        }
        for place in 0..self.plan.machines.len() {
            self.rounded(0, |plan| Some(&mut plan.machines.get_mut(place)?.starts));
        }
        // A load that lasts as long as the phase need not say so.
        self.try_change(|plan| plan.loads.iter_mut().for_each(|load| load.until = Span(u64::MAX)));
    }

    /// Takes a change that makes the plan read better, but not one after which more happens.
    pub(super) fn try_no_larger(&mut self, change: impl FnOnce(&mut Plan)) {
        let before = (self.plan.clone(), self.outcome.clone());
        if self.try_change(change) && size(&self.plan, &self.outcome).total() > size(&before.0, &before.1).total() {
            (self.plan, self.outcome) = before;
        }
    }

    /// A time as round as it may be: up or down to a whole second, or a part of one.
    fn rounded(&mut self, least: u64, time: impl Fn(&mut Plan) -> Option<&mut Span>) {
        for unit in [SECONDS, 100 * MILLIS, 10 * MILLIS, MILLIS, 100 * MICROS, 10 * MICROS, MICROS] {
            let mut plan = self.plan.clone();
            let Some(exact) = time(&mut plan).map(|time| time.0) else { return };
            if exact % unit == 0 {
                return;
            }
            for round in [(exact / unit).max(least), exact / unit + 1] {
                if let Some(time) = time(&mut plan) {
                    *time = Span(round * unit);
                }
                plan.faults.sort_by_key(|timed| timed.at);
                if self.try_plan(plan.clone()) {
                    return;
                }
            }
        }
    }
}

/// The load with commands of the usual kinds and sizes.
fn ordinary(load: &Load) -> Load {
    let Load { number, from, until, every, burst, commands, notices_every, .. } = load.clone();
    Load { number, from, until, every, burst, commands, notices_every, ..Load::default() }
}

/// As many commands as there are, but the first ones of their loads: then their number is enough.
fn first_commands(plan: &mut Plan) {
    let Some(only) = plan.only.commands.take() else { return };
    for load in &mut plan.loads {
        load.commands = only.iter().filter(|uid| load_of(**uid) == load.number).count() as u64;
    }
}
