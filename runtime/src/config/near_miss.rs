//! Which known word an unknown one was probably meant to be.

/// The nearest of `known`, if it is near enough that a slip explains the difference.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A key in the wrong section is a slip too: compare the last parts as well.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .iter()
        .map(|candidate| (distance(word, candidate).min(distance(&last(word), &last(candidate)) + 1), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + last(candidate).len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or changed to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let known = ["listen", "peers", "replication.snapshot_every"];
        assert_eq!(nearest("peer", &known), Some("peers"));
        assert_eq!(nearest("lisetn", &known), Some("listen"));
        assert_eq!(nearest("snapshot_every", &known), Some("replication.snapshot_every"));
        assert_eq!(nearest("colour", &known), None);
    }
}
