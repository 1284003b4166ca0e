//! Time as the core sees it: plain numbers handed in by the driver. The core never asks a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The present, as one driver hands it to one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time: orders this node's own timers, means nothing to another node.
    pub at: Moment,
    /// Wall time: only stamps entries; it may jump.
    pub wall: Wall,
}

/// A point on one node's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// A length of time in nanoseconds. Where people read and write it, it has a unit: `250ms`, `1.5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Wall time in milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

impl Moment {
    /// The time from `earlier` to here; nothing if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Span {
        Span(seconds * 1_000_000_000)
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Span {
        Span(millis * 1_000_000)
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The whole of it as text that reads back: a number in the largest unit that leaves no fraction.
    pub fn exact(self) -> String {
        let fits = |(unit, _): &(u64, &str)| self.0 != 0 && self.0.is_multiple_of(*unit);
        let (unit, name) = UNITS.into_iter().rev().find(fits).unwrap_or((1_000_000_000, "s"));
        format!("{}{name}", self.0 / unit)
    }

    /// So many times as long, at most the longest span there is.
    pub const fn times(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

impl Add<Span> for Moment {
    type Output = Moment;
    fn add(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

/// Units of time in nanoseconds, the shortest first.
const UNITS: [(u64, &str); 6] = [
    (1, "ns"),
    (1_000, "us"),
    (1_000_000, "ms"),
    (1_000_000_000, "s"),
    (60_000_000_000, "m"),
    (3_600_000_000_000, "h"),
];

/// Text that is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a length of time with its unit, such as \"250ms\", \"5s\", \"2m\" or \"24h\"")]
pub struct NoSpan;

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Span, NoSpan> {
        parsed(text.trim()).ok_or(NoSpan)
    }
}

fn parsed(text: &str) -> Option<Span> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?);
    let unit = match unit.trim() {
        "µs" => "us",
        other => other,
    };
    let (nanoseconds, _) = UNITS.into_iter().find(|(_, name)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(nanoseconds)?;
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(nanoseconds) / 10u128.pow(digits);
    Some(Span(whole.checked_add(u64::try_from(fraction).ok()?)?))
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.exact())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Span);
        }
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("expected {NoSpan}, found {text:?}")))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(f, "{} µs", self.0 / 1_000),
            1_000_000..10_000_000_000 => write!(f, "{} ms", self.as_millis()),
            _ => write!(f, "{} s", self.0 / 1_000_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_what_it_writes() {
        let written = |nanoseconds| Span(nanoseconds).exact();
        assert_eq!(written(0), "0s");
        assert_eq!(written(1_500_000_000), "1500ms");
        assert_eq!(written(7_200_000_000_000), "2h");
        for nanoseconds in [0, 1, 999, 1_000, 20_500_000, 60_000_000_000, u64::MAX] {
            assert_eq!(written(nanoseconds).parse(), Ok(Span(nanoseconds)));
        }
        assert_eq!("1.5 s".parse(), Ok(Span::millis(1500)));
        assert_eq!("2µs".parse(), Ok(Span(2000)));
    }

    #[test]
    fn other_text_is_no_span() {
        for text in ["", "5", "s", "-1s", "1.s", "1e3s", "1 fortnight", "1.0000000001s", "999999999999h"] {
            assert_eq!(text.parse::<Span>(), Err(NoSpan), "{text}");
        }
    }
}
