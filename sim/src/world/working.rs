//! What nodes ask of their disks and of those who encode and decode: it takes its time, and may fail.

use lockstep_replication::io::{Work, WorkFailed, Worked};
use lockstep_replication::{Input, WorkId};

use super::stepping::{word, worked_word};
use super::{Event, World};
use crate::checks::{Broken, Given};
use crate::dice::Site;
use crate::kv::Kv;
use crate::plan::MILLIS;
use crate::trace::Mixer;

impl World {
    pub(super) fn work(&mut self, at: usize, id: WorkId, work: Work<Kv>) -> Result<(), Broken> {
        self.trace.output(3, id.0 ^ asked_word(&work));
        let time = self.time;
        let machine = &mut self.machines[at];
        machine.device.asked += 1;
        let mut roll = self.dice.roll(Site::Work, u64::from(machine.number), machine.device.asked);
        let takes = roll.between(machine.device.each, machine.device.each * 2);
        let life = machine.life;
        match work {
            Work::Read { .. } => {
                let when = (time + takes).max(machine.device.stalled_until);
                self.push(when, Event::Read { at: at as u32, life, work: Box::new((id, work)) });
            }
            Work::Encode { .. } | Work::Decode { .. } => {
                // Nothing that happens meanwhile changes what comes of it.
                let result = machine.disk.code(work, machine.schema);
                let bytes = match &result {
                    Ok(Worked::Encoded(snapshot)) => snapshot.manifest.raw_bytes,
                    Ok(Worked::Decoded(replica)) => replica.state().map.len() as u64 * 64,
                    Ok(Worked::Stored | Worked::Read { .. } | Worked::Rewound(..)) | Err(_) => 0,
                };
                let takes = takes + bytes * MILLIS / self.plan.timing.snapshot_bytes_per_milli.max(1);
                self.push(time + takes, Event::Worked { at: at as u32, life, done: Box::new((id, result)) });
            }
            Work::Keep(_)
            | Work::Append { .. }
            | Work::Rewind { .. }
            | Work::Install(_)
            | Work::Save(_)
            | Work::Trim { .. } => {
                let takes = takes + bytes_of(&work) * MILLIS / self.plan.timing.disk_bytes_per_milli.max(1);
                machine.disk.ask(id, work);
                let device = &mut machine.device;
                device.busy_until = device.busy_until.max(time).max(device.stalled_until) + takes;
                let when = device.busy_until;
                self.push(when, Event::Written { at: at as u32, life });
            }
        }
        Ok(())
    }

    /// The write that waited longest is done; or it fails, or must wait longer.
    pub(super) fn written(&mut self, at: usize) -> Result<(), Broken> {
        let time = self.time;
        let machine = &mut self.machines[at];
        if machine.device.stalled_until > time {
            let (life, when) = (machine.life, machine.device.stalled_until);
            self.push(when, Event::Written { at: at as u32, life });
            return Ok(());
        }
        let boot = machine.process.as_ref().map(|process| process.boot);
        // Sped up when faults stopped, it is done already.
        let (Some(boot), Some(work)) = (boot, machine.disk.first_waiting()) else { return Ok(()) };
        let grows = matches!(work, Work::Append { .. } | Work::Install(_) | Work::Save(_) | Work::Rewind { .. });
        let fails = if machine.device.write_fails {
            Some("the disk says no")
        } else if grows && machine.device.full_until > time {
            Some("no space is left on the disk")
        } else {
            None
        };
        let done = machine.disk.do_next(boot, machine.schema, fails);
        let done = done.map_err(|why| Broken::new("effects_in_order", format!("node {}: {why}", machine.number)))?;
        let Some((id, result)) = done else { return Ok(()) };
        self.checks.wrote(at, id, &self.machines[at].disk, &result)?;
        let given = match &result {
            Ok(Worked::Rewound(_, name)) => Given::Rewound { id, aside: name.clone() },
            Ok(Worked::Stored | Worked::Read { .. } | Worked::Encoded(_) | Worked::Decoded(_)) | Err(_) => {
                Given::Worked { id, well: result.is_ok() }
            }
        };
        let seen = id.0 << 8 ^ worked_word(&result);
        self.step(at, Input::Worked { id, result }, given, seen)
    }

    /// Reads what is on the disk now; the node has it when its bytes are read.
    pub(super) fn read(&mut self, at: usize, id: WorkId, work: Work<Kv>) -> Result<(), Broken> {
        let machine = &self.machines[at];
        let result = machine.disk.read(work);
        let bytes: usize = match &result {
            Ok(Worked::Read { records, .. }) => records.iter().map(bytes::Bytes::len).sum(),
            Ok(Worked::Stored | Worked::Rewound(..) | Worked::Encoded(_) | Worked::Decoded(_)) | Err(_) => 0,
        };
        let takes = bytes as u64 * MILLIS / self.plan.timing.disk_bytes_per_milli.max(1);
        let life = machine.life;
        self.push(self.time + takes, Event::Worked { at: at as u32, life, done: Box::new((id, result)) });
        Ok(())
    }

    /// Reading, encoding or decoding is done.
    pub(super) fn worked(
        &mut self,
        at: usize,
        id: WorkId,
        mut result: Result<Worked<Kv>, WorkFailed>,
    ) -> Result<(), Broken> {
        if std::mem::take(&mut self.machines[at].device.read_fails) {
            result = Err(WorkFailed("the disk says no".to_owned()));
        }
        let seen = id.0 << 8 ^ worked_word(&result);
        let given = Given::Worked { id, well: result.is_ok() };
        self.step(at, Input::Worked { id, result }, given, seen)
    }
}

/// How many bytes a write moves.
fn bytes_of(work: &Work<Kv>) -> u64 {
    match work {
        Work::Append { records, .. } => records.iter().map(|record| record.len() as u64).sum(),
        Work::Install(snapshot) | Work::Save(snapshot) => snapshot.manifest.bytes,
        Work::Keep(_)
        | Work::Rewind { .. }
        | Work::Trim { .. }
        | Work::Read { .. }
        | Work::Encode { .. }
        | Work::Decode { .. } => 0,
    }
}

/// What was asked for, as a number.
fn asked_word(work: &Work<Kv>) -> u64 {
    let mut mixer = Mixer::default();
    match work {
        Work::Keep(kept) => {
            mixer.number(kept.clock);
            mixer.number(kept.disk);
            mixer.number(kept.led << 1 | u64::from(kept.damaged));
        }
        Work::Append { first, records } => {
            mixer.number(first.0);
            records.iter().for_each(|record| mixer.bytes(record));
        }
        Work::Rewind { to, .. } => mixer.number(to.0),
        Work::Install(snapshot) | Work::Save(snapshot) | Work::Decode { snapshot, .. } => {
            mixer.number(word(&snapshot.manifest.hash.0));
        }
        Work::Trim { log_below, snapshots_but } => {
            mixer.number(log_below.0);
            snapshots_but.iter().for_each(|next| mixer.number(next.0));
        }
        Work::Read { from, until, max_bytes } => {
            mixer.number(from.0);
            mixer.number(until.0);
            mixer.number(*max_bytes as u64);
        }
        Work::Encode { capture, .. } => mixer.number(word(&capture.hash().0)),
    }
    mixer.hash()
}
