//! How answers look: tables and figures for people, JSON for machines. Standard output holds nothing else.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// Prints text as it is, and a line's end. Fails when nobody reads any more.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a JSON document: indented for people, on one line for machines.
pub fn json(value: &Value, indented: bool) -> io::Result<()> {
    line(&if indented { format!("{value:#}") } else { value.to_string() })
}

/// A table with these headings. It does not fold its columns: a line that a small terminal breaks can still be read and
/// searched for.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headings);
    table
}

/// Prints a table without the spaces at the ends of its lines.
pub fn print_table(table: &Table) -> io::Result<()> {
    table.lines().try_for_each(|text| line(text.trim_end()))
}

/// `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `1 234 567`, with narrow gaps that a line cannot break at.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A length of time as people say it: `840 µs`, `12.3 ms`, `4.2 s`, `3 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_nanos() {
        0..1_000_000 => format!("{} µs", duration.as_micros()),
        1_000_000..1_000_000_000 => format!("{:.1} ms", seconds * 1e3),
        1_000_000_000..120_000_000_000 => format!("{seconds:.1} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

/// `2026-01-31 12:00:00`, UTC, of milliseconds since 1970.
pub fn date_and_time(millis: u64) -> String {
    let (days, seconds) = (millis / 86_400_000, millis / 1000 % 86_400);
    // The civil calendar in eras of 400 years that begin on a first of March, so that leap days come last.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The first eight digits of an id: enough to tell nodes apart.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A bar of so many steps, or without an end where it is not known, on standard error; silent in a pipe.
pub fn progress(steps: Option<u64>, what: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(steps, target).with_message(what);
    let style = match steps {
        Some(_) => ProgressStyle::with_template("{msg} {wide_bar} {human_pos} of {human_len}, {eta} left"),
        None => ProgressStyle::with_template("{spinner} {msg} {elapsed}"),
    };
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(duration(Duration::from_micros(840)), "840 µs");
        assert_eq!(duration(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(duration(Duration::from_secs(300)), "5 min");
        assert_eq!(short("0123456789"), "01234567");
        assert_eq!(date_and_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_and_time(951_827_696_000), "2000-02-29 12:34:56");
        assert_eq!(date_and_time(4_107_542_399_000), "2100-02-28 23:59:59");
        assert_eq!(date_and_time(4_107_542_400_000), "2100-03-01 00:00:00");
    }
}
