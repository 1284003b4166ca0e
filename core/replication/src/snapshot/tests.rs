//! Snapshots come back as they went, and what is not one is refused at bounded cost. Also the samples that the tests of
//! the neighbouring files use.

use std::io::{self, Read as _, Write as _};

use super::*;
use crate::app::{Observed, Place, Wish};
use crate::entry::{Body, Decided, Entry, Founding, Opened};
use crate::id::{Boot, NodeId};
use crate::rng::Seed;
use crate::time::Wall;

/// A state of bytes, to which events add.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob;

impl App for Blob {
    type State = Vec<u8>;
    type Event = Vec<u8>;
    type Command = ();
    type Observation = ();
    type Transient = ();
    type Telemetry = ();
    type Refusal = String;
    const SCHEMA: u32 = 3;

    fn decide(_: &Vec<u8>, _: &Observed<Self>, _: Wish<Self>) -> Result<Vec<Vec<u8>>, String> {
        Ok(Vec::new())
    }

    fn apply(state: &mut Vec<u8>, event: &Vec<u8>, _: Place) {
        state.extend(event);
    }

    fn key((): &()) -> u64 {
        0
    }
}

/// A state of `bytes` bytes that do not compress, after `entries` entries.
fn replica(entries: u64, bytes: usize) -> Replica<Blob> {
    let mut rng = Seed::from_number(entries).rng();
    let noise = (0..bytes).map(|_| rng.below(256) as u8).collect();
    let session = Session { clock: 1, leader: NodeId::example(1), boot: Boot::default() };
    let founding = Some(Founding { id: 1, widest: 0, known: Vec::new() });
    let decided = |events| Body::Decided(Decided { proposal: None, command: None, events });
    let mut bodies = vec![Body::Opened(Opened { session, founding }), decided(vec![noise])];
    bodies.extend((2..entries).map(|_| decided(Vec::new())));
    let mut replica = Replica::default();
    for (index, body) in bodies.into_iter().enumerate() {
        let entry = Entry::<Blob> { index: Index(index as u64), stamp: Wall(0), body };
        replica.take(&entry.seal(Blob::SCHEMA)).expect("the entries are in order");
    }
    replica
}

/// A snapshot after `entries` (two at least) entries, of a little more than `bytes` bytes.
pub(super) fn sample(entries: u64, bytes: usize, chunk_bytes: usize) -> Snapshot {
    Snapshot::encode(&replica(entries, bytes), chunk_bytes).expect("a small state encodes")
}

/// A snapshot whose compressed form is `compressed`, and whose manifest vouches for it.
fn vouched(compressed: Vec<u8>, raw_bytes: u64) -> Snapshot {
    let bytes = Bytes::from(compressed);
    let manifest = Manifest {
        bytes: bytes.len() as u64,
        hash: Hash::of(&bytes),
        chunks: bytes.chunks(1024).map(Hash::of).collect(),
        raw_bytes,
        ..sample(2, 10, 1024).manifest
    };
    Snapshot { manifest, bytes }
}

const LIMIT: u64 = 1 << 20;

#[test]
fn a_state_comes_back_as_it_went_and_its_chunks_make_the_whole() {
    let before = replica(7, 5000);
    let snapshot = Snapshot::encode(&before, 1024).unwrap();
    let manifest = &snapshot.manifest;
    manifest.check(LIMIT, LIMIT, 1024).unwrap();
    assert_eq!(manifest.next(), Index(7));
    let chunks: Vec<Bytes> = (0..).map_while(|chunk| snapshot.chunk(chunk)).collect();
    assert_eq!(chunks.concat(), snapshot.bytes);
    assert_eq!(chunks.iter().map(|chunk| Hash::of(chunk)).collect::<Vec<_>>(), manifest.chunks);
    assert_eq!(snapshot.decode::<Blob>(LIMIT).unwrap(), before);
    assert_eq!(Snapshot::encode(&before, 1024).unwrap(), snapshot, "equal states have equal bytes");
}

#[test]
fn bytes_that_differ_from_the_manifest_are_refused() {
    let snapshot = sample(2, 3000, 1024);
    for at in [0, 4, 5, 100, snapshot.bytes.len() - 1] {
        let mut bytes = snapshot.bytes.to_vec();
        bytes[at] ^= 1;
        assert_eq!(Snapshot { bytes: bytes.clone().into(), ..snapshot.clone() }.decode::<Blob>(LIMIT), Err(Bad::Hash));
        // Even where the manifest vouches for them, nothing panics, and what still decodes is not another log's state.
        let decoded = vouched(bytes, snapshot.manifest.raw_bytes).decode::<Blob>(LIMIT);
        assert!(decoded.is_err(), "byte {at}");
    }
    for len in [0, 1, 5, 1000] {
        assert!(vouched(snapshot.bytes[..len].to_vec(), LIMIT).decode::<Blob>(LIMIT).is_err());
    }
}

#[test]
fn a_manifest_of_another_log_is_refused() {
    let snapshot = sample(7, 3000, 1024);
    let other = sample(8, 3000, 1024).manifest;
    for manifest in [
        Manifest { lineage: other.lineage.clone(), ..snapshot.manifest.clone() },
        Manifest { log_hash: other.log_hash, ..snapshot.manifest.clone() },
    ] {
        assert_eq!(Snapshot { manifest, ..snapshot.clone() }.decode::<Blob>(LIMIT), Err(Bad::Mismatch));
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit_and_not_after_it() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 30), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200_000, "1 GiB of zeros in {} bytes", bomb.len());
    let too_large = |limit| Err(Bad::TooLarge { what: "its raw size", found: limit + 1, limit });
    assert_eq!(vouched(bomb.clone(), 5000).decode::<Blob>(LIMIT), too_large(5000), "it must keep to its own word");
    assert_eq!(vouched(bomb, 1 << 30).decode::<Blob>(LIMIT), too_large(LIMIT), "its word does not lift the limit");
}

#[test]
fn a_window_that_would_take_much_memory_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&[7; 100_000]).unwrap();
    let wide = vouched(encoder.finish().unwrap(), 100_000);
    assert!(matches!(wide.decode::<Blob>(LIMIT), Err(Bad::Malformed(reason)) if reason.contains("memory")));
}

#[test]
fn collections_that_announce_more_than_there_is_are_refused() {
    let lengths = [vec![0xff; 9], vec![0xff, 0xff, 0xff, 0xff, 0x0f]];
    for length in lengths {
        // Everything of an empty replica up to its last field, the state's length.
        let mut raw = vec![FORMAT];
        raw.extend(Blob::SCHEMA.to_le_bytes());
        raw = postcard::to_extend(&Replica::<Blob>::default(), raw).unwrap();
        assert_eq!(raw.pop(), Some(0));
        raw.extend(length);
        let snapshot = vouched(zstd::bulk::compress(&raw, LEVEL).unwrap(), LIMIT);
        assert!(matches!(snapshot.decode::<Blob>(LIMIT), Err(Bad::Malformed(_))));
    }
}

#[test]
fn other_versions_and_trailing_bytes_are_refused() {
    let with = |change: fn(&mut Vec<u8>)| {
        let snapshot = sample(2, 100, 1024);
        let mut raw = zstd::stream::decode_all(&snapshot.bytes[..]).unwrap();
        change(&mut raw);
        let changed = vouched(zstd::bulk::compress(&raw, LEVEL).unwrap(), raw.len() as u64);
        Snapshot {
            manifest: Manifest {
                lineage: snapshot.manifest.lineage,
                log_hash: snapshot.manifest.log_hash,
                ..changed.manifest
            },
            ..changed
        }
        .decode::<Blob>(LIMIT)
        .map(drop)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|raw| raw[0] += 1), Err(Bad::Version { format: FORMAT + 1, schema: 3, reads: 3 }));
    assert_eq!(with(|raw| raw[1] += 1), Err(Bad::Version { format: FORMAT, schema: 4, reads: 3 }));
    assert_eq!(with(|raw| raw.push(0)), Err(Bad::Mismatch));
    assert_eq!(with(|raw| raw.truncate(3)), Err(Bad::Mismatch));
}

#[test]
fn impossible_manifests_are_refused_before_anything_is_allocated() {
    let good = sample(7, 5000, 1024).manifest;
    let check = |change: fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.check(LIMIT, LIMIT, 1024)
    };
    assert_eq!(check(|_| {}), Ok(()));
    let bad: [fn(&mut Manifest); 9] = [
        |m| m.bytes = 0,
        |m| m.chunk_bytes = 0,
        |m| m.chunk_bytes = 1025,
        |m| m.bytes = LIMIT + 1,
        |m| m.bytes = u64::MAX,
        |m| m.raw_bytes = LIMIT + 1,
        |m| m.chunks.clear(),
        |m| m.chunks.push(Hash::default()),
        // So many chunks of one byte that their number does not fit 32 bits.
        |m| (m.bytes, m.chunk_bytes) = (1 << 33, 1),
    ];
    for (at, change) in bad.into_iter().enumerate() {
        assert!(check(change).is_err(), "change {at}");
    }
    let mut huge = good.clone();
    (huge.bytes, huge.chunk_bytes) = (u64::MAX, 1);
    assert!(huge.check(u64::MAX, LIMIT, 1024).is_err(), "2^32 chunks and more are never there");
    assert_eq!(huge.chunk_len(u32::MAX), Some(1));
    assert_eq!(good.chunk_len(u32::MAX), None);
}
