//! The switches: off unless set, the same for the same key, and every name in use.

use std::fs;
use std::path::Path;

use super::*;

/// All sources of this crate as one text, but for those of the switches themselves.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "chaos") {
                text += &sources(&path);
            }
        } else {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn every_name_has_a_place_in_the_sources() {
    let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for name in PROBES {
        assert!(text.contains(&format!("probe!(\"{name}\")")), "nothing probes {name:?}");
    }
    for name in MOODS {
        assert!(text.contains(&format!("buggify!(\"{name}\")")), "no node is ever in the mood {name:?}");
    }
    for mutant in Mutant::ALL {
        assert!(text.contains(&format!("mutant!({mutant:?}")), "nothing breaks by {mutant:?}");
    }
}

#[test]
fn names_are_not_used_twice() {
    for names in [PROBES, MOODS] {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]));
    }
    assert!(MOODS.len() <= 64, "moods are bits of one word");
    let mut names: Vec<String> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Mutant::ALL.len());
    assert!(names.iter().all(|name| Mutant::named(name).is_some_and(|mutant| mutant.name() == *name)));
}

#[test]
fn nothing_is_switched_on_by_itself() {
    assert!((0..MOODS.len()).all(|place| !fires(place)));
    assert!(Mutant::ALL.iter().all(|mutant| !is_planted(*mutant)));
    set(Chaos { mutant: Some(Mutant::ALL[3]), moods: None });
    assert_eq!(Mutant::ALL.iter().filter(|mutant| is_planted(**mutant)).count(), 1);
    set(Chaos::default());
    assert!(!is_planted(Mutant::ALL[3]));
}

#[test]
fn moods_depend_on_their_key_alone() {
    let fired = |seed: u64| -> Vec<bool> {
        set(Chaos { moods: Some(seed), ..Chaos::default() });
        let asked = (0..400).flat_map(|number| {
            step(number % 3, number);
            (0..MOODS.len()).map(fires).collect::<Vec<_>>()
        });
        asked.collect()
    };
    let (one, again, other) = (fired(1), fired(1), fired(2));
    set(Chaos::default());
    assert_eq!(one, again);
    assert_ne!(one, other);
    let often = one.iter().filter(|fired| **fired).count();
    let of = one.len();
    assert!(often * 100 > of && often * 6 < of, "{often} of {of}: some moods are armed, and fire now and then");
}

#[test]
fn hits_are_counted_until_they_are_taken() {
    take_hits();
    hit(0);
    hit(0);
    assert_eq!(take_hits()[0], 2);
    assert_eq!(take_hits().iter().sum::<u64>(), 0);
}
