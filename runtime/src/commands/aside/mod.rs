//! `lockstep aside`: what a losing branch of the log left, and re-submitting it.

pub mod resubmit;

use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lockstep_inference::Inference;
use lockstep_replication::Index;

use super::client::Target;
use super::{events, output, submit};
use crate::config::NodeConfig;
use crate::store::aside;
use resubmit::{Models, Wished};

/// List, show, re-submit or remove what losing branches of the log left in a data directory.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,

    /// The data directory.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the set-aside files, oldest first.
    #[command(after_help = "\
Examples:
  lockstep aside list
  lockstep aside list --data demo/node-1 --json")]
    List {
        /// Print one JSON document, and nothing else, on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Show the entries of one.
    #[command(after_help = "\
Examples:
  lockstep aside show 1-204.aside")]
    Show {
        /// Its name.
        name: String,
        /// Print a JSON document a line.
        #[arg(long)]
        json: bool,
    },
    /// Order again what clients asked for in it, as far as it can still be done.
    ///
    /// Doing it twice, or for two nodes' files of one branch, does each command once. What nodes only observed is left
    /// out: they observe it again. Each command is answered by a line of JSON, in order.
    #[command(after_help = "\
Examples:
  lockstep aside submit 1-204.aside --dry-run       which commands these would be
  lockstep aside submit 1-204.aside                 all of them
  lockstep aside submit 1-204.aside --only 207      one of them")]
    Submit {
        /// Its name.
        name: String,
        /// Only the entry at this index (may be given several times).
        #[arg(long, value_name = "INDEX")]
        only: Vec<u64>,
        /// Print the commands, and send nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Remove one, when you have looked.
    #[command(after_help = "\
Examples:
  lockstep aside remove 1-204.aside")]
    Remove {
        /// Its name.
        name: String,
    },
}

impl Arguments {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        let data = self.data.unwrap_or_else(|| NodeConfig::default().data);
        match self.action {
            Action::List { json } => {
                let files = aside::list(&data)?;
                if json {
                    return Ok(output::json(&serde_json::to_value(files)?, false)?);
                }
                if files.is_empty() {
                    return Ok(output::line("Nothing was set aside.")?);
                }
                let mut table = output::table(["name", "written (UTC)", "from index", "entries", "yielded to", "size"]);
                for file in files {
                    let winner = file.winner.map_or("- (damage)".into(), |session| session.to_string());
                    table.add_row([
                        file.name,
                        output::date_and_time(file.when.0),
                        file.fork.to_string(),
                        output::count(file.entries),
                        winner,
                        output::bytes(file.bytes),
                    ]);
                }
                output::print_table(&table)?;
            }
            Action::Show { name, json } => {
                for entry in aside::read(&data, &name)?.entries::<Inference>() {
                    let entry = serde_json::to_value(entry?)?;
                    output::line(&if json { entry.to_string() } else { events::one_line(&entry) })?;
                }
            }
            Action::Submit { name, only, dry_run, target } => {
                let client = target.client()?;
                let state = if dry_run { None } else { Some(client.state().await?) };
                let lines = wishes(aside::read(&data, &name)?, only, Models::of(state.as_ref()));
                if dry_run {
                    for line in lines {
                        output::line(line?.trim_end())?;
                    }
                } else {
                    submit::stream(&client, Box::new(Lines { lines, pending: io::Cursor::default() })).await?;
                }
            }
            Action::Remove { name } => {
                aside::remove(&data, &name)?;
            }
        }
        Ok(())
    }
}

/// The commands of a set-aside file as lines for the API, each named after its entry.
fn wishes(
    file: aside::AsideReader,
    only: Vec<u64>,
    mut models: Models,
) -> impl Iterator<Item = io::Result<String>> + Send {
    file.records().filter_map(move |record| {
        let wished = record.map_err(io::Error::other).and_then(|record| {
            let entry = record.open::<Inference>().map_err(io::Error::other)?;
            // Learn from every entry, also from those that are not wanted: they name the models of later ones.
            let command = models.command(&entry);
            let Index(index) = entry.index;
            Ok(command
                .filter(|_| only.is_empty() || only.contains(&index))
                .map(|command| Wished::new(&record, command)))
        });
        wished.and_then(|wished| wished.map(|wished| wished.line()).transpose()).transpose()
    })
}

/// Lines as bytes to be read.
struct Lines<I> {
    lines: I,
    pending: io::Cursor<Vec<u8>>,
}

impl<I: Iterator<Item = io::Result<String>>> Read for Lines<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.pending.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.lines.next() {
                Some(line) => self.pending = io::Cursor::new(line?.into_bytes()),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_an_error_ends_them() {
        let lines = vec![Ok("a\n".to_owned()), Ok("bc\n".to_owned()), Err(io::Error::other("damaged"))];
        let mut reader = Lines { lines: lines.into_iter(), pending: io::Cursor::default() };
        let mut bytes = Vec::new();
        let error = reader.read_to_end(&mut bytes).expect_err("the last one");
        assert_eq!((bytes.as_slice(), error.to_string().as_str()), (&b"a\nbc\n"[..], "damaged"));
    }
}
