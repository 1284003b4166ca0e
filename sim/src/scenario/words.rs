//! The words of errors in scenario files: on which line something is wrong, and what was probably meant.

/// The line, from 1, that an error is about which begins at this byte: the first from there on that has what the reason
/// names first, within the same table.
pub(super) fn line_of(text: &str, start: usize, reason: &str) -> usize {
    let first = text.get(..start).unwrap_or(text).matches('\n').count();
    let Some(named) = named(reason) else { return first + 1 };
    let has =
        |line: &str| line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == named);
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let table = text.lines().skip(first).enumerate().take_while(|(after, line)| *after == 0 || !is_header(line));
    let found = table.filter(|(_, line)| !line.trim_start().starts_with('#')).find(|(_, line)| has(line));
    first + found.map_or(0, |(after, _)| after) + 1
}

/// What a reason names first, in quotes of either kind.
fn named(reason: &str) -> Option<&str> {
    let from = reason.find(['`', '"'])? + 1;
    reason[from..].split(['`', '"']).next()
}

/// A reason in words that help whoever wrote the file.
pub(super) fn helped(reason: String) -> String {
    let reason = reason
        .replace("unknown field", "unknown key")
        .replace("missing field", "missing key")
        .replace("unknown variant", "unknown word");
    let reason = match reason.as_str() {
        text if text.starts_with("missing key") => format!("{text}, expected it in the table that begins here"),
        text if text.ends_with("expected a string") => {
            format!("{text}, such as a length of time with its unit, \"250ms\" or \"5s\", or a text in quotes")
        }
        text => ["u16", "u32", "u64", "usize", "i64"].iter().fold(text.to_owned(), |text, number| {
            match text.strip_suffix(&format!("expected {number}")) {
                Some(before) => format!("{before}expected a whole number"),
                None => text,
            }
        }),
    };
    match meant(&reason) {
        Some(word) => reason.replacen(", expected", &format!(": did you mean `{word}`? Expected"), 1),
        None => reason,
    }
}

/// The word among those that were expected which is closest to what was found.
fn meant(reason: &str) -> Option<&str> {
    let (found, expected) = reason.strip_prefix("unknown ")?.split_once(", expected")?;
    let found = named(found)?;
    let words = expected.split('`').skip(1).step_by(2);
    let (away, word) = words.map(|word| (distance(found, word), word)).min()?;
    (away <= 1 + found.len() / 4).then_some(word)
}

/// How many letters must be added, taken away or changed to make one word from the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (left, same) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *same);
            diagonal = row[left + 1];
            row[left + 1] = changed.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_if_it_is_near() {
        let helped = |found: &str| helped(format!("unknown field `{found}`, expected `node` or `down`"));
        assert_eq!(helped("nodes"), "unknown key `nodes`: did you mean `node`? Expected `node` or `down`");
        assert_eq!(helped("colour"), "unknown key `colour`, expected `node` or `down`");
    }

    #[test]
    fn letters_are_counted() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("same", "same")), (3, 3, 0));
    }
}
