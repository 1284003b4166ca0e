//! Copies of the custom model cards on this node's disk, `cards/*.json` in its data directory: for people and for
//! runners. The state is the original; nothing is read back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use lockstep_inference::id::ModelId;
use lockstep_inference::state::ModelCard;
use lockstep_replication::Hash;
use serde_json::json;

use crate::store::files;

/// What is to be on disk: these cards, or none under the id; and nothing else if they are the whole.
type Change = (BTreeMap<ModelId, Option<Arc<ModelCard>>>, bool);

/// Writes on a thread of its own, in order. The queue needs no limit: entries of the log make it grow, and the disk takes
/// those too.
#[derive(Debug)]
pub(super) struct Cards {
    changes: Option<mpsc::Sender<Change>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Cards {
    /// Copies go to the `cards` directory in this one.
    pub(super) fn start(data: &Path) -> std::io::Result<Cards> {
        let (changes, queue) = mpsc::channel();
        let directory = data.join("cards");
        let writer = std::thread::Builder::new().name("cards".into()).spawn(move || write(&directory, &queue))?;
        Ok(Cards { changes: Some(changes), writer: Some(writer) })
    }

    /// Makes the disk so.
    pub(super) fn mirror(&self, cards: BTreeMap<ModelId, Option<Arc<ModelCard>>>, whole: bool) {
        // The thread ends before this only by a panic, which its own hook has reported.
        let _ = self.changes.as_ref().map(|changes| changes.send((cards, whole)));
    }

    /// Waits until all is written.
    pub(super) async fn close(mut self) {
        self.changes = None;
        if let Some(writer) = self.writer.take() {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

fn write(directory: &Path, queue: &mpsc::Receiver<Change>) {
    while let Ok((cards, whole)) = queue.recv() {
        if let Err(error) = apply(directory, &cards, whole) {
            tracing::warn!("the copies of model cards in {} are not complete: {error}", directory.display());
        }
    }
}

fn apply(directory: &Path, cards: &BTreeMap<ModelId, Option<Arc<ModelCard>>>, whole: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    if whole {
        let kept: BTreeSet<PathBuf> =
            cards.iter().filter(|(_, card)| card.is_some()).map(|(model, _)| file(directory, model)).collect();
        let there = files::names(directory)?.into_iter().map(|name| directory.join(name));
        there.filter(|path| !kept.contains(path)).for_each(|path| files::remove(&path));
    }
    for (model, card) in cards {
        let path = file(directory, model);
        match card {
            None => files::remove(&path),
            Some(card) => {
                let text = serde_json::to_vec_pretty(&json!({ "model": model, "card": card }))?;
                if !std::fs::read(&path).is_ok_and(|there| there == text) {
                    files::write_whole(&path, |file| std::io::Write::write_all(file, &text))?;
                }
            }
        }
    }
    Ok(())
}

/// A card's file. Ids may hold what file names must not, and may differ in case alone: the hash tells them apart.
fn file(directory: &Path, model: &ModelId) -> PathBuf {
    let readable = |char: char| if char.is_ascii_alphanumeric() || "-_.".contains(char) { char } else { '-' };
    let name: String = model.0.chars().take(60).map(readable).collect();
    let hash = Hash::of(model.0.as_bytes()).to_string();
    directory.join(format!("{}-{}.json", name.trim_start_matches('.'), &hash[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(name: &str) -> Option<Arc<ModelCard>> {
        let settings = BTreeMap::new();
        let (name, runner) = (name.to_owned(), "echo".to_owned());
        Some(Arc::new(ModelCard {
            name,
            weights_bytes: 1,
            layers: 1,
            context_tokens: 1,
            custom: true,
            runner,
            settings,
        }))
    }

    fn there(data: &Path) -> Vec<(String, String)> {
        let names = files::names(&data.join("cards")).unwrap();
        let read = |name: &String| {
            let text = std::fs::read(data.join("cards").join(name)).unwrap();
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            (document["model"].as_str().unwrap().to_owned(), document["card"]["name"].as_str().unwrap().to_owned())
        };
        let mut found: Vec<_> = names.iter().map(read).collect();
        found.sort();
        found
    }

    #[tokio::test]
    async fn the_disk_becomes_what_it_is_told() {
        let data = tempfile::tempdir().unwrap();
        let (a, b, c) = (ModelId::new("acme/a"), ModelId::new("acme/A"), ModelId::new("../../c"));
        let pair = |model: &str, name: &str| (model.to_owned(), name.to_owned());
        let cards = Cards::start(data.path()).unwrap();
        cards.mirror(BTreeMap::from([(a.clone(), card("one")), (b.clone(), card("two"))]), true);
        cards.mirror(BTreeMap::from([(a.clone(), None), (b.clone(), card("three")), (c.clone(), card("four"))]), false);
        cards.close().await;
        assert_eq!(there(data.path()), [pair("../../c", "four"), pair("acme/A", "three")]);
        // After a restart: what is not among the whole goes, unfinished files too.
        std::fs::write(data.path().join("cards/half.json.tmp"), "{").unwrap();
        let cards = Cards::start(data.path()).unwrap();
        cards.mirror(BTreeMap::from([(a, card("five")), (c, card("four"))]), true);
        cards.close().await;
        assert_eq!(there(data.path()), [pair("../../c", "four"), pair("acme/a", "five")]);
    }
}
