//! A table by number that is dense where numbers are and costs nothing where they are not.

use std::collections::BTreeMap;

/// How many numbers share a page.
const PAGE: u64 = 256;

/// One `T` for each number, the default one until it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages<T> {
    pages: BTreeMap<u64, Vec<T>>,
}

impl<T: Copy + Default> Pages<T> {
    /// What stands at this number.
    pub(crate) fn get(&self, number: u64) -> T {
        self.pages.get(&(number / PAGE)).map_or_else(T::default, |page| page[(number % PAGE) as usize])
    }

    /// What stands at this number, to be changed.
    pub(crate) fn at(&mut self, number: u64) -> &mut T {
        let page = self.pages.entry(number / PAGE).or_insert_with(|| vec![T::default(); PAGE as usize]);
        &mut page[(number % PAGE) as usize]
    }

    /// All that was written, and its neighbours, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, T)> {
        self.pages.iter().flat_map(|(page, values)| (page * PAGE..).zip(values.iter().copied()))
    }
}
